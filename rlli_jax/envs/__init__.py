"""Environments, all on gymnax's base class; importing this module registers them with gymnax."""

import gymnax
from gymnax import registration

from rlli_jax.envs.edge_market import EdgeMarket
from rlli_jax.envs.go_to_red_ball import GoToRedBall
from rlli_jax.envs.provider_selection import ProviderSelection

__all__ = ["EdgeMarket", "GoToRedBall", "ProviderSelection"]

_environments = {
    "ProviderSelection-v0": ProviderSelection,
    "EdgeMarket-v0": EdgeMarket,
    "GoToRedBall-v0": GoToRedBall,
}
for _id, _factory in _environments.items():
    if _id not in registration.registered_envs:
        gymnax.register(_id, _factory)
