"""The networks of the learners, in flax.linen."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import ActionShape
from rlli_jax.learners.cpu import dot_general, orthogonal

Activation = Literal["tanh", "relu", "mish"]
ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "mish": jax.nn.mish,
}

# Stands for minus infinity in the logit of an illegal action, without its NaNs in gradients.
ILLEGAL = -1e9


class Dense(nn.Dense):
    """``nn.Dense`` with the fast gradient on a CPU."""

    dot_general: Any = dot_general


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
            x = Dense(width, kernel_init=orthogonal(np.sqrt(2)))(x)
            x = ACTIVATIONS[self.activation](x)
        return Dense(self.output, kernel_init=orthogonal(self.output_gain))(x)


class PerAction(nn.Module):
    """One network that scores every action: Deep Sets (Zaheer et al. 2017, arXiv 1703.06114).

    Each layer sees the action itself and the mean over all actions (Eq. 4 there, with a mean). What
    the observation does not tell of an action, a learned vector of that action can hold; it starts
    at 0, so that at first actions which look alike score alike.
    """

    hidden: Sequence[int]
    output_gain: float
    activation: Activation

    @nn.compact
    def __call__(self, rows: jax.Array, rest: jax.Array) -> jax.Array:
        """What is known of each action [..., L, features] and else [..., more] -> [..., L]."""
        x = rows
        init = orthogonal(np.sqrt(2))
        shape = (rows.shape[-2], self.hidden[0])
        known: jax.Array | float = self.param("known", nn.initializers.zeros, shape)
        for width in self.hidden:
            # What is the same for every action goes through a layer once.
            common = Dense(width, kernel_init=init)(jnp.concatenate([x.mean(-2), rest], -1))
            each = Dense(width, use_bias=False, kernel_init=init)(x)
            x = ACTIVATIONS[self.activation](each + common[..., None, :] + known)
            known, rest = 0.0, rest[..., :0]
        return Dense(1, kernel_init=orthogonal(self.output_gain))(x).squeeze(-1)


class Actor(nn.Module):
    """Logits of a (factored) categorical policy.

    With ``split``, which takes an observation apart into what it tells of each action and the
    rest, one shared network scores every action (:class:`PerAction`); that is for a single choice.
    """

    actions: ActionShape
    hidden: Sequence[int]
    activation: Activation
    split: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None = None

    @nn.compact
    def __call__(self, observation: jax.Array, legal: jax.Array | None) -> jax.Array:
        """[..., size], [..., *heads, L] -> logits [..., *heads, L]; illegal ones are ILLEGAL.

        None in place of a mask: every action is legal.
        """
        heads, n = self.actions
        if self.split is not None:
            # The name that its parameters had first: checkpoints hold it, and the draw follows it.
            network = PerAction(self.hidden, 0.01, self.activation, name="Shared_0")
            logits = network(*self.split(observation))
        else:
            outputs = int(np.prod(heads, dtype=int)) * n
            logits = MLP(self.hidden, outputs, 0.01, self.activation)(observation)
            logits = logits.reshape(*observation.shape[:-1], *heads, n)
        return logits if legal is None else jnp.where(legal, logits, ILLEGAL)


class Critic(nn.Module):
    """State value."""

    hidden: Sequence[int]
    activation: Activation

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        """[..., size] -> [...]."""
        return MLP(self.hidden, 1, 1.0, self.activation)(observation).squeeze(-1)


class QNetwork(nn.Module):
    """Action values; ``dueling`` splits them into value and advantage (Wang et al. 2016, Eq. 9).

    With ``quantiles`` each value is a distribution, given by its quantiles (Dabney et al. 2018).
    """

    num_actions: int
    hidden: Sequence[int]
    activation: Activation
    dueling: bool
    quantiles: int = 0

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        """[..., size] -> [..., L], with quantiles [..., L, quantiles]."""
        each = self.quantiles or 1
        outputs = self.num_actions * each
        shape = (*observation.shape[:-1], self.num_actions, each)
        if self.dueling:
            *trunk, last = self.hidden
            x = MLP(trunk, last, np.sqrt(2), self.activation)(observation)
            x = ACTIVATIONS[self.activation](x)
            value = MLP((), each, 1.0, self.activation)(x)[..., None, :]
            advantage = MLP((), outputs, 1.0, self.activation)(x).reshape(shape)
            values = value + advantage - advantage.mean(-2, keepdims=True)
        else:
            values = MLP(self.hidden, outputs, 1.0, self.activation)(observation).reshape(shape)
        return values if self.quantiles else values.squeeze(-1)
