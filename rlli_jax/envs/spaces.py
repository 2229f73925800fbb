"""The one space that gymnax lacks: several discrete choices at once."""

import jax
import jax.numpy as jnp
from gymnax.environments import spaces


class MultiDiscrete(spaces.Box):
    """``num_choices`` independent choices of 0 .. n - 1, as int32 [num_choices]."""

    def __init__(self, num_choices: int, n: int) -> None:
        super().__init__(0, n - 1, (num_choices,), jnp.int32)
        self.n = n

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw every choice uniformly, int32 [num_choices]."""
        return jax.random.randint(key, self.shape, 0, self.n)
