"""Uniform numbers as choices: one draw can serve all that is random in a step."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def index_below(count: jax.Array | int, chance: jax.Array) -> jax.Array:
    """An int32 number from 0 below ``count``, by ``chance`` in [0, 1); -1 if ``count`` is 0."""
    # min: float32 rounding may lift chance * count to count itself.
    return jnp.minimum((chance * count).astype(jnp.int32), count - 1)


def digits(word: jax.Array, counts: Sequence[int]) -> list[jax.Array]:
    """Independent int32 numbers, each from 0 below one of ``counts``, by uniform words of 32 bits.

    No chance is off by more than its product(counts) / 2^32th part, and by nothing where all counts
    are powers of two.
    """
    found = []
    for count in counts:
        found.append((word % jnp.uint32(count)).astype(jnp.int32))
        word = word // jnp.uint32(count)
    return found
