"""GoToRedBall: BabyAI-GoToRedBallNoDists-v0 with its BabyAI-Text descriptions, as tables.

One agent and one red ball in a room of 6 x 6 free cells make 5,040 states, and BabyAI-Text
describes them in 556 distinct texts. So the dynamics and the texts are computed once, on the host,
from the geometry; stepping is a gather, a language policy is a table [texts, actions], and its
success rate and return are exact sums (``exact_return``) instead of noisy estimates.

Rules: minigrid 3 (``BabyAI-GoToRedBallNoDists-v0``). Texts: BabyAI-Text (Carta et al. 2023, GLAM).
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs.chance import index_below

MISSION = "go to the red ball"
ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
MAX_STEPS = 64
NUM_STATES = 5_040
NUM_TEXTS = 556
NUM_POLICY_TEXTS = 550  # the texts an agent ever has to act on; they have the lowest ids

_INNER = range(1, 7)  # free cells; walls stand at 0 and 7
_WALLS = (0, 7)
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up, as in minigrid
_SIGHT_AHEAD, _SIGHT_ASIDE = 6, 3  # the agent stands at the bottom centre of a 7 x 7 view
_MOVES = 3  # the first three actions change the pose, the others never do


class Layout(NamedTuple):
    """One state in words of geometry: cells as (x, y) in 1..6, y downwards."""

    ball: tuple[int, int]
    agent: tuple[int, int]
    direction: int  # 0 right, 1 down, 2 left, 3 up


class Tables(struct.PyTreeNode):
    """All 5,040 states (N), ordered by ball x, y, agent x, y, direction.

    Texts 0..549 occur in states where an episode goes on, 550..555 only in terminal ones.
    """

    next_state: jax.Array  # int32 [N, 7]
    source: jax.Array  # int32 [N, 3]: where a move into this state comes from; N if from nowhere
    success: jax.Array  # bool [N]: the agent faces the ball (120 states)
    text: jax.Array  # int32 [N] in 0..555
    start_states: jax.Array  # int32 [144, 33]: per agent pose, the states an episode may start in
    start_count: jax.Array  # int32 [144]: how many of the 33 are in use
    start_probability: jax.Array  # float32 [N]


class ExactReturn(NamedTuple):
    """Expectations over the start distribution; scalars, float32."""

    success: jax.Array  # probability that the ball is reached in time
    mean_return: jax.Array  # undiscounted
    mean_length: jax.Array  # steps


def _ahead(layout: Layout, steps: int = 1) -> tuple[int, int]:
    dx, dy = _DIRECTIONS[layout.direction]
    return layout.agent[0] + steps * dx, layout.agent[1] + steps * dy


def _seen_from(layout: Layout, cell: tuple[int, int]) -> tuple[int, int]:
    """(steps forward, steps to the right) from the agent to a cell."""
    x, y = cell[0] - layout.agent[0], cell[1] - layout.agent[1]
    dx, dy = _DIRECTIONS[layout.direction]
    return x * dx + y * dy, -x * dy + y * dx


def _after(layout: Layout, action: int) -> Layout:
    """minigrid's step; from a terminal state, where no episode goes on, the pose alone is right.

    (minigrid would let the agent pick the ball up there, which leaves the 5,040 states.)
    """
    if action == 0:
        return layout._replace(direction=(layout.direction - 1) % 4)
    if action == 1:
        return layout._replace(direction=(layout.direction + 1) % 4)
    front = _ahead(layout)
    if action == 2 and front != layout.ball and all(c in _INNER for c in front):
        return layout._replace(agent=front)
    return layout


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def describe(layout: Layout) -> tuple[str, ...]:
    """BabyAI-Text's descriptions: the wall ahead, to the left, to the right, then the ball.

    A wall is named when it is the first thing on that straight line and within the 7 x 7 view.
    Nothing is ever carried: an episode ends before the ball can be picked up.
    """
    forward, right = _seen_from(layout, layout.ball)
    lines = []
    for side, turn in (("forward", 0), ("left", -1), ("right", 1)):
        looking = layout._replace(direction=(layout.direction + turn) % 4)
        distance = next(n for n in range(1, 8) if not set(_WALLS).isdisjoint(_ahead(looking, n)))
        ball_first = layout.ball in [_ahead(looking, n) for n in range(1, distance)]
        in_view = distance <= (_SIGHT_AHEAD if turn == 0 else _SIGHT_ASIDE)
        if in_view and not ball_first:
            lines.append(f"You see a wall {_steps(distance)} {side}")
    if 0 <= forward <= _SIGHT_AHEAD and abs(right) <= _SIGHT_ASIDE:
        aside = f"{_steps(abs(right))} {'right' if right > 0 else 'left'}" if right else ""
        ahead = f"{_steps(forward)} forward" if forward else ""
        lines.append("You see a red ball " + " and ".join(part for part in (aside, ahead) if part))
    return tuple(lines)


@cache
def layouts() -> tuple[Layout, ...]:
    """All 5,040 states in the order of the tables."""
    cells = [(x, y) for x in _INNER for y in _INNER]
    return tuple(
        Layout(ball, agent, direction)
        for ball in cells
        for agent in cells
        if agent != ball
        for direction in range(4)
    )


@cache
def texts() -> tuple[str, ...]:
    """The 556 distinct texts (descriptions joined by ", ") by text id."""
    going_on = dict.fromkeys(_text(s) for s in layouts() if _ahead(s) != s.ball)
    terminal = dict.fromkeys(_text(s) for s in layouts() if _ahead(s) == s.ball)
    return tuple(going_on | terminal)


def _text(layout: Layout) -> str:
    return ", ".join(describe(layout))


@cache
def _host_tables() -> dict[str, np.ndarray]:
    states = layouts()
    index = {state: i for i, state in enumerate(states)}
    next_state = np.array([[index[_after(s, a)] for a in range(len(ACTIONS))] for s in states])
    source = np.full((len(states), _MOVES), len(states))
    for action in range(_MOVES):
        moved = np.flatnonzero(next_state[:, action] != np.arange(len(states)))
        source[next_state[moved, action], action] = moved  # no two states move into the same one
    text_id = {text: i for i, text in enumerate(texts())}

    # minigrid places the agent first, then the ball two or more cells (Manhattan) away from it.
    starts: dict[tuple[Any, int], list[int]] = {}
    for i, s in enumerate(states):
        if abs(s.ball[0] - s.agent[0]) + abs(s.ball[1] - s.agent[1]) >= 2:
            starts.setdefault((s.agent, s.direction), []).append(i)
    counts = np.array([len(group) for group in starts.values()])
    probability = np.zeros(len(states))
    for group in starts.values():
        probability[group] = 1 / (len(starts) * len(group))
    padded = [group + group[:1] * (counts.max() - len(group)) for group in starts.values()]

    return {
        "next_state": next_state.astype(np.int32),
        "source": source.astype(np.int32),
        "success": np.array([_ahead(s) == s.ball for s in states]),
        "text": np.array([text_id[_text(s)] for s in states], np.int32),
        "start_states": np.array(padded, np.int32),
        "start_count": counts.astype(np.int32),
        "start_probability": probability.astype(np.float32),
    }


def load_tables() -> Tables:
    """The tables on the default device; computed once per process (about 0.3 s)."""
    return Tables(**{name: jnp.asarray(table) for name, table in _host_tables().items()})


@struct.dataclass
class EnvState(environment.EnvState):
    """``time``: steps taken; ``state``: index of the state, int32."""

    state: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """The time limit (steps; the reward of a success falls with it) and the tables."""

    max_steps_in_episode: int = MAX_STEPS
    tables: Tables = struct.field(default_factory=load_tables)


class GoToRedBall(environment.Environment[EnvState, EnvParams]):
    """Go next to the red ball and face it, in one 8 x 8 room.

    - Observation: the text id, int32 in 0..555 (``texts()``); with ``one_hot``, float32 [556].
    - Action: 0..``actions``-1 of ``ACTIONS``. Language policies use 6; 7 is "done", unused.
    - Reward: 1 - 0.9 t / 64 on success at step t, else 0.
    - Terminated: the cell in front of the agent is the ball's, after any action.
    - Truncated: after 64 steps; a success on step 64 terminates and truncates, as in minigrid.
    - Start: agent uniform over cells and directions, ball uniform at Manhattan distance >= 2.
    """

    def __init__(self, actions: int = 6, one_hot: bool = False) -> None:
        self._actions = actions
        self._one_hot = one_hot

    @property
    def default_params(self) -> EnvParams:
        return EnvParams()

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return "GoToRedBall-v0"

    @property
    def num_actions(self) -> int:
        return self._actions

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, jax.Array]]:
        state = EnvState(time=state.time + 1, state=params.tables.next_state[state.state, action])
        success = self.is_terminated(state, params)
        reward = jnp.where(success, 1 - 0.9 * state.time / params.max_steps_in_episode, 0.0)
        return (
            self.get_obs(state, params),
            state,
            reward.astype(jnp.float32),
            success,
            {"success": success},
        )

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        # One draw of two numbers: on a CPU, chance is most of what a step costs. To 2^-23 uniform.
        chance_pose, chance_ball = jax.random.uniform(key, (2,))
        starts = params.tables.start_states
        pose = index_below(starts.shape[0], chance_pose)
        ball = index_below(params.tables.start_count[pose], chance_ball)
        state = EnvState(time=jnp.int32(0), state=starts[pose, ball])
        return self.get_obs(state, params), state

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        tables = (params or self.default_params).tables
        text = tables.text[state.state]
        return jax.nn.one_hot(text, NUM_TEXTS) if self._one_hot else text

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        return params.tables.success[state.state]

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self._actions)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Space:
        if self._one_hot:
            return spaces.Box(0.0, 1.0, (NUM_TEXTS,), jnp.float32)
        return spaces.Discrete(NUM_TEXTS)


@partial(jax.jit, static_argnames="max_steps")
def exact_return(policy: jax.Array, tables: Tables, *, max_steps: int = MAX_STEPS) -> ExactReturn:
    """Expected success, return and length of a memoryless policy: no sampling, no noise.

    policy: float32 [550 or 556 texts, A <= 7 actions], probabilities that sum to 1 over actions.
    Moves the mass of all states forward ``max_steps`` times. Differentiable in ``policy``.
    """
    # Exact also where a matrix product would be rounded to fewer digits, as on accelerators.
    dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
    states, moves = tables.source.shape[0], jnp.arange(_MOVES)
    action = policy[jnp.minimum(tables.text, policy.shape[0] - 1)]  # [N, A]
    stays = tables.next_state[:, : policy.shape[1]] == jnp.arange(states)[:, None]
    stay = jnp.sum(action * stays, axis=1)
    # Mass that is pulled from its source needs no scatter, which is many times slower on a CPU.
    inflow = jnp.pad(action[:, :_MOVES], ((0, 1), (0, 0)))[tables.source, moves]

    def step(mass: jax.Array, time: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        alive = mass.sum()
        mass = mass * stay + (inflow * jnp.pad(mass, (0, 1))[tables.source]).sum(axis=1)
        return jnp.where(tables.success, 0.0, mass), (alive, dot(mass, tables.success))

    _, (alive, hit) = jax.lax.scan(step, tables.start_probability, jnp.arange(max_steps))
    reward = 1 - 0.9 * jnp.arange(1, max_steps + 1) / max_steps
    return ExactReturn(hit.sum(), dot(hit, reward), alive.sum())


@partial(jax.jit, static_argnames=("actions", "iterations"))
def best_policy(
    key: jax.Array, tables: Tables, *, actions: int = 6, iterations: int = 400
) -> jax.Array:
    """A locally best memoryless policy, float32 [550, actions]: what an expert could advise.

    Conservative policy iteration (Kakade and Langford 2002) on the exact return: step k moves the
    policy by 2 / (k + 4) towards the action with the largest exact gradient in each text. The
    result is random in the few texts without a ball in which the agent has to search; different
    keys start from different random policies, which breaks the mirror symmetry of left and right.
    """
    slope = jax.grad(lambda policy: exact_return(policy, tables).mean_return)

    def step(policy: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        better = jax.nn.one_hot(slope(policy).argmax(axis=1), actions)
        return policy + 2 / (k + 4) * (better - policy), None

    start = jax.random.dirichlet(key, jnp.ones(actions), (NUM_POLICY_TEXTS,))
    return jax.lax.scan(step, start, jnp.arange(iterations))[0]
