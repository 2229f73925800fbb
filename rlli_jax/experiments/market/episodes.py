"""Episodes of given tasks, on which every policy is judged alike."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.envs.edge_market import EdgeMarket, EnvParams, Task
from rlli_jax.envs.edge_market.market import EnvState
from rlli_jax.envs.edge_market.replay import (
    StateRule,
    Step,
    check_tasks,
    first_state,
    play_through,
)
from rlli_jax.envs.policy import Policy, PolicyInput, policy_input


class Episodes(struct.PyTreeNode):
    """E episodes side by side; the shorter ones are filled up with copies of their last task."""

    tasks: Task  # [E, T + 1] on every field
    decisions: jax.Array  # [E] int32, tasks that are served


def gather(env: EdgeMarket, params: EnvParams, tasks: Sequence[Task]) -> Episodes:
    """Lay episodes of different lengths side by side. InputError if they do not fit the market."""
    for episode in tasks:
        check_tasks(env, params, episode)
    decisions = [len(episode.arrival) - 1 for episode in tasks]
    longest = max(decisions) + 1

    def fill(x: jax.Array) -> np.ndarray:
        return np.pad(x, [(0, longest - len(x)), *[(0, 0)] * (np.ndim(x) - 1)], mode="edge")

    filled = [jax.tree.map(fill, episode) for episode in tasks]
    stacked = jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows)), *filled)
    return Episodes(stacked, jnp.asarray(decisions, jnp.int32))


def play_episodes(
    env: EdgeMarket, params: EnvParams, episodes: Episodes, policy: Policy, key: jax.Array
) -> dict[str, Any]:
    """``returns`` [E] and the sums over each episode of ``EdgeMarket.statistics`` [E, ...]."""

    def act(key: jax.Array, state: EnvState, memory: Any) -> tuple[jax.Array, Any]:
        seen = policy_input(env, env.observe(key, state, None, params), state, params)
        return policy.act(key, seen, memory)

    def one(tasks: Task, decisions: jax.Array, key: jax.Array) -> dict[str, Any]:
        def keep(kept: tuple, step: Step) -> tuple[tuple, None]:
            total, t = kept
            counts = {"returns": step.reward} | step.counts
            total = jax.tree.map(lambda a, b: a + b * (t < decisions), total, counts)
            return (total, t + 1), None

        first = first_state(env, params, tasks)
        counted = jax.eval_shape(lambda: env.statistics(first, jnp.int32(0), params))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), counted)
        nothing = {"returns": jnp.float32(0)} | nothing
        start = nothing, 0
        (total, _), _ = play_through(env, params, tasks, act, policy.initial, keep, start, key)
        return dict(total)

    keys = jax.random.split(key, len(episodes.decisions))
    return jax.vmap(one)(episodes.tasks, episodes.decisions, keys)


def policy_of(rule: StateRule) -> Policy:
    """A function of the market's state, as the learners' policies are."""

    def act(key: jax.Array, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        return rule(key, seen.state, seen.params), carry

    return Policy((), act)
