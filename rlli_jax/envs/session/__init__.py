"""Sessions: one person asks several times, tastes drift and satiate, and what was felt is seen."""

from typing import TYPE_CHECKING

from rlli_jax.lazy import attach

if TYPE_CHECKING:
    from rlli_jax.envs.session.env import EnvParams, EnvState, Session, make_params

__all__ = ["EnvParams", "EnvState", "Session", "make_params"]

__getattr__, __dir__ = attach(__name__, {".env": __all__})
