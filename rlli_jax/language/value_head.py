"""The value of a state, read from what a language model makes of its text."""

import flax.linen as nn
import jax


class ValueHead(nn.Module):
    """State value from ``Scores.hidden``, as in Lamorel's PPO example."""

    width: int = 1_024

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [...]."""
        for _ in range(2):
            hidden = jax.nn.sigmoid(nn.Dense(self.width)(hidden))
        return nn.Dense(1)(hidden).squeeze(-1)
