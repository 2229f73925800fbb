"""What an environment counts in a step, where it is a few entries of a large array."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Tally:
    """Ones at some entries of an array that is zero elsewhere.

    The array may grow with the number of users, and so do the steps of an episode: adding the whole
    array up at every step would take quadratic time.
    """

    index: tuple[jax.Array, ...]  # int32 of one shape, one array for each axis
    shape: tuple[int, ...] = struct.field(pytree_node=False)  # of the whole array

    def add_to(self, total: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
        """``total`` plus ``weight`` [...] at every entry [..., n], of the type of ``total``."""
        entries = jnp.broadcast_shapes(*(jnp.shape(i) for i in self.index))
        weight = jnp.asarray(weight, total.dtype)
        weight = jnp.broadcast_to(
            jnp.expand_dims(weight, range(weight.ndim, len(entries))), entries
        )
        return total.at[self.index].add(weight)

    def dense(self) -> jax.Array:
        """The array itself, float32."""
        return self.add_to(jnp.zeros(self.shape, jnp.float32))
