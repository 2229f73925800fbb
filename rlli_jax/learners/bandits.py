"""Contextual linear bandits: LinUCB and linear Thompson sampling.

Each action's reward is learned as a linear function of the context: what the observation tells of
that action, where the environment says which part that is (``by_action``), what it tells otherwise,
and a constant. That a choice changes what can be chosen later is ignored: bandits are the learners
to compare those with that look ahead.

A and b are sums over steps, and A is factorised anew with every step that it counts. Updating its
inverse by Sherman and Morrison's formula costs less, but in float32 the rounding errors of the
updates pile up in the inverse, where nothing takes them out again. Contexts may be nearly collinear
(condition numbers of 1e4), so that the rounding of plain sums shows, too: hence :class:`Sum`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs import contract
from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import inverse_root
from rlli_jax.learners.hyperparams import Hyperparams

# Accelerators may multiply in less than float32 unless told otherwise.
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

# key, width [L] of each action's interval -> what is added to its expected reward, [L]
Bonus = Callable[[Key, jax.Array], jax.Array]


@checked
@dataclass(frozen=True)
class BanditConfig:
    """What decides shapes; a change compiles anew."""

    num_steps: Annotated[int, Field(gt=0)] = 1_000
    """Steps of one environment in one iteration, each of which is learned from immediately."""


class BanditHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    exploration: Annotated[float, Field(ge=0)] = 1.0
    """Alpha of LinUCB, scale of Thompson sampling."""


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


class Regression(struct.PyTreeNode):
    """Ridge regression of each of L actions on F features: A = I + sum x x', b = sum reward x."""

    gram: Sum  # [L, F, F] float32, A
    moment: Sum  # [L, F] float32, b
    root: jax.Array  # [L, F, F] float32, C^-1 where A = C C' with C lower triangular
    weights: jax.Array  # [L, F] float32, A^-1 b

    @staticmethod
    def empty(actions: int, features: int) -> "Regression":
        """Before anything was learned."""
        eye = jnp.broadcast_to(jnp.eye(features, dtype=jnp.float32), (actions, features, features))
        zeros = jnp.zeros((actions, features), jnp.float32)
        return Regression(Sum(eye, jnp.zeros_like(eye)), Sum(zeros, zeros), eye, zeros)

    def mean(self, contexts: jax.Array) -> jax.Array:
        """Expected reward [L] of each action in its context [L, F]."""
        return _einsum("lf,lf->l", self.weights, contexts)

    def width(self, contexts: jax.Array) -> jax.Array:
        """How little is known of it, [L]: the root of x' A^-1 x."""
        return jnp.linalg.norm(_einsum("lfg,lg->lf", self.root, contexts), axis=1)

    def add(self, action: jax.Array, context: jax.Array, reward: jax.Array) -> "Regression":
        """With one more reward of ``action`` in the context [F]."""
        gram = self.gram.add(action, jnp.outer(context, context))
        moment = self.moment.add(action, reward * context)
        root, weights = solve(gram.total[action], moment.total[action])
        return Regression(
            gram, moment, self.root.at[action].set(root), self.weights.at[action].set(weights)
        )


def solve(gram: jax.Array, moment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """C^-1 [F, F] and A^-1 b [F] of A = C C' [F, F], positive definite, and b [F]."""
    root = inverse_root(gram)

    def inverse_times(x: jax.Array) -> jax.Array:
        return _einsum("gf,gh,h->f", root, root, x)

    weights = inverse_times(moment)
    # Once more, for what rounding left.
    return root, weights + inverse_times(moment - _einsum("fg,g->f", gram, weights))


@struct.dataclass
class BanditState:
    """All that a run needs to go on."""

    key: Key  # []
    params: Regression
    envs: core.Envs
    iteration: jax.Array  # [] int32
    hyperparams: BanditHyperparams


def linucb(env: core.Env, config: BanditConfig = BanditConfig()) -> Learner:
    """LinUCB with disjoint models (Li et al., WWW 2010, Algorithm 1).

    For any gymnax environment with a single discrete action, masked ones included.

    Raises:
        InputError: ``env`` is no environment.
    """
    return _bandit(env, config, "LinUCB", lambda key, width: width)


def thompson(env: core.Env, config: BanditConfig = BanditConfig()) -> Learner:
    """Linear Thompson sampling (Agrawal and Goyal, ICML 2013, Algorithm 1), one model an action.

    As the actions' models are independent, drawing theta ~ N(A^-1 b, scale^2 A^-1) is the same in
    law as drawing each score x' theta from its normal distribution. For the environments of
    :func:`linucb`.

    Raises:
        InputError: ``env`` is no environment.
    """
    return _bandit(
        env, config, "Thompson sampling",
        lambda key, width: width * jax.random.normal(key, width.shape, jnp.float32),
    )  # fmt: skip


def contexts_of(env: core.Env, actions: int, observation: jax.Array) -> jax.Array:
    """Features [L, F] of the actions in an observation [size]: 1, the rest, what is of each."""
    rows, rest = observation[None, :0], observation
    if hasattr(env, "by_action"):
        rows, rest = env.by_action(observation)
    common = jnp.concatenate([jnp.ones(1, jnp.float32), rest])
    shape = actions, common.shape[0]
    return jnp.concatenate(
        [jnp.broadcast_to(common, shape), jnp.broadcast_to(rows, (actions, rows.shape[1]))], 1
    )


def _bandit(env: core.Env, config: BanditConfig, name: str, bonus: Bonus) -> Learner:
    contract.require_environment(env)

    def contexts(observation: jax.Array, env_params: PyTree) -> jax.Array:
        return contexts_of(env, contract.single_choice(env, env_params, name).n, observation)

    def best(score: jax.Array, legal: jax.Array) -> jax.Array:
        return jnp.argmax(jnp.where(legal, score, -jnp.inf), -1).astype(jnp.int32)

    def init(key: Key, hyperparams: BanditHyperparams, env_params: PyTree) -> BanditState:
        key, key_reset = jax.random.split(contract.typed_key(key))
        envs = core.reset(env, key_reset, env_params, 1)
        observation = core.view(env, envs, env_params).observation[0]
        shape = contexts(observation, env_params).shape
        return BanditState(
            key, Regression.empty(*shape), envs, jnp.int32(0), core.traced(hyperparams)
        )

    def step(state: BanditState, env_params: PyTree) -> tuple[BanditState, dict[str, jax.Array]]:
        key, key_act, key_step = jax.random.split(state.key, 3)

        def serve(carry: tuple[Regression, core.Envs], keys: tuple[Key, Key]) -> Any:
            learned, envs = carry
            key_act, key_step = keys
            seen = core.view(env, envs, env_params)
            x = contexts(seen.observation[0], env_params)
            added = state.hyperparams.exploration * bonus(key_act, learned.width(x))
            action = best(learned.mean(x) + added, seen.legal[0])
            envs, transition, ended = core.step(env, key_step, envs, seen, action[None], env_params)
            return (learned.add(action, x[action], transition.reward[0]), envs), ended

        keys = (
            jax.random.split(key_act, config.num_steps),
            core.step_keys(key_step, config.num_steps, 1),
        )
        (learned, envs), ended = jax.lax.scan(serve, (state.params, state.envs), keys)
        metrics = jax.tree.map(jnp.sum, ended).metrics()
        return BanditState(key, learned, envs, state.iteration + 1, state.hyperparams), metrics

    def policy(state: BanditState) -> Policy:
        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            x = contexts(seen.observation, seen.params)
            return best(state.params.mean(x), seen.legal), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_steps)
