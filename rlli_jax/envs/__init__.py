"""Environments, all on gymnax's base class, and what a policy is.

gymnax knows the environments by name, as in ``gymnax.make("EdgeMarket-v0")``, once this package is
imported. Importing it alone is cheap: gymnax, which imports all its environments, comes with the
first of ours.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlli_jax.lazy import after_import, attach

if TYPE_CHECKING:
    from rlli_jax.envs.edge_market import EdgeMarket
    from rlli_jax.envs.go_to import GoTo
    from rlli_jax.envs.go_to_red_ball import GoToRedBall
    from rlli_jax.envs.provider_selection import ProviderSelection
    from rlli_jax.envs.session import Session

__all__ = ["EdgeMarket", "GoTo", "GoToRedBall", "ProviderSelection", "Session"]

_MODULES = {
    ".edge_market": ("EdgeMarket",),
    ".go_to": ("GoTo",),
    ".go_to_red_ball": ("GoToRedBall",),
    ".provider_selection": ("ProviderSelection",),
    ".session": ("Session",),
}
__getattr__, __dir__ = attach(__name__, _MODULES)


def _register() -> None:
    from gymnax import register, registration

    for module, names in _MODULES.items():
        for name in names:
            if f"{name}-v0" not in registration.registered_envs:
                register(f"{name}-v0", _factory(module, name))


def _factory(module: str, name: str) -> Any:
    def make(**arguments: Any) -> Any:
        return getattr(import_module(module, __name__), name)(**arguments)

    return make


after_import("gymnax", _register)
