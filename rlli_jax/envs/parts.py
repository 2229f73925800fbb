"""Observations as tables of parts: what is read, its bounds, and what of it is of each action.

An environment has one table, name -> :class:`Part`. Its observation vector, its observation space,
``by_action`` and the names that configs may choose follow from that table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.errors import InputError

ANYTHING = float(np.finfo(np.float32).max)  # the bound of what has none

Bound: TypeAlias = float | Callable[[Any, Any], float]  # or environment, params -> bound


class Part(NamedTuple):
    """One part of an observation."""

    read: Callable[[Any, Any, Any], jax.Array]
    """environment, state, params -> numbers of any shape."""
    size: Callable[[Any, Any], int]
    """environment, params -> how many numbers."""
    action_axis: int | None = None
    """Which axis of what is read are the actions; None if it is not of each action."""
    low: Bound = 0.0
    """The least of the numbers."""
    high: Bound = 1.0
    """The most."""
    needs: str = ""
    """What must be known to read it, by a name of the environment's own; "" for nothing."""


Table: TypeAlias = Mapping[str, Part]


def chosen(table: Table, observation: Sequence[str]) -> tuple[str, ...]:
    """The parts in the order of the table.

    Raises:
        InputError: none is chosen, one is not in the table, or one is there twice.
    """
    unknown = [part for part in observation if part not in table]
    if unknown or len(set(observation)) != len(observation) or not observation:
        raise InputError(
            f"observation is {list(observation)}; choose some of {', '.join(table)}, each once."
        )
    return tuple(part for part in table if part in observation)


def observe(
    table: Table,
    observation: Sequence[str],
    env: Any,
    state: Any,
    params: Any,
    join: Callable[[Sequence[jax.Array]], jax.Array] = jnp.concatenate,
) -> jax.Array:
    """The parts one after the other, [size] float32; ``join`` makes vectors one."""
    read = [table[part].read(env, state, params) for part in observation]
    return join([jnp.asarray(x, jnp.float32).reshape(-1) for x in read])


def bounds(
    table: Table, observation: Sequence[str], env: Any, params: Any
) -> tuple[float, float, tuple[int]]:
    """The least and the most of all numbers of an observation, and its shape."""

    def number(bound: Bound) -> float:
        return bound(env, params) if callable(bound) else bound

    parts = [table[part] for part in observation]
    size = sum(part.size(env, params) for part in parts)
    return min(number(p.low) for p in parts), max(number(p.high) for p in parts), (size,)


def by_action(
    table: Table, observation: Sequence[str], env: Any, params: Any, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """An observation [..., size] as what it tells of each action, and the rest.

    [..., L, F] and [..., G], for networks that score every action alike.
    """
    actions = env.action_space(params).n
    widths = [table[part].size(env, params) for part in observation]
    rows, rest = [], [seen[..., :0]]
    for name, x in zip(observation, jnp.split(seen, np.cumsum(widths)[:-1], -1), strict=True):
        axis = table[name].action_axis
        if axis is None:
            rest.append(x)
            continue
        shape = (actions, -1) if axis == 0 else (-1, actions)
        x = x.reshape(*x.shape[:-1], *shape)
        rows.append(x if axis == 0 else x.swapaxes(-1, -2))
    rows = rows or [jnp.zeros((*seen.shape[:-1], actions, 0), seen.dtype)]
    return jnp.concatenate(rows, -1), jnp.concatenate(rest, -1)


# ---- numbers that both environments observe

TRAITS = 5


def scaled_traits(personas: jax.Array) -> jax.Array:
    """Big Five on the 1-5 scale -> [-1, 1]."""
    return (personas - 3.0) / 2.0
