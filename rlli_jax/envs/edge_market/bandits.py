"""Contextual linear bandits for the edge market: LinUCB and Thompson sampling.

They learn each provider's reward as a linear function of the task and of that provider's load,
and ignore that a task served now leaves less room later. Both are pure functions on a small
state: ``init``, ``act`` and ``update``; :func:`learn` runs them on sampled episodes.

A and b are sums over tasks, and A is solved anew with every task it counts. Updating its inverse by
Sherman and Morrison's formula costs less, but in float32 the rounding errors of the updates pile up
in the inverse, where nothing takes them out again. As the features are nearly collinear (condition
numbers of 1e4), the rounding of plain sums shows, too: weights are off by up to 5 % after
1e5 tasks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.linalg import solve_triangular
from jax.tree_util import Partial

from rlli_jax.envs.edge_market.market import EdgeMarket, EnvParams, EnvState


class Sum(struct.PyTreeNode):
    """A float32 sum that keeps what rounding took from it (Kahan 1965)."""

    total: jax.Array
    lost: jax.Array  # to be added to the total

    def add(self, index: jax.Array, x: jax.Array) -> "Sum":
        """With ``x`` added at ``index`` of the first axis."""
        before = self.total[index]
        x = x + self.lost[index]
        after = before + x
        return Sum(self.total.at[index].set(after), self.lost.at[index].set(x - (after - before)))


class BanditState(struct.PyTreeNode):
    """Ridge regression of each provider: A = I + sum x x', b = sum reward x, weights A^-1 b."""

    gram: Sum  # [L, F, F] float32, A
    moment: Sum  # [L, F] float32, b
    root: jax.Array  # [L, F, F] float32, C^-1 where A = C C' with C lower triangular
    weights: jax.Array  # [L, F] float32


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
        eye = jnp.broadcast_to(jnp.eye(size), (providers, size, size))
        zeros = jnp.zeros((providers, size))
        return BanditState(
            gram=Sum(eye, jnp.zeros_like(eye)), moment=Sum(zeros, zeros), root=eye, weights=zeros
        )

    def act(key: jax.Array, learned: BanditState, state: EnvState, params: EnvParams) -> jax.Array:
        x = features(env, state, params)
        width = jnp.linalg.norm(_einsum("lfg,lg->lf", learned.root, x), axis=1)
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
        gram = learned.gram.add(action, jnp.outer(x, x))
        moment = learned.moment.add(action, reward * x)
        root, weights = solve(gram.total[action], moment.total[action])
        return BanditState(
            gram=gram,
            moment=moment,
            root=learned.root.at[action].set(root),
            weights=learned.weights.at[action].set(weights),
        )

    return Bandit(init, act, update)


def _exploit(
    env: EdgeMarket, learned: BanditState, key: jax.Array, state: EnvState, params: EnvParams
) -> jax.Array:
    score = _mean(learned, features(env, state, params))
    return jnp.argmax(jnp.where(env.legal_actions(state, params), score, -jnp.inf))


def _mean(learned: BanditState, x: jax.Array) -> jax.Array:
    return _einsum("lf,lf->l", learned.weights, x)


def solve(gram: jax.Array, moment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """C^-1 [F, F] and A^-1 b [F] of A = C C' [F, F], positive definite, and b [F]."""
    size = len(moment)
    root = solve_triangular(jnp.linalg.cholesky(gram), jnp.eye(size), lower=True)
    return root, _einsum("gf,gh,h->f", root, root, moment)


# Accelerators may multiply in less than float32 unless told otherwise.
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
