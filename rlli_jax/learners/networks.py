"""The networks of the learners, in flax.linen."""

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.learners.core import ActionShape

Activation = Literal["tanh", "relu", "mish"]
ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "mish": jax.nn.mish,
}

# Stands for minus infinity in the logit of an illegal action, without its NaNs in gradients.
ILLEGAL = -1e9


class MLP(nn.Module):
    """Dense layers with orthogonal initialisation (gain sqrt 2, then ``output_gain``)."""

    hidden: Sequence[int]
    output: int
    output_gain: float
    activation: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features] -> [..., output]."""
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(np.sqrt(2)))(x)
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.output, kernel_init=nn.initializers.orthogonal(self.output_gain))(x)


class Actor(nn.Module):
    """Logits of a (factored) categorical policy."""

    actions: ActionShape
    hidden: Sequence[int]
    activation: Activation

    @nn.compact
    def __call__(self, observation: jax.Array, legal: jax.Array) -> jax.Array:
        """[..., size], [..., *heads, L] -> logits [..., *heads, L]; illegal ones are ILLEGAL."""
        heads, n = self.actions
        outputs = int(np.prod(heads, dtype=int)) * n
        logits = MLP(self.hidden, outputs, 0.01, self.activation)(observation)
        return jnp.where(legal, logits.reshape(*observation.shape[:-1], *heads, n), ILLEGAL)


class Critic(nn.Module):
    """State value."""

    hidden: Sequence[int]
    activation: Activation

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        """[..., size] -> [...]."""
        return MLP(self.hidden, 1, 1.0, self.activation)(observation).squeeze(-1)


class QNetwork(nn.Module):
    """Action values; ``dueling`` splits them into value and advantage (Wang et al. 2016, Eq. 9)."""

    num_actions: int
    hidden: Sequence[int]
    activation: Activation
    dueling: bool

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        """[..., size] -> [..., L]."""
        if not self.dueling:
            return MLP(self.hidden, self.num_actions, 1.0, self.activation)(observation)
        *trunk, last = self.hidden
        x = ACTIVATIONS[self.activation](MLP(trunk, last, np.sqrt(2), self.activation)(observation))
        value = MLP((), 1, 1.0, self.activation)(x)
        advantage = MLP((), self.num_actions, 1.0, self.activation)(x)
        return value + advantage - advantage.mean(-1, keepdims=True)
