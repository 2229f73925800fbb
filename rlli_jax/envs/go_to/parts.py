"""What an observation of GoTo may hold: one row a part."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.go_to.instructions import COLOURS, THINGS
from rlli_jax.envs.parts import ANYTHING, Part

VIEW = 7  # cells along a side of what is seen; a cell is 7 (steps forward) + (steps right) + 3
CELLS = VIEW * VIEW
MOST_PADDED = 64  # numbers of an observation that are joined by padding
_LOOKS = len(COLOURS) + len(THINGS)


def joined(vectors: Sequence[jax.Array]) -> jax.Array:
    """Vectors one after the other.

    On a CPU a few numbers are padded and added up: XLA's concatenation works out number by number
    what vectors of few operations hold, and asks of each to which vector it belongs.
    """
    size = sum(len(x) for x in vectors)
    if jax.default_backend() != "cpu" or size > MOST_PADDED:
        return jnp.concatenate(vectors)
    ends = np.cumsum([len(x) for x in vectors])
    padded = [jnp.pad(x, (end - len(x), size - end)) for x, end in zip(vectors, ends, strict=True)]
    return reduce(jnp.add, padded)


def _placed(env: Any, state: Any, number: jax.Array) -> jax.Array:
    """A number of each thing [N] in the cell of the view where it is seen, [49]; 0 elsewhere.

    On a CPU, writing few numbers costs less than comparing each cell with each thing.
    """
    forward, right, seen = env.things(state)
    place = jnp.where(seen, VIEW * forward + right + VIEW // 2, CELLS)
    if jax.default_backend() == "cpu":
        return jnp.zeros(CELLS + 1).at[place].add(number)[:CELLS]
    return jnp.where(jnp.arange(CELLS)[:, None] == place, number, 0.0).sum(-1)


def _likeness(state: Any, params: Any) -> jax.Array:
    """Of each thing's name and the instruction, [N]."""
    return jnp.asarray(params.likeness[state.instruction][state.kind])


def _list(env: Any, state: Any, params: Any) -> jax.Array:
    forward, right, seen = env.things(state)
    known = 1.0, forward / VIEW, right / VIEW, _likeness(state, params)
    row, table = jnp.arange(len(known))[:, None], jnp.zeros(seen.shape)
    for place, numbers in enumerate(known):
        table = jnp.where(seen & (row == place), numbers, table)
    return table


PARTS = {
    # Where a thing or a wall is seen, [49]; in the first row, in the middle, what is carried.
    "blocked": Part(
        lambda env, state, params: (
            env.walls(state) + _placed(env, state, jnp.ones(state.kind.shape))
        ),
        lambda env, params: CELLS,
    ),
    # How like the instruction the name of the thing in each cell is, by the sentence encoder, [49].
    "likeness": Part(
        lambda env, state, params: _placed(env, state, _likeness(state, params)),
        lambda env, params: CELLS,
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # Colour and kind of the thing in each cell, one-hot, [9, 49].
    "looks": Part(
        lambda env, state, params: jax.vmap(lambda look: _placed(env, state, look))(
            jnp.concatenate(
                [
                    jax.nn.one_hot(state.kind // len(THINGS), len(COLOURS), axis=0),
                    jax.nn.one_hot(state.kind % len(THINGS), len(THINGS), axis=0),
                ]
            )
        ),
        lambda env, params: _LOOKS * CELLS,
    ),
    # The same as a list, cheaper than the view: of each thing whether it is seen, steps forward and
    # to the right (by 7), and likeness, [4, N].
    "things": Part(
        _list,
        lambda env, params: 4 * (params.rooms.shape[1] - 1),
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # Cells to the wall ahead, to the right and to the left, by 6, [3].
    "room": Part(lambda env, state, params: env.free(state) / 6, lambda env, params: 3),
    # Part of the goals that are reached; only of instructions with several it tells anything.
    "part": Part(
        lambda env, state, params: state.part / params.goals.shape[1],
        lambda env, params: 1,
    ),
    # The instruction, as the vector of the sentence encoder, [D].
    "instruction": Part(
        lambda env, state, params: params.vectors[state.instruction],
        lambda env, params: params.vectors.shape[1],
        low=-1.0,
    ),
}

if TYPE_CHECKING:
    GoToObservationPart = str
else:
    GoToObservationPart = Literal[tuple(PARTS)]
