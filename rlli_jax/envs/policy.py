"""What a policy sees, what a policy is, and how one is evaluated on whole episodes."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.envs.contract import Env, Key, PyTree, check_environment, legal_actions, typed_key
from rlli_jax.tally import Tally


class PolicyInput(NamedTuple):
    """What a policy may look at: the observation with its action mask, and the state behind it.

    A network looks at the first two only."""

    observation: jax.Array  # [size] float32, flattened
    legal: jax.Array  # [*heads, L] bool
    state: PyTree  # the environment's state, for what it knows by itself and reference policies
    params: PyTree  # the environment's parameters, likewise


class Policy(NamedTuple):
    """How to act; ``carry`` is its memory within an episode, ``()`` if it has none."""

    initial: PyTree
    """The carry at the start of an episode."""
    act: Callable[[Key, PolicyInput, PyTree], tuple[jax.Array, PyTree]]
    """key, what it may look at, carry -> action [*heads] int32, carry; for one environment."""


def policy_input(env: Env, observation: jax.Array, state: PyTree, params: PyTree) -> PolicyInput:
    """What a policy may look at, in one environment."""
    flat = jnp.asarray(observation, jnp.float32).reshape(-1)
    return PolicyInput(flat, legal_actions(env, state, params), state, params)


def random() -> Policy:
    """Uniform over the legal actions, in any environment."""

    def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        return jax.random.categorical(key, jnp.where(seen.legal, 0.0, -jnp.inf)), carry

    return Policy((), act)


def round_robin() -> Policy:
    """The actions in turn, skipping illegal ones, in any environment.

    With several choices at once each next one starts where the one before it stopped.
    """

    def act(key: Key, seen: PolicyInput, turn: jax.Array) -> tuple[jax.Array, jax.Array]:
        def choose(turn: jax.Array, legal: jax.Array) -> tuple[jax.Array, jax.Array]:
            n = legal.shape[-1]
            waiting = jnp.where(legal, (jnp.arange(n) - turn) % n, n)
            action = jnp.argmin(waiting).astype(jnp.int32)
            return (action + 1) % n, action

        heads = seen.legal.shape[:-1]
        turn, actions = jax.lax.scan(choose, turn, seen.legal.reshape(-1, seen.legal.shape[-1]))
        return actions.reshape(heads), turn

    return Policy(jnp.int32(0), act)


@struct.dataclass
class Evaluation:
    """How a policy did over E whole episodes."""

    returns: jax.Array  # [E] float32, undiscounted
    lengths: jax.Array  # [E] int32
    statistics: PyTree  # what env.statistics counts, summed over steps and episodes


def evaluate(env: Env, policy: Policy, key: Key, params: PyTree, episodes: int) -> Evaluation:
    """Play ``episodes`` whole episodes with a policy, side by side.

    Episodes are not restarted, so each counts once however long it is. An environment may have
    ``statistics(state, action, params) -> dict`` of arrays, or of a :class:`Tally` for a few
    entries of a large one; they are summed over all steps.

    Args:
        env: the environment.
        policy: such as ``learner.policy(state)``, of a single run; use ``vmap`` for several.
        key: one random key.
        params: of the environment.
        episodes: how many, E.

    Returns:
        Undiscounted returns [E], lengths [E] in steps, and the summed statistics.

    Raises:
        InputError: as :func:`check_environment`.
    """
    check_environment(env, params)
    key = typed_key(key)
    key_reset, key_play = jax.random.split(key)
    observation, state = jax.vmap(env.reset, (0, None))(
        jax.random.split(key_reset, episodes), params
    )
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (episodes, *jnp.shape(x))), policy.initial)

    def play(
        keys: Key, observation: jax.Array, state: PyTree, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree, jax.Array, jax.Array, PyTree]:
        key_act, key_step = keys
        seen = policy_input(env, observation, state, params)
        action, carry = policy.act(key_act, seen, carry)
        action = jnp.asarray(action, jnp.int32)
        count = env.statistics(state, action, params) if hasattr(env, "statistics") else {}
        observation, state, reward, terminated, _ = env.step_env(key_step, state, action, params)
        done = terminated | env.is_truncated(state, params)
        return observation, state, carry, jnp.asarray(reward, jnp.float32), done, count

    def body(loop: tuple) -> tuple:
        key, observation, state, carry, active, returns, lengths, statistics = loop
        key, key_step = jax.random.split(key)
        keys = jax.random.split(key_step, (episodes, 2))
        observation, state, carry, reward, done, count = jax.vmap(play)(
            keys, observation, state, carry
        )
        statistics = jax.tree.map(
            partial(_summed, active), count, statistics, is_leaf=lambda x: isinstance(x, Tally)
        )
        returns = returns + reward * active
        return (
            key, observation, state, carry, active & ~done, returns, lengths + active, statistics,
        )  # fmt: skip

    count = jax.eval_shape(
        jax.vmap(play), jax.random.split(key, (episodes, 2)), observation, state, carry
    )[-1]
    statistics = jax.tree.map(
        lambda x: (
            jnp.zeros(x.shape, jnp.float32)
            if isinstance(x, Tally)
            else jnp.zeros(x.shape[1:], x.dtype)
        ),
        count,
        is_leaf=lambda x: isinstance(x, Tally),
    )
    start = (
        key_play, observation, state, carry, jnp.ones(episodes, bool),
        jnp.zeros(episodes, jnp.float32), jnp.zeros(episodes, jnp.int32), statistics,
    )  # fmt: skip
    *_, returns, lengths, statistics = jax.lax.while_loop(
        lambda loop: _any_of_all(loop[4]), body, start
    )
    return Evaluation(returns, lengths, statistics)


def _summed(active: jax.Array, count: PyTree, total: jax.Array) -> jax.Array:
    """``total`` plus what the active episodes [E] counted in a step."""
    weight = active.astype(total.dtype)
    if isinstance(count, Tally):
        return count.add_to(total, weight)
    # In full precision: accelerators would round what is counted to some 3 digits.
    return total + jnp.tensordot(weight, count, 1, precision=jax.lax.Precision.HIGHEST)


@jax.custom_batching.custom_vmap
def _any_of_all(active: jax.Array) -> jax.Array:
    """``active.any()``, under ``vmap`` over all runs: they go on until the last one ends.

    With a condition of each run, ``vmap`` of a while loop would copy everything, the statistics
    too, at every step, to keep what belongs to runs that have ended.
    """
    return active.any()


@_any_of_all.def_vmap
def _any_of_all_runs(
    axis_size: int, in_batched: list[bool], active: jax.Array
) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return _any_of_all(active), False


def totals(
    env: Env, episodes: int, policy: Policy, key: Key, params: PyTree
) -> dict[str, jax.Array]:
    """What :func:`evaluate` finds, by name: ``returns`` [E] and the summed statistics."""
    found = evaluate(env, policy, key, params, episodes)
    return {"returns": found.returns, **found.statistics}
