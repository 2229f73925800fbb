"""Contextual linear bandits for the edge market: LinUCB and Thompson sampling.

They learn each provider's reward as a linear function of the task and of that provider's load,
and ignore that a task served now leaves less room later. Both are pure functions on a small
state: ``init``, ``act`` and ``update``; :func:`learn` runs them on sampled episodes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.tree_util import Partial

from rlli_jax.envs.edge_market.market import EdgeMarket, EnvParams, EnvState


class BanditState(struct.PyTreeNode):
    """Ridge regression of each provider: A = I + sum x x', b = sum reward x."""

    inverse: jax.Array  # [L, F, F] float32, inverse of A
    moment: jax.Array  # [L, F] float32, b


class Bandit(NamedTuple):
    """How a bandit starts, acts and learns."""

    init: Callable[[EnvParams], BanditState]
    act: Callable[[jax.Array, BanditState, EnvState, EnvParams], jax.Array]
    update: Callable[[BanditState, EnvState, jax.Array, jax.Array, EnvParams], BanditState]


def linucb(env: EdgeMarket, alpha: float | jax.Array = 1.0) -> Bandit:
    """LinUCB with disjoint models (Li et al., WWW 2010, Algorithm 1)."""
    return _linear(env, lambda key, width: alpha * width)


def thompson(env: EdgeMarket, scale: float | jax.Array = 1.0) -> Bandit:
    """Linear Thompson sampling (Agrawal & Goyal, ICML 2013, Algorithm 1), one model a provider.

    As the providers' models are independent, drawing theta ~ N(A^-1 b, scale^2 A^-1) is the same
    in law as drawing each score x' theta from its normal distribution.
    """
    return _linear(env, lambda key, width: scale * width * jax.random.normal(key, width.shape))


def exploit(env: EdgeMarket, state: BanditState) -> Partial:
    """The policy key, state, params -> action that follows what ``state`` has learned."""
    return Partial(partial(_exploit, env), state)


@partial(jax.jit, static_argnums=(0, 1, 4))
def learn(
    env: EdgeMarket, bandit: Bandit, params: EnvParams, key: jax.Array, steps: int
) -> tuple[BanditState, jax.Array]:
    """Acts and learns for ``steps`` tasks; the state and the rewards [steps]."""

    def body(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        learned, state = carry
        key_act, key_step = jax.random.split(key)
        action = bandit.act(key_act, learned, state, params)
        _, after, reward, *_ = env.step(key_step, state, action, params)
        return (bandit.update(learned, state, action, reward, params), after), reward

    key_reset, key_steps = jax.random.split(key)
    _, state = env.reset(key_reset, params)
    (learned, _), rewards = jax.lax.scan(
        body, (bandit.init(params), state), jax.random.split(key_steps, steps)
    )
    return learned, rewards


def features(env: EdgeMarket, state: EnvState, params: EnvParams) -> jax.Array:
    """What the bandit knows of each provider, [L, F]: 1, t, t^2, share left, room, persona.

    The persona is left out where there are no users or theirs are unknown.
    """
    left = env.available(state, params) / params.capacity
    demand = state.task.demand / params.demands.max()
    task = jnp.stack([jnp.float32(1), demand, demand**2])
    if params.users is not None and params.users.personas is not None:
        task = jnp.concatenate([task, params.users.personas[state.task.user] / 5])
    return jnp.concatenate(
        [
            jnp.broadcast_to(task, (left.shape[0], task.shape[0])),
            left[:, None],
            env.room(state, params)[:, None].astype(jnp.float32),
        ],
        axis=1,
    )


def _linear(env: EdgeMarket, explore: Callable[[jax.Array, jax.Array], jax.Array]) -> Bandit:
    def init(params: EnvParams) -> BanditState:
        _, state = jax.eval_shape(env.reset_env, jax.random.key(0), params)
        providers, size = jax.eval_shape(partial(features, env), state, params).shape
        return BanditState(
            inverse=jnp.broadcast_to(jnp.eye(size), (providers, size, size)),
            moment=jnp.zeros((providers, size)),
        )

    def act(key: jax.Array, learned: BanditState, state: EnvState, params: EnvParams) -> jax.Array:
        x = features(env, state, params)
        width = jnp.sqrt(jnp.einsum("lf,lfg,lg->l", x, learned.inverse, x))
        score = _mean(learned, x) + explore(key, width)
        return jnp.argmax(jnp.where(env.legal_actions(state, params), score, -jnp.inf))

    def update(
        learned: BanditState,
        state: EnvState,
        action: jax.Array,
        reward: jax.Array,
        params: EnvParams,
    ) -> BanditState:
        x = features(env, state, params)[action]
        inverse = learned.inverse[action]
        ax = inverse @ x  # Sherman-Morrison
        return BanditState(
            inverse=learned.inverse.at[action].add(-jnp.outer(ax, ax) / (1 + x @ ax)),
            moment=learned.moment.at[action].add(reward * x),
        )

    return Bandit(init, act, update)


def _exploit(
    env: EdgeMarket, learned: BanditState, key: jax.Array, state: EnvState, params: EnvParams
) -> jax.Array:
    score = _mean(learned, features(env, state, params))
    return jnp.argmax(jnp.where(env.legal_actions(state, params), score, -jnp.inf))


def _mean(learned: BanditState, x: jax.Array) -> jax.Array:
    return jnp.einsum("lf,lfg,lg->l", x, learned.inverse, learned.moment)
