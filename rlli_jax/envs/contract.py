"""What an environment must be for learners and evaluation to step it, and what it may tell.

An environment is one of gymnax with discrete actions. Beyond gymnax's own functions it may have:

``legal_actions(state, params)`` -> bool [*heads, L], which actions can be chosen;
``statistics(state, action, params)`` -> counts that evaluation sums up;
``by_action(observation)`` -> what the observation tells of each action, and the rest;
``value(state, params)`` -> what each action pays immediately, [L];
``redraw(key, state, params)`` -> the state with what nobody may know of it drawn anew.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from rlli_jax.errors import InputError

if TYPE_CHECKING:  # gymnax imports all its environments, and with them plotting and data frames
    from gymnax.environments import environment

Key: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Env: TypeAlias = "environment.Environment"


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


def legal_actions(env: Env, state: PyTree, params: PyTree) -> jax.Array:
    """Which actions can be chosen, [*heads, L] bool: the environment's word, else all."""
    if hasattr(env, "legal_actions"):
        return env.legal_actions(state, params)
    shape = action_shape(env, params)
    return jnp.ones((*shape.heads, shape.n), bool)


def by_action(env: Env) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """What takes an observation apart: what it tells of each action [..., L, F], and the rest.

    Raises:
        InputError: the environment has no such thing; or, where it is called, the observation tells
            nothing of each action.
    """
    if not hasattr(env, "by_action"):
        raise InputError(
            f"{env.name} does not tell what its observation says of each action (by_action), which "
            "a network for each action needs; set per_action_network to false."
        )

    def split(observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, rest = env.by_action(observation)
        if not rows.shape[-1]:
            raise InputError(
                f"the observation of {env.name} tells nothing of each action, which a network for "
                "each action needs; add a part that does, or set per_action_network to false."
            )
        return rows, rest

    return split
