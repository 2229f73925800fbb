"""Carry out a teaching study: every method in every case on every seed.

Files, beside those of every run directory (see :mod:`rlli_jax.experiments.run_directory`):
``task.json`` (texts, advice, teacher, exact value of the expert), ``methods/<case>/<method>.npz``
(``_run_method``) and ``language_policy.npz`` (``_run_policy``).

What is finished is kept: a method's file appears whole or not at all, and a resumed study goes on
with the next one.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.provider_selection import make_params
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.experiments.teaching.config import (
    Ball,
    CaseBlock,
    LanguagePolicyBlock,
    Loaded,
    Providers,
    StandIn,
    TeachingStudy,
)
from rlli_jax.experiments.training import NotNumbers
from rlli_jax.experiments.yaml_blocks import load_as
from rlli_jax.language import LanguageModel, load_model
from rlli_jax.language.tiny import tiny_model
from rlli_jax.progress import LOG_SECONDS
from rlli_jax.run_files import write_npz
from rlli_jax.run_files.teaching import TeachingTask
from rlli_jax.teaching.bidirectional import FeedbackSum, StudentLoop, student_loop
from rlli_jax.teaching.language_policy import language_policy, model_params, policy_table
from rlli_jax.teaching.methods import Adapt, Choices, Method, TeachingConfig
from rlli_jax.teaching.quick import jobs_at_once, over_seeds, quick_jit
from rlli_jax.teaching.tasks import TextTask, go_to_red_ball, provider_selection, references
from rlli_jax.teaching.teacher_update import (
    TeacherUpdate,
    advice_table,
    evaluate_teacher,
    teacher_update,
)
from rlli_jax.teaching.teachers import REMARKS, StandIns, stand_in_teachers, teacher


def build_task(block: Ball | Providers) -> TextTask:
    """The task that a study names."""
    if isinstance(block, Ball):
        return go_to_red_ball()
    problem = build_problem(load_as(StudyConfig, block.study))
    table = problem.train
    params = jax.tree.map(jnp.asarray, make_params(table, problem.population.traits))
    return provider_selection(params, problem.population, table.requests, table.providers)


def build_teachers(study: TeachingStudy, task: TextTask, key: jax.Array) -> StandIns:
    """One teacher a seed: tiny ones that differ in what they know, or one that is loaded."""
    block = study.teacher
    if isinstance(block, StandIn):
        return stand_in_teachers(
            jax.random.split(key, study.seeds), task, block.ability,
            kind=block.architecture, d_model=block.d_model, steps=block.steps,
        )  # fmt: skip
    model = load_model(block.model, compute_dtype=block.compute_dtype)
    taught = jnp.zeros((study.seeds, len(task.texts)), bool)
    return StandIns(teacher(task, model), model.params, False, taught)


def build_policy_model(study: TeachingStudy, task: TextTask, key: jax.Array) -> LanguageModel:
    """The language model that is itself the policy: tiny with random weights, or one loaded."""
    if isinstance(study.teacher, Loaded):
        return load_model(study.teacher.model, compute_dtype=study.teacher.compute_dtype)
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    width = study.teacher.d_model
    return tiny_model(study.teacher.architecture, key, words, width=width, heads=max(1, width // 8))


class Teaching:
    """A language model as teacher."""

    def carry_out(
        self, config: TeachingStudy, path: Path, console: Console, *, train: bool = True
    ) -> None:
        """Fill an open run directory with what is not there yet.

        Raises:
            InputError: what the config asks for cannot be had; or, when all others are finished,
                values of some method are no numbers.
        """
        _carry_out(config, path, console)


STUDY = Teaching()


def _carry_out(study: TeachingStudy, path: Path, console: Console) -> None:
    task = build_task(study.task)
    key_teacher, key_run, key_policy = jax.random.split(jax.random.key(study.seed), 3)
    with ThreadPoolExecutor(jobs_at_once()) as pool:
        try:
            running = []
            practices = _Once(partial(_compile_practice, study, task))
            longest = max(study.cases.values(), key=lambda case: case.iterations)
            pool.submit(practices, study.loop(longest))  # while the teachers are made
            file = path / "language_policy.npz"
            if study.language_policy is not None and not file.exists():
                key_model, key_learner = jax.random.split(key_policy)
                # Here and not in the job: transformers cannot be imported in two threads at once.
                model = build_policy_model(study, task, key_model)
                asked = (study.language_policy, task, model, key_learner, file)
                running.append(pool.submit(_run_policy, *asked))
            start = time.perf_counter()
            teachers = jax.block_until_ready(build_teachers(study, task, key_teacher))
            seconds = time.perf_counter() - start
            console.print(f"{teachers.teacher.model.name}: {seconds:.1f} s", highlight=False)
            _describe(study, task, teachers, path)
            programs = _Programs(
                study, task, teachers, _first_tables(study, teachers), practices,
                _Once(partial(_compile_teacher_update, study, task, teachers)),
                quick_jit(jax.vmap(partial(evaluate_teacher, task))),
            )  # fmt: skip
            # The same for every method, so that they can be compared seed by seed.
            keys = jax.random.split(key_run, (study.seeds, 2))
            jobs = [
                (block, method, path / "methods" / case / f"{name}.npz")
                for case, block in study.cases.items()
                for name, method in study.methods.items()
            ]
            # Long ones first, so that no core is idle at the end.
            jobs.sort(key=lambda job: (job[0].iterations, job[1].trains is not None), reverse=True)
            for block, method, file in jobs:
                if not file.exists():
                    running.append(pool.submit(_run_method, programs, block, method, keys, file))
            waiting, failed = set(running), []
            while waiting:
                done, waiting = wait(waiting, LOG_SECONDS, FIRST_COMPLETED)
                for job in done:
                    try:
                        console.print(job.result(), highlight=False, markup=False)
                    except NotNumbers as error:  # the others go on
                        failed.append(str(error))
                if not done:
                    finished = len(running) - len(waiting)
                    console.print(f"{finished} of {len(running)} finished", highlight=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise NotNumbers(" ".join(sorted(failed)))


def _describe(study: TeachingStudy, task: TextTask, teachers: StandIns, path: Path) -> None:
    """Write ``task.json``."""
    expert = {name: float(value) for name, value in task.value(task.expert).items()}
    TeachingTask(
        name=task.name,
        texts=list(task.texts),
        advice=list(task.advice),
        teacher=teachers.teacher.model.name,
        stand_in=isinstance(study.teacher, StandIn),
        env_steps_per_iteration={
            name: study.loop(case).num_envs * study.config.num_steps
            for name, case in study.cases.items()
        },
        expert=np.asarray(task.expert).argmax(1).tolist(),
        metric="success" if "success" in expert else "return",
        expert_value=expert,
        references=references(task),
    ).write(path / "task.json")


class _Once:
    """A function whose result for each argument is made by the first who asks; others wait."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._made: dict[Any, Future] = {}

    def __call__(self, argument: Any) -> Any:
        with self._guard:
            first = argument not in self._made
            future = self._made.setdefault(argument, Future())
        if first:
            try:
                future.set_result(self._make(argument))
            except BaseException as error:
                future.set_exception(error)
        return future.result()


def _first_tables(study: TeachingStudy, teachers: StandIns) -> jax.Array:
    """log M [seeds, 3 T, A] of teachers that have heard nothing."""

    def one(params: Any, _: Any = None) -> jax.Array:
        return advice_table(teachers.teacher, params, study.hyperparams)

    if teachers.own:
        each = over_seeds(one, own=True, tiny=True)
        return quick_jit(each)(teachers.params, jnp.arange(study.seeds))
    return jnp.stack([quick_jit(one)(teachers.params)] * study.seeds)


def _compile_practice(study: TeachingStudy, task: TextTask, config: TeachingConfig) -> StudentLoop:
    """Vmapped over seeds; ``run`` reuses the memory of its states."""
    one = student_loop(task, config)
    keys, choices = jax.random.split(jax.random.key(0), study.seeds), Method().choices
    texts, advice = len(task.texts), len(task.advice)

    def start(keys: jax.Array, choices: Choices, env_params: Any) -> Any:
        init = jax.vmap(one.init, (0, None, None, None))
        return init(keys, choices, study.hyperparams, env_params)

    init = quick_jit(start).lower(keys, choices, task.env_params).compile()
    run = quick_jit(jax.vmap(one.run, (0, 0, None, None)), donate_argnums=0)
    states = jax.eval_shape(start, keys, choices, task.env_params)
    tables = jax.ShapeDtypeStruct((study.seeds, len(REMARKS) * texts, advice), jnp.float32)
    return StudentLoop(init, run.lower(states, tables, task.env_params, jnp.int32(1)).compile())


def _compile_teacher_update(
    study: TeachingStudy, task: TextTask, teachers: StandIns, adapt: Adapt
) -> TeacherUpdate:
    """Over seeds; weights that all of them share stay one copy."""
    one = teacher_update(task, teachers.teacher, study.config, adapt=adapt)
    each = partial(over_seeds, own=teachers.own, tiny=isinstance(study.teacher, StandIn))

    def start(keys: jax.Array, params: Any, tables: jax.Array) -> Any:
        def init(params: Any, x: Any) -> Any:
            key, table = x
            return one.init(key, params, table, study.hyperparams)

        return each(init)(params, (keys, tables))

    def run(states: Any, params: Any, asked: Any) -> Any:
        return each(lambda params, x: one.run(x[0], params, x[1]))(params, (states, asked))

    asked = FeedbackSum.nothing(len(task.texts), len(task.advice))
    asked = jax.tree.map(lambda x: jnp.broadcast_to(x, (study.seeds, *x.shape)), asked)
    keys = jax.random.split(jax.random.key(0), study.seeds)
    tables = jnp.zeros((study.seeds, len(REMARKS) * len(task.texts), len(task.advice)))
    init = quick_jit(start).lower(keys, teachers.params, tables).compile()
    states = jax.eval_shape(start, keys, teachers.params, tables)
    taught = quick_jit(run, donate_argnums=0).lower(states, teachers.params, asked).compile()
    return TeacherUpdate(init, taught)


class _Programs(NamedTuple):
    """What all methods share."""

    study: TeachingStudy
    task: TextTask
    teachers: StandIns
    tables: jax.Array  # what the teachers say at first, log M [seeds, 3 T, A]
    student_loop: Callable[[TeachingConfig], StudentLoop]
    teacher_update: Callable[[Adapt], TeacherUpdate]
    evaluate_teacher: Callable[[jax.Array], dict[str, jax.Array]]


def _run_method(
    programs: _Programs, case: CaseBlock, method: Method, keys: jax.Array, file: Path
) -> str:
    """Train one method on all seeds and write its file; a line to show.

    keys: [seeds, 2], of student and teacher.
    """
    env_params, tables = programs.task.env_params, programs.tables
    practised = programs.student_loop(programs.study.loop(case))
    # Copies, since every round reuses the memory of its states.
    student = jax.tree.map(jnp.copy, practised.init(keys[:, 0], method.choices, env_params))
    if method.trains:
        taught = programs.teacher_update(method.trains)
        teachers = taught.init(keys[:, 1], programs.teachers.params, tables)
        teachers = jax.tree.map(jnp.copy, teachers)
    before = jax.device_get(programs.evaluate_teacher(tables)) if method.teacher else {}
    start = time.perf_counter()
    rounds = []
    for _ in range(case.iterations // case.teacher_every):
        student, asked, metrics = practised.run(
            student, tables, env_params, jnp.int32(case.teacher_every)
        )
        if method.trains:
            teachers = taught.run(teachers, programs.teachers.params, asked)
            tables = teachers.table
        rounds.append(metrics)
    rounds = jax.device_get(rounds)
    seconds = time.perf_counter() - start
    after = jax.device_get(programs.evaluate_teacher(tables)) if method.trains else before
    result = {
        "iterations": np.arange(1, len(rounds) + 1) * case.teacher_every,
        "episode_return": np.stack([r.episode_return for r in rounds], 1),  # [seeds, rounds]
        "followed": np.stack([r.followed for r in rounds], 1),
        "positive": np.stack([r.positive for r in rounds], 1),
        "seconds": np.array(seconds),
        "heard": np.asarray(student.heard),  # [seeds, T, 2]
    }
    for name in rounds[0].value:
        result[name] = np.stack([r.value[name] for r in rounds], 1)
    what = f"case {file.parent.name}, {file.stem}"
    _require_numbers(what, {name: result[name] for name in rounds[0].value})
    for when, examined in (("before", before), ("after", after)):
        for name, value in examined.items():
            result[f"teacher_{name}_{when}"] = value
    write_npz(file, result)
    return f"{what}: return {result['return'][:, -1].mean():.3f} ({seconds:.1f} s)"


def _require_numbers(what: str, curves: dict[str, np.ndarray]) -> None:
    """Raise NotNumbers if curves [seeds, rounds] hold what is no number."""
    wrong = {name: ~np.isfinite(x) for name, x in curves.items()}
    bad = np.stack(list(wrong.values()))  # [curves, seeds, rounds]
    if not bad.any():
        return
    first = int(bad.any((0, 1)).argmax())
    names = [name for name, at in wrong.items() if at[:, first].any()]
    seeds = np.flatnonzero(bad.any((0, 2)))
    raise NotNumbers(
        f"{what}: {', '.join(names)} are no numbers from round {first + 1} on, in {len(seeds)} of "
        f"{bad.shape[1]} seeds (seed {seeds[0]} first): a learning rate is too high; nothing of it "
        "was kept."
    )


def _run_policy(
    block: LanguagePolicyBlock, task: TextTask, model: LanguageModel, key: jax.Array, file: Path
) -> str:
    """The language model as the policy: its exact values after each iteration, on every seed."""
    learner = language_policy(task, model, block.config)

    def step(state: Any, env_params: Any) -> Any:
        state, metrics = learner.step(state, env_params)
        table = policy_table(task, model, model_params(state), block.config.scoring)
        return state, task.value(table) | {"episode_return": metrics["episode_return"]}

    compiled = quick_jit(step, donate_argnums=0)
    hyperparams: Any = block.hyperparams
    hyperparams = hyperparams.replace(total_iterations=block.iterations)
    curves = []
    start = time.perf_counter()
    for seed_key in jax.random.split(key, block.seeds):
        # Not compiled: the program would hold the model's weights as constants. A copy, since every
        # step reuses the memory of its state.
        state = jax.tree.map(jnp.copy, learner.init(seed_key, hyperparams, task.env_params))
        metrics = []
        for _ in range(block.iterations):
            state, new = compiled(state, task.env_params)
            metrics.append(new)
        curves.append(jax.device_get(metrics))
    result = {
        name: np.array([[float(m[name]) for m in curve] for curve in curves])
        for name in curves[0][0]
    }
    _require_numbers("language policy", {n: x for n, x in result.items() if n != "episode_return"})
    steps = learner.env_steps * np.arange(1, block.iterations + 1)
    write_npz(file, result | {"env_steps": steps, "seconds": np.array(time.perf_counter() - start)})
    return f"language policy: return {result['return'][:, -1].mean():.3f}"
