"""Policies from a log alone: doubly robust policy learning on the networks of the learners.

With Gamma_a = q(x, a) + 1{chosen a} (r - q(x, a)) / p, the value of any policy pi is estimated by
the mean of sum_a pi(a | x) Gamma_a (Dudik, Langford & Li 2011), and the policy that makes it
highest is learned by gradient ascent (Athey & Wager 2021, Econometrica 89(1)). So a policy that was
trained on a language model's ratings can be held against one that was trained on n people's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs.contract import ActionShape
from rlli_jax.feedback import Log, cross_fitted
from rlli_jax.feedback.reward_model import folds
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import Activation, Actor

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class FromLogConfig:
    """What decides shapes; a change compiles anew."""

    hidden: tuple[Positive, ...] = (16,)
    """Units of each hidden layer."""
    activation: Activation = "tanh"
    """Between the layers."""
    iterations: Positive = 300
    """Steps of Adam, each on the whole log."""


class FromLogHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-1
    """Of the weights, decoupled (AdamW); it keeps a policy of few people simple."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """QoE for each nat of entropy: what a difference must be worth to be acted upon."""


def doubly_robust_scores(log: Log, q: np.ndarray) -> np.ndarray:
    """Gamma [n, L]; ``q`` [n, L] by models that did not see the round."""
    chosen = np.eye(len(log.providers))[log.action]
    error = (log.reward - q[np.arange(len(log)), log.action]) / log.propensity
    return np.asarray(q + chosen * error[:, None])


@partial(jax.jit, static_argnames="config")
def learn(
    key: jax.Array,
    context: jax.Array,
    scores: jax.Array,
    offered: jax.Array,
    weight: jax.Array,
    config: FromLogConfig,
    hyperparams: FromLogHyperparams,
) -> Any:
    """Parameters of the policy that makes the estimated value highest; vmap over anything.

    Args:
        key: of the initial weights.
        context: [n, d], standardised.
        scores: Gamma [n, L].
        offered: [n, L] bool.
        weight: [n], how much each round counts; 0 leaves it out.
        config: of the network.
        hyperparams: traced.
    """
    network = _network(config, scores.shape[-1])
    params = network.init(key, context[:1], offered[:1])
    total = jnp.maximum(weight.sum(), 1e-9)
    optimizer = optax.adamw(hyperparams.learning_rate, weight_decay=hyperparams.weight_decay)

    def loss(params: Any) -> jax.Array:
        logits = jax.nn.log_softmax(network.apply(params, context, offered))
        likely = jnp.exp(logits)
        value = (likely * scores).sum(-1)
        entropy = -(likely * jnp.where(offered, logits, 0)).sum(-1)
        return -(weight * (value + hyperparams.entropy_coefficient * entropy)).sum() / total

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, start, length=config.iterations)
    return params


def choose(params: Any, context: jax.Array, offered: jax.Array, config: FromLogConfig) -> jax.Array:
    """The greedy policy: probability 1 for the likeliest provider that is offered, [n, L]."""
    logits = _network(config, offered.shape[-1]).apply(params, context, offered)
    return jax.nn.one_hot(jnp.argmax(logits, -1), offered.shape[-1])


def learned_policy(
    log: Log,
    config: FromLogConfig | None = None,
    hyperparams: FromLogHyperparams | None = None,
    *,
    seed: int = 0,
) -> np.ndarray:
    """For each round the choice of a policy that was learned on other users: [n, L].

    Models of the reward are cross-fitted within those others, so that nothing of a fold enters
    the policy that is valued on it. All folds are learned in one program.
    """
    config, hyperparams = config or FromLogConfig(), hyperparams or FromLogHyperparams()
    fold = folds(log)
    spread = log.context.std(0)
    context = (log.context - log.context.mean(0)) / np.where(spread > 0, spread, 1)
    train = np.stack([fold != i for i in range(fold.max() + 1)])  # [folds, n]
    scores = np.zeros((len(train), *log.offered.shape))
    for i, rows in enumerate(train):
        part = log.part(rows)
        scores[i, rows] = doubly_robust_scores(part, cross_fitted(part))
    x, offered = jnp.asarray(context, jnp.float32), jnp.asarray(log.offered)
    keys = jax.random.split(jax.random.key(seed), len(train))
    each = jax.vmap(learn, (0, None, 0, None, 0, None, None))
    params = each(
        keys, x, jnp.asarray(scores, jnp.float32), offered, jnp.asarray(train, jnp.float32),
        config, hyperparams,
    )  # fmt: skip
    chosen = jax.vmap(lambda p: choose(p, x, offered, config))(params)  # [folds, n, L]
    return np.asarray(chosen, np.float64)[fold, np.arange(len(log))]


def _network(config: FromLogConfig, providers: int) -> Actor:
    return Actor(ActionShape((), providers), config.hidden, config.activation)
