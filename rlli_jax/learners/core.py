"""What every learner shares: the contract, and how it meets environments.

A :class:`Learner` is to an environment what optax's pair of functions is to a gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.envs.contract import Env, Key, PyTree, check_environment
from rlli_jax.envs.policy import Policy, PolicyInput, policy_input
from rlli_jax.errors import InputError


class Learner(NamedTuple):
    """Pure functions that learn on one environment; vmap them over keys and hyperparameters.

    :func:`rlli_jax.train` does so and shows progress.
    """

    init: Callable[[Key, Any, PyTree], PyTree]
    """key, hyperparams, env_params -> state. InputError as :func:`check_environment`."""
    step: Callable[[PyTree, PyTree], tuple[PyTree, dict[str, jax.Array]]]
    """One iteration: state, env_params -> state, metrics; each metric is one number, []."""
    policy: Callable[[PyTree], Policy]
    """state -> the greedy policy learned so far."""
    env_steps: int
    """Environment steps in one iteration, over all its parallel environments."""
    group_size: int = 32
    """Runs that one CPU core should train together (see :mod:`rlli_jax.learners.cpu`): more do not
    fit its cache if updates are large; with fewer, small updates spend their time on being started.
    """


def traced(hyperparams: PyTree) -> PyTree:
    """Hyperparameters as arrays of float32 and int32, also where JAX's numbers have 64 bits."""

    def array(x: Any) -> jax.Array:
        whole = jnp.issubdtype(jnp.result_type(x), jnp.integer)
        return jnp.asarray(x, jnp.int32 if whole else jnp.float32)

    return jax.tree.map(array, hyperparams)


@struct.dataclass
class Envs:
    """N environments that run side by side and restart by themselves."""

    state: PyTree  # [N, ...]
    observation: jax.Array  # [N, ...]
    episode_return: jax.Array  # [N] float32, undiscounted, of the running episodes


@struct.dataclass
class Transition:
    """One step of each environment."""

    observation: jax.Array  # [N, size] float32
    legal: jax.Array  # [N, *heads, L] bool
    action: jax.Array  # [N, *heads] int32
    reward: jax.Array  # [N] float32
    terminated: jax.Array  # [N] bool, the episode is over and nothing follows
    done: jax.Array  # [N] bool, terminated or truncated
    next_observation: jax.Array  # [N, size] float32, never that of the next episode
    next_legal: jax.Array  # [N, *heads, L] bool, likewise


@struct.dataclass
class Episodes:
    """Sums over the episodes that ended; a mean is a ratio of two of them."""

    total_return: jax.Array  # [] float32
    count: jax.Array  # [] int32

    def metrics(self) -> dict[str, jax.Array]:
        """``episode_return`` (NaN if no episode ended) and ``episodes``."""
        return {"episode_return": self.total_return / self.count, "episodes": self.count}


def reset(env: Env, key: Key, params: PyTree, num_envs: int) -> Envs:
    """Start ``num_envs`` episodes. Raises InputError as :func:`check_environment`."""
    check_environment(env, params)
    observation, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), params)
    return Envs(state, observation, jnp.zeros(num_envs, jnp.float32))


def view(env: Env, envs: Envs, params: PyTree) -> PolicyInput:
    """What the policy sees in each of the N environments."""
    return jax.vmap(policy_input, (None, 0, 0, None))(env, envs.observation, envs.state, params)


def step_keys(key: Key, *shape: int) -> Key:
    """What ``step`` draws its random numbers from, [..., N, 2]: of the step, of the next episode.

    On a CPU a few random numbers take as long as many, and to compile each draw takes a while: a
    loop over steps is faster if one draw before it starts serves all its steps.
    """
    return jax.random.split(key, (*shape, 2))


def step(
    env: Env, key: Key, envs: Envs, seen: PolicyInput, action: jax.Array, params: PyTree
) -> tuple[Envs, Transition, Episodes]:
    """Act once in each environment; those whose episode ends start the next one.

    ``key`` is a single key, or the ``step_keys`` of one.
    """
    num_envs = envs.episode_return.shape[0]
    keys = key if key.ndim else step_keys(key, num_envs)
    action = jnp.asarray(action, jnp.int32)

    def one(keys: Key, state: PyTree, action: jax.Array) -> tuple:
        # As gymnax's own step, which does not tell what was legal at the end of an episode.
        key_step, key_reset = keys
        observation, state, reward, terminated, _ = env.step_env(key_step, state, action, params)
        done = terminated | env.is_truncated(state, params)
        ended = policy_input(env, observation, state, params)
        fresh = env.reset_env(key_reset, params)
        going_on = jax.tree.map(
            lambda new, old: jnp.where(done, new, old), fresh, (observation, state)
        )
        return going_on, ended.observation, ended.legal, reward, terminated, done

    (observation, state), next_observation, next_legal, reward, terminated, done = jax.vmap(one)(
        keys, envs.state, action
    )
    reward = jnp.asarray(reward, jnp.float32)
    episode_return = envs.episode_return + reward
    transition = Transition(
        observation=seen.observation,
        legal=seen.legal,
        action=action,
        reward=reward,
        terminated=terminated,
        done=done,
        next_observation=next_observation,
        next_legal=next_legal,
    )
    going_on = Envs(state, observation, jnp.where(done, 0.0, episode_return))
    return going_on, transition, Episodes((episode_return * done).sum(), done.sum())


def rollout(
    env: Env,
    act: Callable[[PyTree, PolicyInput, PyTree], tuple[jax.Array, PyTree, PyTree]],
    envs: Envs,
    memory: PyTree,
    random: PyTree,
    keys: Key,
    env_params: PyTree,
) -> tuple[Envs, PyTree, Transition, PyTree, Episodes]:
    """T steps of N environments.

    Args:
        env: the environment.
        act: (one step of ``random``, what is seen [N, ...], memory) -> action [N, *heads], memory
            after it, and anything else to keep of the step.
        envs: where the environments stand.
        memory: of the running episodes, arrays [N, ...] that are set to 0 where one ends; () for
            none.
        random: what ``act`` draws from, [T, ...].
        keys: of :func:`step`: [T], or :func:`step_keys` [T, N, 2].
        env_params: of the environment.

    Returns:
        The environments and the memory after it, the transitions [T, N], what ``act`` kept
        [T, ...], and the sums [] over the episodes that ended.
    """

    def one(
        carry: tuple[Envs, PyTree], scanned: tuple[PyTree, Key]
    ) -> tuple[tuple[Envs, PyTree], tuple[Transition, PyTree, Episodes]]:
        envs, memory = carry
        random, key = scanned
        seen = view(env, envs, env_params)
        action, memory, kept = act(random, seen, memory)
        envs, transition, ended = step(env, key, envs, seen, action, env_params)
        return (envs, forget(memory, transition.done)), (transition, kept, ended)

    (envs, memory), (steps, kept, ended) = jax.lax.scan(one, (envs, memory), (random, keys))
    return envs, memory, steps, kept, jax.tree.map(jnp.sum, ended)


def forget(memory: PyTree, done: jax.Array) -> PyTree:
    """Memory [N, units], 0 where an episode is over."""
    return jax.tree.map(lambda x: jnp.where(done[:, None], 0.0, x), memory)


def check_minibatches(num_envs: int, num_steps: int, num_minibatches: int) -> None:
    """Raise InputError unless a collected batch divides into its minibatches."""
    batch = num_envs * num_steps
    if batch % num_minibatches:
        raise InputError(
            f"num_envs x num_steps = {batch} does not divide into num_minibatches = "
            f"{num_minibatches}; choose numbers that do."
        )
