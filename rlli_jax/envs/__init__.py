"""Environments, all on gymnax's base class; importing this module registers them with gymnax."""

import gymnax
from gymnax import registration

from rlli_jax.envs.provider_selection import ProviderSelection

__all__ = ["ProviderSelection"]

for _id, _factory in {"ProviderSelection-v0": ProviderSelection}.items():
    if _id not in registration.registered_envs:
        gymnax.register(_id, _factory)
