"""What the language policy and the student share: acting by a table, and PPO's loss on its rows."""

import distrax
import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.envs.contract import Env, PyTree, action_shape
from rlli_jax.errors import InputError
from rlli_jax.learners.networks import ILLEGAL
from rlli_jax.learners.ppo import Losses, PPOHyperparams, ppo_loss


@struct.dataclass
class Samples:
    """What was done; leading axes [...]."""

    text: jax.Array  # int32
    advice: jax.Array  # int32; zeros where nobody advises
    legal: jax.Array  # bool [..., A]
    action: jax.Array  # int32
    log_prob: jax.Array  # float32
    value: jax.Array  # float32
    advantage: jax.Array  # float32
    target: jax.Array  # float32, of the value


def distribution(scores: jax.Array, legal: jax.Array) -> distrax.Categorical:
    """Softmax over the legal actions; scores and legal [..., A]."""
    return distrax.Categorical(jnp.where(legal, scores, ILLEGAL))


def draw(weights: jax.Array, chance: jax.Array) -> jax.Array:
    """One choice for each row of weights [..., A], by a number [...] uniform in [0, 1).

    Costs one random number where the Gumbel trick takes one for each choice: on a CPU, chance is
    most of what a step costs. Whatever has weight 0 is never chosen, though an accelerator's
    cumulative sums, rounded apart, may rise or fall over zeros.
    """
    cumulative = jnp.cumsum(weights, -1)
    possible = weights > 0
    reached = possible & (cumulative > chance[..., None] * cumulative[..., -1:])
    last = weights.shape[-1] - 1 - jnp.argmax(possible[..., ::-1], -1)
    return jnp.where(reached.any(-1), jnp.argmax(reached, -1), last)


def score_loss(
    scores: jax.Array,
    value: jax.Array,
    samples: Samples,
    hyper: PPOHyperparams,
    *,
    normalize_advantage: bool,
) -> tuple[jax.Array, Losses]:
    """:func:`rlli_jax.learners.ppo.ppo_loss` of a policy by scores.

    scores [B, A] and value [B] are those of the parameters to be improved, one row a sample.
    """
    policy = distribution(scores, samples.legal)
    log_prob, entropy = policy.log_prob(samples.action), policy.entropy()
    return ppo_loss(
        log_prob, entropy, value, samples, hyper, normalize_advantage=normalize_advantage
    )


def shuffle(key: jax.Array, samples: PyTree, minibatches: int) -> PyTree:
    """Flatten the leading axes [T, N] and cut a random order into [minibatches, size]."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
    order = jnp.argsort(jax.random.bits(key, jax.tree.leaves(flat)[0].shape[:1]))
    return jax.tree.map(lambda x: x[order].reshape(minibatches, -1, *x.shape[1:]), flat)


def check_single_choice(env: Env, params: PyTree, advice: tuple[str, ...]) -> None:
    """Raise InputError unless an action is one choice and has one phrase of advice."""
    heads, actions = action_shape(env, params)
    if heads or actions != len(advice):
        raise InputError(
            f"{env.name} has {actions} actions in {max(1, len(heads))} choices a step but there "
            f"are {len(advice)} phrases of advice; a task in words needs one choice a step and one "
            "phrase for each action."
        )
