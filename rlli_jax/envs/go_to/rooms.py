"""Where the agent and the things stand at first, by minigrid's rules; drawn on the host."""

import numpy as np

from rlli_jax.errors import InputError

SIDE = 6  # free cells along a wall; a cell is 6 y + x, from the top left
MOST_OBJECTS = 16


def draw_rooms(count: int, objects: int, seed: int) -> np.ndarray:
    """int8 [count, 1 + objects]: the cell of the agent, and those of the things.

    The agent is uniform, then each thing is uniform over the free cells at a Manhattan distance of
    at least 2 from it; rooms in which some thing cannot be reached are drawn anew (minigrid's
    ``add_distractors`` and ``check_objs_reachable``).

    Raises:
        InputError: more things than a room takes, or a negative seed.
    """
    if not 1 <= objects <= MOST_OBJECTS:
        raise InputError(f"objects is {objects}; a room takes 1 to {MOST_OBJECTS}.")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0.")
    generator = np.random.default_rng(seed)
    cells = np.arange(SIDE * SIDE)
    x, y = cells % SIDE, cells // SIDE
    far = abs(x[:, None] - x) + abs(y[:, None] - y) >= 2  # [36, 36]
    rooms = np.empty((0, 1 + objects), np.int8)
    while len(rooms) < count:
        agent = generator.integers(0, len(cells), count)
        order = np.where(far[agent], generator.random((count, len(cells))), 2).argsort(1)
        drawn = np.concatenate([agent[:, None], order[:, :objects]], 1).astype(np.int8)
        rooms = np.concatenate([rooms, drawn[reachable(drawn)]])
    return rooms[:count]


def reachable(rooms: np.ndarray) -> np.ndarray:
    """bool [rooms]: whether the agent can step next to every thing."""
    count = len(rooms)
    filled = np.zeros((count, SIDE + 2, SIDE + 2), bool)
    filled[:, 0] = filled[:, -1] = filled[:, :, 0] = filled[:, :, -1] = True
    x, y = rooms % SIDE + 1, rooms // SIDE + 1
    row = np.arange(count)
    filled[row[:, None], y[:, 1:], x[:, 1:]] = True
    reached = np.zeros_like(filled)
    reached[row, y[:, 0], x[:, 0]] = True
    while True:
        near = reached.copy()
        near[:, 1:] |= reached[:, :-1]
        near[:, :-1] |= reached[:, 1:]
        near[:, :, 1:] |= reached[:, :, :-1]
        near[:, :, :-1] |= reached[:, :, 1:]
        further = near & ~filled
        if (further == reached).all():
            return np.asarray(near[row[:, None], y[:, 1:], x[:, 1:]].all(1))
        reached = further
