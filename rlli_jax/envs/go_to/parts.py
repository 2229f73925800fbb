"""What an observation of GoTo may hold: one row a part."""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from rlli_jax.envs.go_to.instructions import COLOURS, THINGS
from rlli_jax.envs.parts import ANYTHING, Part

VIEW = 7  # cells along a side of what is seen; a cell is 7 (steps forward) + (steps right) + 3
CELLS = VIEW * VIEW
_LOOKS = len(COLOURS) + len(THINGS)


def _placed(env: Any, state: Any, number: jax.Array) -> jax.Array:
    """A number of each thing [N] in the cell of the view where it is seen, [49]; 0 elsewhere.

    A sum for each thing is faster on a CPU than one over an axis of things, if where they are is
    not worked out anew for every cell.
    """
    forward, right, seen = env.things(state)
    place = jnp.where(seen, VIEW * forward + right + VIEW // 2, CELLS)
    place, number = jax.lax.optimization_barrier((place, number))
    cells, total = jnp.arange(CELLS), jnp.zeros(CELLS, jnp.float32)
    for thing in range(place.shape[0]):
        total = total + jnp.where(cells == place[thing], number[thing], 0.0)
    return total


def _likeness(state: Any, params: Any) -> jax.Array:
    """Of each thing's name and the instruction, [N]."""
    return jnp.asarray(params.likeness[state.instruction][state.kind])


def _list(env: Any, state: Any, params: Any) -> jax.Array:
    forward, right, seen = env.things(state)
    known = jnp.stack(
        [jnp.ones(seen.shape), forward / VIEW, right / VIEW, _likeness(state, params)]
    )
    return jnp.where(seen, known, 0.0)


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
