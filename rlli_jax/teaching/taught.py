"""Student and teacher as one learner: an iteration is a round, after which the teacher hears.

So whatever trains and sweeps learners also trains and sweeps methods of teaching.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.learners.core import Learner
from rlli_jax.teaching.bidirectional import StudentState, student_loop
from rlli_jax.teaching.methods import Adapt, Choices, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.objective import draw
from rlli_jax.teaching.quick import one_by_one
from rlli_jax.teaching.tasks import TextTask
from rlli_jax.teaching.teacher_update import TeacherState, teacher_update
from rlli_jax.teaching.teachers import Teacher


class Given(NamedTuple):
    """What a run begins with."""

    env_params: PyTree
    weights: PyTree  # of the language model
    table: Any  # float32 [3 T, A], what it says before it has heard anything, log M
    every: Any = 1  # iterations of the student in a round; one number for all runs, or it is slow


class Taught(NamedTuple):
    """All numbers of a method; every one is traced."""

    choices: Choices
    hyperparams: TeachingHyperparams


class TaughtState(struct.PyTreeNode):
    """A student, its teacher, and what that says now."""

    student: StudentState
    teacher: TeacherState | None  # None if it does not learn
    table: jax.Array  # [3 T, A]

    @property
    def params(self) -> PyTree:
        """What has been learned."""
        return self.student.params, None if self.teacher is None else self.teacher.adapted


def taught(
    task: TextTask,
    teacher: Teacher,
    config: TeachingConfig,
    adapt: Adapt | None,
    *,
    steps: int,
    tiny: bool = False,
) -> Learner:
    """The learner of a task; ``init`` takes two keys, of student and teacher, and ``Taught``.

    Its metrics are those of a round, and every exact value of student and teacher together.

    Args:
        task: what is learned.
        teacher: who advises; its weights come with ``Given``.
        config: what decides shapes.
        adapt: how the teacher's weights change; None if they do not.
        steps: of the environments in a round.
        tiny: whether an accelerator computes many of its models together.

    Raises:
        InputError: as :func:`student_loop`.
    """
    loop = student_loop(task, config)
    update = None if adapt is None else teacher_update(task, teacher, config, adapt=adapt)
    lesson = None if update is None else one_by_one(update.run, tiny=tiny)

    def init(keys: Key, hyperparams: Taught, given: Given) -> TaughtState:
        choices, numbers = hyperparams
        student = loop.init(keys[0], choices, numbers, given.env_params)
        learns = None
        if update is not None:
            learns = update.init(keys[1], given.weights, given.table, numbers)
        return TaughtState(student, learns, given.table)

    def step(state: TaughtState, given: Given) -> tuple[TaughtState, dict[str, jax.Array]]:
        student, asked, found = loop.run(state.student, state.table, given.env_params, given.every)
        state = state.replace(student=student)
        if lesson is not None:
            learned = lesson(state.teacher, given.weights, asked)
            state = state.replace(teacher=learned, table=learned.table)
        told = found._asdict()
        return state, told.pop("value") | told

    def policy(state: TaughtState) -> Policy:
        """Its memory is its table [T, A], by which a judge knows its exact value."""

        def act(key: Key, seen: PolicyInput, table: jax.Array) -> tuple[jax.Array, jax.Array]:
            weights = table[seen.observation[0].astype(jnp.int32)] * seen.legal
            return draw(weights, jax.random.uniform(key)), table

        return Policy(loop.together(state.student, state.table), act)

    return Learner(init, step, policy, steps)
