"""Play a policy on given tasks, step by step through the same functions as a sampled episode."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.tree_util import Partial

from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.edge_market.market import EdgeMarket, EnvState
from rlli_jax.envs.edge_market.params import EnvParams
from rlli_jax.envs.edge_market.tasks import Task
from rlli_jax.errors import InputError

StateRule = Callable[[jax.Array, EnvState, EnvParams], jax.Array]  # key, state, params -> action


class Played(struct.PyTreeNode):
    """An episode of T decisions."""

    action: jax.Array  # [T] int32
    reward: jax.Array  # [T] float32
    crashed: jax.Array  # [T] bool
    observation: jax.Array  # [T + 1, size] float32
    statistics: dict[str, jax.Array]  # EdgeMarket.statistics summed over the decisions


def follow(actions: np.ndarray | jax.Array) -> StateRule:
    """The policy that takes ``actions`` [T] one after the other."""
    return Partial(_next_of, jnp.asarray(actions, jnp.int32))


def _next_of(actions: jax.Array, key: jax.Array, state: EnvState, params: EnvParams) -> jax.Array:
    return actions[state.time]


def play(
    env: EdgeMarket,
    params: EnvParams,
    tasks: Task,
    policy: StateRule,
    key: jax.Array | None = None,
) -> Played:
    """Plays ``policy`` on ``tasks`` [T + 1], of which the last one only ends the episode.

    A replay of recorded actions::

        recording = load_recording(path)
        params = make_params(recording.fleet)
        played = play(EdgeMarket(params), params, recording.tasks, follow(recording.action))

    Raises:
        InputError: the tasks do not fit the parameters.
    """
    check_tasks(env, params, tasks)
    policy = policy if isinstance(policy, Partial) else Partial(policy)
    return _play(env, policy, params, tasks, jax.random.key(0) if key is None else key)


def check_tasks(env: EdgeMarket, params: EnvParams, tasks: Task) -> None:
    """Raise InputError if ``tasks`` cannot be played in ``env`` with ``params``."""
    env.check(params)
    running = env.slots - env.queue
    least = int(np.max(params.capacity)) // (running + 1) + 1
    small = np.flatnonzero(np.asarray(tasks.demand) < least)
    if small.size:
        raise InputError(
            f"task {small[0]} asks for {tasks.demand[small[0]]} denoising steps, so that a "
            f"provider could run more than {running} tasks at once: make the environment with "
            f"parameters whose demands go down to {tasks.demand[small[0]]}"
        )
    if (params.link is None) != (tasks.fading is None):
        have, lack = ("fading", "link") if params.link is None else ("link", "fading")
        raise InputError(f"there is {have} but no {lack}: give both (tasks and parameters) or none")
    if tasks.fading is not None and tasks.fading.shape[1] != params.capacity.shape[0]:
        raise InputError(
            f"the tasks have fading for {tasks.fading.shape[1]} providers, but the fleet has "
            f"{params.capacity.shape[0]}: give one gain for each provider"
        )
    if params.users is not None:
        people, asked = params.users.count.shape[:2]
        for name, index, count in (("user", tasks.user, people), ("request", tasks.request, asked)):
            for i in np.flatnonzero(np.asarray(index) >= count)[:1]:
                raise InputError(
                    f"task {i} has {name} {index[i]}, but the QoE table knows {count}: "
                    f"give a number below {count}"
                )


class Step(NamedTuple):
    """A decision, and what came of it."""

    key: jax.Array
    action: jax.Array
    reward: jax.Array
    crashed: jax.Array
    counts: dict[str, jax.Array]  # EdgeMarket.statistics
    state: EnvState  # at the next decision


def first_state(env: EdgeMarket, params: EnvParams, tasks: Task) -> EnvState:
    """The state at the first decision of an episode of ``tasks`` [T + 1]."""
    return env.start(jax.tree.map(lambda x: x[0], tasks), params)


def play_through(
    env: EdgeMarket,
    params: EnvParams,
    tasks: Task,
    act: Callable[[jax.Array, EnvState, PyTree], tuple[jax.Array, PyTree]],
    memory: PyTree,
    keep: Callable[[PyTree, Step], tuple[PyTree, PyTree]],
    kept: PyTree,
    key: jax.Array,
) -> tuple[PyTree, PyTree]:
    """One episode, decision by decision; all that plays given tasks plays them so.

    Args:
        env, params, tasks: tasks [T + 1], of which the last one only ends the episode.
        act: key, state, memory -> action, memory.
        memory: of the policy, at the start.
        keep: ``kept``, a step -> ``kept`` after it, and what is kept of every step.
        kept: at the start.
        key: one random key.

    Returns:
        ``kept`` at the end, and what is kept of every step, [T, ...].
    """

    def body(carry: tuple, scanned: tuple[Task, jax.Array]) -> tuple[tuple, PyTree]:
        state, memory, kept = carry
        task, key = scanned
        action, memory = act(key, state, memory)
        counts = env.statistics(state, action, params)
        state, reward, info = env.serve(state, action, params)
        state = env.arrive(state, task)
        step = Step(key, action, reward, info["crashed"], counts, state)
        kept, each = keep(kept, step)
        return (state, memory, kept), each

    later = jax.tree.map(lambda x: x[1:], tasks)
    keys = jax.random.split(key, len(later.arrival))
    start = first_state(env, params, tasks), memory, kept
    (_, _, kept), each = jax.lax.scan(body, start, (later, keys))
    return kept, each


@partial(jax.jit, static_argnums=0)
def _play(
    env: EdgeMarket, policy: Partial, params: EnvParams, tasks: Task, key: jax.Array
) -> Played:
    def act(key: jax.Array, state: EnvState, memory: tuple) -> tuple[jax.Array, tuple]:
        return policy(key, state, params), memory

    def keep(kept: tuple, step: Step) -> tuple[tuple, tuple]:
        seen = env.observe(step.key, step.state, step.action, params)
        return kept, (step.action, step.reward, step.crashed, seen, step.counts)

    first = first_state(env, params, tasks)
    _, kept = play_through(env, params, tasks, act, (), keep, (), key)
    action, reward, crashed, observation, counts = kept
    return Played(
        action=action,
        reward=reward,
        crashed=crashed,
        observation=jnp.concatenate([env.observe(key, first, None, params)[None], observation]),
        statistics=jax.tree.map(lambda x: x.sum(0), counts),
    )
