"""GoTo: BabyAI's GoToLocal, with instructions as vectors of a sentence encoder.

Rules: minigrid 3 (``BabyAI-GoToLocal-v0`` and its forms with fewer things; Chevalier-Boisvert et
al. 2019, arXiv 1810.08272). Instructions in words, which policies are to follow also where they
were never trained on, are the setting of language-conditioned reinforcement learning (Luketina et
al. 2019, arXiv 1906.03926).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs import parts
from rlli_jax.envs.chance import digits
from rlli_jax.envs.go_to.instructions import KINDS, THINGS, split, told
from rlli_jax.envs.go_to.parts import CELLS, PARTS, VIEW, GoToObservationPart, joined
from rlli_jax.envs.go_to.rooms import SIDE, draw_rooms
from rlli_jax.errors import InputError

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
MAX_STEPS = 64
ROOMS = 16_384
KINDS_IN_A_WORD = 4  # of things, that one random word of 32 bits decides
NOWHERE = -1  # the cell of a thing that is carried or gone
BOX = THINGS.index("box")


@struct.dataclass
class EnvState(environment.EnvState):
    """What changes from step to step."""

    time: jax.Array  # [] int32, steps taken
    agent: jax.Array  # [] int32, its cell, 6 y + x
    direction: jax.Array  # [] int32, 0 right, 1 down, 2 left, 3 up
    cell: jax.Array  # [N] int32, of each thing; NOWHERE if it is carried or gone
    kind: jax.Array  # [N] int32, 3 colour + thing
    carried: jax.Array  # [] int32, which thing; -1 for none
    instruction: jax.Array  # [] int32
    part: jax.Array  # [] int32, how many of its goals are reached


@struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """Rooms and instructions; all traced."""

    rooms: jax.Array  # [P, 1 + N] int8, cells of the agent and of the things at first
    goals: jax.Array  # [M, G] int32, the kinds that each instruction asks for, in their order
    vectors: jax.Array  # [M, D] float32, the instructions by a sentence encoder
    likeness: jax.Array  # [M, 18] float32, of an instruction and the name of a kind
    max_steps_in_episode: int | jax.Array = MAX_STEPS  # 64 for each of G goals


class GoTo(environment.Environment[EnvState, EnvParams]):
    """Go next to a thing of the kind that the instruction asks for, and face it; perhaps then to
    another.

    - One room of 6 x 6 free cells with ``objects`` things of 18 kinds (six colours of key, ball and
      box), drawn with replacement: ``GoToLocalS8N``.. of minigrid, with 8 ``GoToLocal`` itself. The
      instruction is uniform over those given, and one of the things, uniform, is of its kind.
      "go to the red key, then go to the blue box" has G = 2 goals, and a thing of each kind is
      there (minigrid's ``BeforeInstr``; there a second thing that is carried off or opened early
      still counts where it stood, here it does not).
    - Observation: the chosen parts, see :data:`rlli_jax.envs.go_to.parts.PARTS`; the egocentric
      view of 7 x 7 cells that minigrid has, walls block sight.
    - Action: 0..``actions``-1 of ``ACTIONS``. The first three suffice. One thing can be carried; a
      box that is toggled is gone.
    - Reward: 1 - 0.9 t / (64 G) on success at step t, else 0.
    - Terminated: the cell in front of the agent holds a thing of the kind, after any action; of
      two goals, after it held one of the first.
    - Truncated: after 64 G steps.

    Where agent and things stand at first is one of 16,384 rooms drawn once by ``seed``; kinds,
    direction and instruction are drawn for each episode.
    """

    def __init__(
        self,
        *,
        objects: int = 8,
        instructions: Sequence[str] | str = "trained",
        encoder: str = "hashing",
        observation: Sequence[GoToObservationPart] = ("blocked", "likeness"),
        actions: int = 3,
        seed: int = 0,
    ) -> None:
        """Fix what decides shapes, and draw the rooms.

        Args:
            objects: how many things are in a room.
            instructions: those that an episode may have: a name of
                ``rlli_jax.envs.go_to.instructions.SPLITS``, or texts.
            encoder: of the texts, as of :func:`rlli_jax.sentences.encode`; ``hashing`` is a
                stand-in.
            observation: parts of PARTS.
            actions: how many of ACTIONS are offered, 3 to 7.
            seed: of the rooms.

        Raises:
            InputError: one of them is out of range or unknown.
        """
        super().__init__()
        if not 3 <= actions <= len(ACTIONS):
            raise InputError(f"actions is {actions}; choose 3 to {len(ACTIONS)}.")
        self.observation = parts.chosen(PARTS, observation)
        self._actions = actions
        if isinstance(instructions, str):
            instructions = split(instructions)
        self.instructions = tuple(instructions)
        rooms = draw_rooms(ROOMS, objects, seed)
        say = told(instructions, encoder)
        if say.goals.shape[1] > objects:
            raise InputError(
                f"objects is {objects}, but an instruction has {say.goals.shape[1]} goals."
            )
        self._params = EnvParams(
            rooms=jnp.asarray(rooms),
            goals=jnp.asarray(say.goals),
            vectors=jnp.asarray(say.vectors),
            likeness=jnp.asarray(say.likeness),
            max_steps_in_episode=MAX_STEPS * say.goals.shape[1],
        )

    @property
    def default_params(self) -> EnvParams:
        """Rooms and instructions of the construction."""
        return self._params

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return "GoTo-v0"

    @property
    def num_actions(self) -> int:
        """How many actions are offered."""
        return self._actions

    # ---- what is seen

    def things(self, state: EnvState) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of each thing [N], steps forward and to the right of the agent, and whether it is seen.

        What is carried is seen where the agent stands, as in minigrid.
        """
        x, y = state.cell % SIDE - state.agent % SIDE, state.cell // SIDE - state.agent // SIDE
        dx, dy = _toward(state.direction)
        held = jnp.arange(state.cell.shape[0]) == state.carried
        forward = jnp.where(held, 0, x * dx + y * dy)
        right = jnp.where(held, 0, y * dx - x * dy)
        seen = (forward >= 0) & (forward < VIEW) & (abs(right) <= VIEW // 2)
        return forward, right, held | (seen & (state.cell >= 0))

    def free(self, state: EnvState) -> jax.Array:
        """How many cells there are to the wall ahead, to the right and to the left, int32 [3]."""
        x, y = state.agent % SIDE, state.agent // SIDE
        direction = (state.direction + jnp.array([0, 1, 3])) % 4
        own = jnp.where(direction % 2 == 0, x, y)
        return jnp.where(direction < 2, SIDE - 1 - own, own)

    def walls(self, state: EnvState) -> jax.Array:
        """Where a wall is seen, bool [49]."""
        ahead, right, left = self.free(state)
        forward, aside = np.arange(CELLS) // VIEW, np.arange(CELLS) % VIEW - VIEW // 2
        side = jnp.where(aside < 0, left, right) + 1
        wall = (forward == ahead + 1) | (abs(aside) == side)
        return wall & (forward <= ahead + 1) & (abs(aside) <= side)

    def observe(self, state: EnvState, params: EnvParams) -> jax.Array:
        """The observation vector, [sum of the parts] float32."""
        return parts.observe(PARTS, self.observation, self, state, params, join=joined)

    # ---- what happens

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One step of minigrid."""
        state, reward, success = self._moved(state, action, params)
        return self.observe(state, params), state, reward, success, {"success": success}

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: EnvState,
        action: jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """:meth:`step_env`, and the next episode where this one ends; what is seen, once."""
        params = self.default_params if params is None else params
        moved, reward, terminated = self._moved(state, action, params)
        truncated = self.is_truncated(moved, params)
        going_on = jax.tree.map(
            partial(jnp.where, terminated | truncated), self._start(key, params), moved
        )
        info = {
            "terminated": terminated,
            "truncated": truncated,
            "success": terminated,
            "final_observation": self.observe(moved, params),
        }
        return self.observe(going_on, params), going_on, reward, terminated, truncated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Another room, and another instruction."""
        state = self._start(key, params)
        return self.observe(state, params), state

    def _moved(
        self, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[EnvState, jax.Array, jax.Array]:
        """State after an action, reward, and whether the thing is reached."""
        front = _front(state.agent, state.direction)
        ahead = state.cell == front  # [N]; no two things share a cell
        taken, wall = ahead.any(), front == NOWHERE
        index = jnp.arange(state.cell.shape[0])
        ahead &= ~wall
        direction = (state.direction + jnp.where(action == 0, 3, action == 1)) % 4
        agent = jnp.where((action == 2) & ~taken & ~wall, front, state.agent)
        hand = state.carried
        picked = (action == 3) & taken & ~wall & (hand < 0)
        dropped = (action == 4) & ~taken & ~wall & (hand >= 0)
        gone = (action == 5) & ahead & (state.kind % len(THINGS) == BOX)
        cell = jnp.where((picked & ahead) | gone, NOWHERE, state.cell)
        cell = jnp.where(dropped & (index == hand), front, cell)
        carried = jnp.where(picked, jnp.argmax(ahead), jnp.where(dropped, -1, hand))
        time = state.time + 1
        state = state.replace(
            time=time,
            agent=agent,
            direction=direction,
            cell=cell,
            carried=carried.astype(jnp.int32),
        )
        state = state.replace(part=state.part + self.reached(state, self.wanted(state, params)))
        success = self.is_terminated(state, params)
        reward = jnp.where(success, 1 - 0.9 * time / params.max_steps_in_episode, 0.0)
        return state, reward.astype(jnp.float32), success

    def wanted(self, state: EnvState, params: EnvParams) -> jax.Array:
        """The kind to go to now, [] int32; after the last goal, none (-1)."""
        goals = params.goals[state.instruction]
        now = jnp.arange(goals.shape[0]) == state.part
        return jnp.where(now, goals + 1, 0).sum() - 1

    def reached(self, state: EnvState, kind: jax.Array) -> jax.Array:
        """Whether a thing of a kind is in front of the agent."""
        front = _front(state.agent, state.direction)
        return ((state.kind == kind) & (state.cell == front)).any() & (front != NOWHERE)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether all goals are reached."""
        return state.part == params.goals.shape[1]

    def _start(self, key: jax.Array, params: EnvParams) -> EnvState:
        """From one draw of few words: on a CPU, chance is much of what a step costs."""
        objects, count = params.rooms.shape[1] - 1, params.goals.shape[1]
        words = jax.random.bits(key, (2 + -(-objects // KINDS_IN_A_WORD),), jnp.uint32)
        room, direction = digits(words[0], (params.rooms.shape[0], 4))
        cells = params.rooms[room].astype(jnp.int32)
        instruction, *places = digits(
            words[1], (params.goals.shape[0], *range(objects, objects - count, -1))
        )
        column, kind = jnp.arange(KINDS_IN_A_WORD), jnp.int32(0)
        for place, digit in enumerate(digits(words[2:, None], (len(KINDS),) * KINDS_IN_A_WORD)):
            kind = jnp.where(column == place, digit, kind)
        kind = kind.reshape(-1)[:objects]
        # A thing of the first goal, uniform; one of the second, uniform over the others.
        place = jnp.int32(0)
        for part, further in enumerate(places):
            place = (place + part + further) % objects
            here = jnp.arange(objects) == place
            kind = jnp.where(here, params.goals[instruction, part], kind)
        return EnvState(
            time=jnp.int32(0),
            agent=cells[0],
            direction=direction,
            cell=cells[1:],
            kind=kind,
            carried=jnp.int32(-1),
            instruction=instruction,
            part=jnp.int32(0),
        )

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """The first ``actions`` of ACTIONS."""
        return spaces.Discrete(self._actions)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """A box of float32 that holds every part."""
        return spaces.Box(*parts.bounds(PARTS, self.observation, self, params))


def _toward(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step in a direction, as (x, y); y goes down."""
    return (direction == 0) * 1 - (direction == 2), (direction == 1) * 1 - (direction == 3)


def _front(agent: jax.Array, direction: jax.Array) -> jax.Array:
    """The cell in front of the agent; NOWHERE for a wall."""
    dx, dy = _toward(direction)
    x, y = agent % SIDE + dx, agent // SIDE + dy
    inside = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
    return jnp.where(inside, SIDE * y + x, NOWHERE)
