"""Provider selection (RLLI, Section III): which provider serves which user."""

from typing import TYPE_CHECKING

from rlli_jax.lazy import attach

if TYPE_CHECKING:
    from rlli_jax.envs.provider_selection.env import (
        EnvParams,
        EnvState,
        ProviderSelection,
        demonstration_personas,
        demonstration_table,
        make_params,
    )

__all__ = [
    "EnvParams",
    "EnvState",
    "ProviderSelection",
    "demonstration_personas",
    "demonstration_table",
    "make_params",
]

__getattr__, __dir__ = attach(__name__, {".env": __all__})
