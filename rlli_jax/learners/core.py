"""What every learner shares: the contract, how it meets an environment, and how it is judged.

A :class:`Learner` is to an environment what optax's pair of functions is to a gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.errors import InputError
from rlli_jax.tally import Tally

if TYPE_CHECKING:  # gymnax imports all its environments, and with them plotting and data frames
    from gymnax.environments import environment

Key: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Env: TypeAlias = "environment.Environment"


class Situation(NamedTuple):
    """What a policy may look at; a network looks at the first two only."""

    observation: jax.Array  # [size] float32, flattened
    legal: jax.Array  # [*heads, L] bool
    state: PyTree  # the environment's state, for what it knows by itself and reference policies
    params: PyTree  # the environment's parameters, likewise


class Policy(NamedTuple):
    """How to act; ``carry`` is its memory within an episode, ``()`` if it has none."""

    initial: PyTree
    """The carry at the start of an episode."""
    act: Callable[[Key, Situation, PyTree], tuple[jax.Array, PyTree]]
    """key, what it may look at, carry -> action [*heads] int32, carry; for one environment."""


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
    at_once: int = 32
    """Runs that one CPU core should train side by side. More would leave its cache, if updates are
    large; fewer are slower where updates are small and most of the time goes to starting them."""


CACHE = 1 << 18  # bytes that a layer of one update may take in a CPU core's cache, over all runs


def runs_at_once(rows: int, width: int) -> int:
    """For how many runs layers [rows, width] float32 of an update fit a CPU core's cache."""
    return max(1, CACHE // (4 * rows * width))


def side_by_side(function: Callable, in_axes: Any, at_once: int) -> Callable:
    """``jax.vmap(function, in_axes)``; on a CPU by groups of at most ``at_once``, one by one.

    Groups are of one size, the largest that divides the number of runs. Where that would be less
    than half of what fits, as for a prime number of runs, the last run fills up the last group.
    Axes are 0 or None.
    """
    together = jax.vmap(function, in_axes)
    if jax.default_backend() != "cpu":
        return together

    mapped = jax.tree.map(lambda axis: axis is not None, in_axes, is_leaf=lambda x: x is None)

    def call(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)
        which = jax.tree.leaves(jax.tree.broadcast(mapped, args))
        split = {i: x for i, x in enumerate(leaves) if which[i]}
        runs = len(next(iter(split.values())))
        fits = min(at_once, runs)
        size = max(n for n in range(1, fits + 1) if runs % n == 0)
        if size == runs > 1:
            return together(*args)
        if 2 * size < fits:
            groups = -(-runs // fits)
            size = -(-runs // groups)
            filled = jnp.minimum(jnp.arange(groups * size), runs - 1)
            split = {i: x[filled] for i, x in split.items()}

        def group(part: dict[int, jax.Array]) -> PyTree:
            whole = [part.get(i, x) for i, x in enumerate(leaves)]
            return (together if size > 1 else function)(*jax.tree.unflatten(structure, whole))

        if size == 1:  # vmap over one is not free: indices become gathers and scatters
            return jax.lax.map(group, split)
        parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), split)
        result = jax.lax.map(group, parts)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:runs], result)

    return call


def typed_key(key: Key) -> Key:
    """``key`` as a typed key; ``jax.random.PRNGKey`` makes an untyped one, a vector of two words.

    Raises:
        InputError: it is neither.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if getattr(key, "dtype", None) == jnp.uint32:
        return jax.random.wrap_key_data(key)
    raise InputError(f"a random key is needed, such as jax.random.key(0), but this is {key!r}.")


def traced(hyperparams: PyTree) -> PyTree:
    """Hyperparameters as arrays of float32 and int32, also where JAX's numbers have 64 bits."""

    def array(x: Any) -> jax.Array:
        whole = jnp.issubdtype(jnp.result_type(x), jnp.integer)
        return jnp.asarray(x, jnp.int32 if whole else jnp.float32)

    return jax.tree.map(array, hyperparams)


class ActionShape(NamedTuple):
    """``heads`` independent choices among ``n`` actions; ``heads`` is () for a single choice."""

    heads: tuple[int, ...]
    n: int


def action_shape(env: Env, params: PyTree) -> ActionShape:
    """The choices that an action consists of.

    Raises:
        InputError: if the environment's actions are not discrete.
    """
    space = env.action_space(params)
    if hasattr(space, "n"):  # the shape of a single choice is ()
        return ActionShape(tuple(space.shape), space.n)
    raise InputError(
        f"{env.name} has actions {space}; the learners need discrete actions "
        "(spaces.Discrete or rlli_jax.envs.spaces.MultiDiscrete)."
    )


def require_environment(env: Env) -> None:
    """Raise InputError unless ``env`` is an environment, and not its name or something else."""
    parts = ("reset", "reset_env", "step_env", "is_truncated", "action_space")
    lacking = [part for part in parts if not callable(getattr(env, part, None))]
    if not lacking:
        return
    if isinstance(env, str):
        raise InputError(
            f"{env!r} is a name; give the environment itself: env, params = gymnax.make({env!r})."
        )
    raise InputError(
        f"a {type(env).__name__} is no gymnax environment, as it has no {', '.join(lacking)}; "
        "derive yours from gymnax.environments.environment.Environment."
    )


def check_environment(env: Env, params: PyTree) -> None:
    """Raise InputError, one sentence, unless ``env`` is one that learners can step.

    Its functions are traced for the shapes of what they return; nothing is computed.
    """
    require_environment(env)
    name = getattr(env, "name", type(env).__name__)
    heads, n = action_shape(env, params)
    key = jax.eval_shape(jax.random.key, 0)

    def returned(function: str, result: Any, *parts: str) -> tuple:
        if not isinstance(result, tuple) or len(result) != len(parts):
            count = len(result) if isinstance(result, tuple) else 1
            raise InputError(
                f"{name}.{function} returns {count} values; it must return {len(parts)}: "
                f"{', '.join(parts)}."
            )
        return result

    def truncated(state: PyTree) -> Any:
        try:
            return env.is_truncated(state, params)
        except AttributeError as error:
            raise InputError(
                f"{name}.is_truncated fails ({error}); give the state a field time and the "
                "parameters a field max_steps_in_episode, or override is_truncated."
            ) from None

    def start(key: Key) -> tuple:
        return returned("reset_env", env.reset_env(key, params), "observation", "state")

    def advance(key: Key, state: PyTree, action: jax.Array) -> tuple:
        parts = "observation", "state", "reward", "terminated", "info"
        result = returned("step_env", env.step_env(key, state, action, params), *parts)
        legal = legal_actions(env, state, params)
        return *result[:4], truncated(result[1]), legal  # info may hold anything

    def scalar(function: str, part: str, x: Any, kind: Any, word: str) -> None:
        if jnp.shape(x) or not jnp.issubdtype(x.dtype, kind):
            raise InputError(
                f"{name}.{function}: {part} is {_described(x)}; it must be one {word}."
            )

    observation, state = jax.eval_shape(start, key)
    after = jax.eval_shape(advance, key, state, jax.ShapeDtypeStruct(heads, jnp.int32))
    next_observation, next_state, reward, terminated, ended, legal = after
    for function, x in (("reset_env", observation), ("step_env", next_observation)):
        if not isinstance(x, jax.ShapeDtypeStruct):
            raise InputError(
                f"{name}.{function}: the observation is a {type(x).__name__}; learners need one "
                "array, so put its parts together, such as by jnp.concatenate."
            )
    before = {"observation": observation, "state": state}
    different = _first_difference(before, {"observation": next_observation, "state": next_state})
    if different:
        raise InputError(
            f"{name}: {different}; what an episode carries must keep its shapes and types."
        )
    scalar("step_env", "the reward", reward, jnp.number, "number")
    scalar("step_env", "terminated", terminated, jnp.bool_, "bool")
    scalar("is_truncated", "its result", ended, jnp.bool_, "bool")
    if legal.shape != (*heads, n) or legal.dtype != bool:
        raise InputError(
            f"{name}.legal_actions returns {_described(legal)}; it must be bool{[*heads, n]}."
        )


def _described(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _first_difference(reset: PyTree, step: PyTree) -> str | None:
    """Where what a reset makes and what a step makes of it are of different shapes or types."""
    first, second = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (reset, step))
    for path in [*first, *(path for path in second if path not in first)]:
        each = [_described(x[path]) if path in x else "absent" for x in (first, second)]
        if each[0] != each[1]:
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            return f"{where} is {each[0]} after reset_env and {each[1]} after step_env"
    return None


def single_choice(env: Env, params: PyTree, learner: str) -> ActionShape:
    """The actions, for a ``learner`` that makes one choice a step. Raises InputError for more."""
    actions = action_shape(env, params)
    if actions.heads:
        raise InputError(
            f"{learner} needs a single discrete action, but {env.name} takes {actions.heads[0]} "
            "choices at once (assignment joint); use PPO, or assignment sequential."
        )
    return actions


def check_buffer(buffer_size: int, num_envs: int) -> None:
    """Raise InputError unless a ring of ``buffer_size`` holds whole steps of all environments."""
    if buffer_size % num_envs:
        raise InputError(
            f"buffer_size = {buffer_size} is no multiple of num_envs = {num_envs}; choose one that "
            "is."
        )


def legal_actions(env: Env, state: PyTree, params: PyTree) -> jax.Array:
    """Which actions can be chosen, [*heads, L] bool: the environment's word, else all."""
    if hasattr(env, "legal_actions"):
        return env.legal_actions(state, params)
    shape = action_shape(env, params)
    return jnp.ones((*shape.heads, shape.n), bool)


def by_action(env: Env) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """What takes an observation apart: what it tells of each action [..., L, F], and the rest.

    Raises:
        InputError: if the environment has no such thing.
    """
    if hasattr(env, "by_action"):
        return env.by_action
    raise InputError(
        f"{env.name} does not tell what its observation says of each action (by_action), which a "
        "shared network needs; set shared to false."
    )


def situation(env: Env, observation: jax.Array, state: PyTree, params: PyTree) -> Situation:
    """Gather what a policy may look at, for one environment."""
    flat = jnp.asarray(observation, jnp.float32).reshape(-1)
    return Situation(flat, legal_actions(env, state, params), state, params)


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


def view(env: Env, envs: Envs, params: PyTree) -> Situation:
    """What the policy sees in each of the N environments."""
    return jax.vmap(situation, (None, 0, 0, None))(env, envs.observation, envs.state, params)


def step_keys(key: Key, *shape: int) -> Key:
    """What ``step`` draws its random numbers from, [..., N, 2]: of the step, of the next episode.

    On a CPU a few random numbers take as long as many, and to compile each draw takes a while: a
    loop over steps is faster if one draw before it starts serves all its steps.
    """
    return jax.random.split(key, (*shape, 2))


def step(
    env: Env, key: Key, envs: Envs, seen: Situation, action: jax.Array, params: PyTree
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
        ended = situation(env, observation, state, params)
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
        seen = situation(env, observation, state, params)
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
