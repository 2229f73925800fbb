"""GoTo: a room with several coloured things, and an instruction which of them to go to."""

from typing import TYPE_CHECKING

from rlli_jax.lazy import attach

if TYPE_CHECKING:
    from rlli_jax.envs.go_to.env import EnvParams, EnvState, GoTo

__all__ = ["EnvParams", "EnvState", "GoTo"]

__getattr__, __dir__ = attach(__name__, {".env": __all__})
