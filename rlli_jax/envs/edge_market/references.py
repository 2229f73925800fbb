"""Policies of the edge market that need no training, as functions key, state, params -> action.

Random, round robin, Crash Avoid and Prophet are those of the AGOD benchmark. All of them keep to
``EdgeMarket.legal_actions``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from rlli_jax.envs.edge_market.market import EdgeMarket, EnvParams, EnvState
from rlli_jax.envs.edge_market.play import Policy, play
from rlli_jax.envs.edge_market.tasks import Task


def random(env: EdgeMarket) -> Policy:
    """Any legal provider, each equally likely."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        legal = env.legal_actions(state, params)
        return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))

    return act


def round_robin(env: EdgeMarket) -> Policy:
    """The provider whose turn it is, or the next legal one; the turn moves on by one a task."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        legal = env.legal_actions(state, params)
        count = legal.shape[0]
        waiting = (jnp.arange(count) - state.time) % count
        return jnp.argmin(jnp.where(legal, waiting, count))

    return act


def least_loaded(env: EdgeMarket) -> Policy:
    """The provider with the most denoising steps left ("Crash Avoid")."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        return _best(env, env.available(state, params), state, params)

    return act


def greedy(env: EdgeMarket) -> Policy:
    """The provider with room that pays most for this task ("Prophet"); it knows every utility.

    It looks at one task at a time, so it is no upper bound: see ``optimum.offline_optimum``.
    """

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        value = jnp.where(env.room(state, params), env.value(state, params), -jnp.inf)
        return _best(env, value, state, params)

    return act


def single(provider: int | jax.Array) -> Policy:
    """Always the same provider."""
    return Partial(_constant, jnp.asarray(provider, jnp.int32))


def best_single(env: EdgeMarket, params: EnvParams, tasks: Task) -> tuple[int, float]:
    """The provider that returns most on ``tasks`` if it alone gets them all, and that return."""
    returns = [
        float(play(env, params, tasks, single(i)).reward.sum())
        for i in range(params.capacity.shape[0])
    ]
    return int(np.argmax(returns)), max(returns)


def _best(env: EdgeMarket, score: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
    return jnp.argmax(jnp.where(env.legal_actions(state, params), score, -jnp.inf))


def _constant(provider: jax.Array, key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
    return provider
