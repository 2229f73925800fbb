"""Providers that really generate: from prompts to pictures, each made once and kept.

A provider (:class:`rlli_jax.generation.base.Provider`) says which settings can change its pictures
and makes them; :func:`make_pictures` looks up what a :class:`PictureStore` holds, has the rest made
and keeps it::

    with closing(PictureStore("pictures")) as store:
        print(plan_pictures(providers, prompts, store).describe())
        found = make_pictures(providers, prompts, store, console=Console())
"""

from rlli_jax.generation.base import Made, NotMade, Provider, Refused
from rlli_jax.generation.making import PictureBudget, make_pictures, plan_pictures
from rlli_jax.generation.store import Kept, PictureStore

__all__ = [
    "Kept",
    "Made",
    "NotMade",
    "PictureBudget",
    "PictureStore",
    "Provider",
    "Refused",
    "make_pictures",
    "plan_pictures",
]
