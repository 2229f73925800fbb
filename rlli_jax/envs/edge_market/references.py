"""Policies of the edge market that need no training, as functions key, state, params -> action.

Random, round robin, Crash Avoid and Prophet are those of the AGOD benchmark. All of them keep to
``EdgeMarket.legal_actions``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from rlli_jax.envs.edge_market.market import EdgeMarket, EnvState
from rlli_jax.envs.edge_market.params import EnvParams
from rlli_jax.envs.edge_market.replay import StateRule, play
from rlli_jax.envs.edge_market.tasks import Task


def random(env: EdgeMarket) -> StateRule:
    """Any legal provider, each equally likely."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        legal = env.legal_actions(state, params)
        return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))

    return act


def round_robin(env: EdgeMarket) -> StateRule:
    """The provider whose turn it is, or the next legal one; the turn moves on by one a task."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        legal = env.legal_actions(state, params)
        count = legal.shape[0]
        waiting = (jnp.arange(count) - state.time) % count
        return jnp.argmin(jnp.where(legal, waiting, count))

    return act


def least_loaded(env: EdgeMarket) -> StateRule:
    """The provider with the most denoising steps left ("Crash Avoid")."""

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        return _best(env, env.available(state, params), state, params)

    return act


def greedy(env: EdgeMarket) -> StateRule:
    """The provider with room that pays most for this task ("Prophet"); it knows every utility.

    It looks at one task at a time, so it is no upper bound: see ``optimum.offline_optimum``.
    """

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        value = jnp.where(env.room(state, params), env.value(state, params), -jnp.inf)
        return _best(env, value, state, params)

    return act


def rollout(
    env: EdgeMarket, *, futures: int = 64, length: int = 60, candidates: int = 8
) -> StateRule:
    """Greedy, improved once by sampled futures (Tesauro & Galperin, NeurIPS 1996).

    Each of the ``candidates`` that pay most for the waiting task is tried in the same ``futures``
    of ``length`` further tasks, drawn as the market draws them and served greedily; the one with
    the largest mean return is chosen. It knows the market's rules, but of the tasks to come only
    their distribution: what it reaches, an online policy can reach. It costs candidates x futures
    x length environment steps a decision.
    """
    base = greedy(env)

    def future(key: jax.Array, action: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        def body(state: EnvState, key: jax.Array) -> tuple[EnvState, jax.Array]:
            served = ~env.is_terminated(state, params)  # the last task before the horizon is not
            _, state, reward, *_ = env.step_env(key, state, base(key, state, params), params)
            return state, reward * served

        key_next, key_first, key_later = jax.random.split(key, 3)
        state = env.redraw(key_next, state, params)
        _, state, reward, *_ = env.step_env(key_first, state, action, params)
        return reward + jax.lax.scan(body, state, jax.random.split(key_later, length))[1].sum()

    def act(key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
        value = jnp.where(env.room(state, params), env.value(state, params), -jnp.inf)
        value = jnp.where(env.legal_actions(state, params), value, -jnp.inf)
        most, tried = jax.lax.top_k(value, min(candidates, len(value)))
        keys = jax.random.split(key, futures)
        over_futures = jax.vmap(future, (0, None, None, None))
        returns = jax.vmap(over_futures, (None, 0, None, None))(keys, tried, state, params)
        return tried[jnp.argmax(jnp.where(most > -jnp.inf, returns.mean(1), -jnp.inf))]

    return act


def single(provider: int | jax.Array) -> StateRule:
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
