"""Uniform numbers as choices: one draw can serve all that is random in a step."""

import jax
import jax.numpy as jnp


def index_below(count: jax.Array | int, chance: jax.Array) -> jax.Array:
    """An int32 number from 0 below ``count``, by ``chance`` in [0, 1); -1 if ``count`` is 0."""
    # min: float32 rounding may lift chance * count to count itself.
    return jnp.minimum((chance * count).astype(jnp.int32), count - 1)
