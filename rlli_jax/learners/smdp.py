"""The semi-Markov process of a hierarchy, estimated, and the plan that is best in it.

Situations are a planner's view of states. What follows one depends on more than it tells, so the
estimate is of a process that the planner could believe in, not of the environment: the best plan in
it is a reference, and no bound.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import Env, Key, PyTree
from rlli_jax.learners.options import Hierarchy, begin, carry_on


class SMDP(NamedTuple):
    """What an option brings in a situation, on average."""

    times: jax.Array
    """[S, O] float32, how often it was carried out."""
    reward: jax.Array
    """[S, O] float32, discounted rewards until it ended."""
    follows: jax.Array
    """[S, O, S] float32, gamma^k of the situation after its k steps; sums to less than 1."""


def estimate(
    env: Env, hierarchy: Hierarchy, key: Key, params: PyTree, gamma: float, many: int, steps: int
) -> SMDP:
    """Carry out options drawn at random.

    Args:
        gamma: discount for each step of the environment.
        many: environments side by side.
        steps: of each.
    """
    s, o = hierarchy.situations, hierarchy.options

    def choose(keys: Key, situation: jax.Array) -> jax.Array:
        return jax.random.randint(keys[1], (), 0, o)

    def once(carry: tuple, key: Key) -> tuple[tuple, None]:
        carried, sums = carry
        carried, told, _ = carry_on(env, hierarchy, choose, key, carried, gamma, params)
        weight = told.over.astype(jnp.float32)
        cell = told.began, told.option
        ahead = weight * told.discount * ~told.terminated
        sums = SMDP(
            sums.times.at[cell].add(weight),
            sums.reward.at[cell].add(weight * told.paid),
            sums.follows.at[(*cell, told.situation)].add(ahead),
        )
        return (carried, sums), None

    key, key_reset = jax.random.split(key)
    nothing = SMDP(jnp.zeros((s, o)), jnp.zeros((s, o)), jnp.zeros((s, o, s)))
    start = begin(env, key_reset, params, many), nothing
    (_, sums), _ = jax.lax.scan(once, start, jax.random.split(key, steps))
    times = jnp.maximum(sums.times, 1)
    return SMDP(sums.times, sums.reward / times, sums.follows / times[..., None])


def best_plan(smdp: SMDP) -> np.ndarray:
    """The plan of the largest value from every situation, [S] int32, by policy iteration.

    An option that was never carried out in a situation is never named there; where none was, the
    first is.
    """
    times, reward, follows = (np.asarray(x, np.float64) for x in smdp)
    reward = np.where(times > 0, reward, -np.inf)
    reward[~(times > 0).any(1)] = 0.0
    every = np.arange(len(reward))
    plan = reward.argmax(1)
    while True:
        value = np.linalg.solve(np.eye(len(plan)) - follows[every, plan], reward[every, plan])
        worth = reward + follows @ value
        better = worth.max(1) > worth[every, plan] + 1e-9
        if not better.any():
            return plan.astype(np.int32)
        plan = np.where(better, worth.argmax(1), plan)
