"""What an observation of GoTo may hold: one row a part."""

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rlli_jax.envs.go_to.instructions import COLOURS, THINGS
from rlli_jax.envs.parts import ANYTHING, Part

VIEW = 7  # cells along a side of what is seen; a cell is 7 (steps forward) + (steps right) + 3
CELLS = VIEW * VIEW
_LOOKS = len(COLOURS) + len(THINGS)


def _placed(things: jax.Array, number: jax.Array) -> jax.Array:
    """A number of each thing [N] in its cell, [49]. Sums are faster than a product on a CPU."""
    return jnp.where(things, number[:, None], 0.0).sum(0)


PARTS = {
    # Where a thing or a wall is seen, [49]; in the first row, in the middle, what is carried.
    "blocked": Part(
        lambda env, state, params: env.walls(state) | env.things(state).any(0),
        lambda env, params: CELLS,
    ),
    # How like the instruction the name of the thing in each cell is, by the sentence encoder, [49].
    "likeness": Part(
        lambda env, state, params: _placed(
            env.things(state), params.likeness[state.instruction][state.kind]
        ),
        lambda env, params: CELLS,
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # Colour and kind of the thing in each cell, one-hot, [9, 49].
    "looks": Part(
        lambda env, state, params: jax.vmap(_placed, (None, 0))(
            env.things(state),
            jnp.concatenate(
                [
                    jax.nn.one_hot(state.kind // len(THINGS), len(COLOURS), axis=0),
                    jax.nn.one_hot(state.kind % len(THINGS), len(THINGS), axis=0),
                ]
            ),
        ),
        lambda env, params: _LOOKS * CELLS,
    ),
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
