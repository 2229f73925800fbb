"""Carry out a teaching study: every method in every case on every seed.

Files, beside those of every run directory (see :mod:`rlli_jax.experiments.run_directory`):
``task.json`` (texts, advice, teacher, exact value of the expert), ``methods/<case>/<method>.npz``
(``_run_method``) and ``language_policy.npz`` (``_run_policy``).

What is finished is kept: a method's file appears whole or not at all, and a resumed study goes on
with the next one.
"""

import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.checking import owner
from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy
from rlli_jax.experiments.study import Arrays, Job, Told, TrainedStudy
from rlli_jax.experiments.sweeps.engine import inputs, make_program
from rlli_jax.experiments.sweeps.plan import Group, grouped
from rlli_jax.experiments.teaching.config import (
    LanguagePolicyBlock,
    Loaded,
    StandIn,
    TeachingStudy,
)
from rlli_jax.experiments.training import (
    Inputs,
    NotNumbers,
    Program,
    Shared,
    all_shared,
    train_runs,
)
from rlli_jax.language import LanguageModel
from rlli_jax.progress import LOG_SECONDS
from rlli_jax.run_files import write_npz
from rlli_jax.run_files.teaching import TeachingTask
from rlli_jax.teaching.bidirectional import Round
from rlli_jax.teaching.language_policy import language_policy, model_params, policy_table
from rlli_jax.teaching.methods import Method
from rlli_jax.teaching.quick import QUICK, jobs_at_once, over_seeds, quick_jit
from rlli_jax.teaching.tasks import TextTask, references
from rlli_jax.teaching.taught import Given, Taught, taught
from rlli_jax.teaching.teacher_update import advice_table, evaluate_teacher
from rlli_jax.teaching.teachers import StandIns


@dataclass(frozen=True, eq=False)
class Problem:
    """What every method of a study meets."""

    task: TextTask
    teachers: StandIns
    block: StandIn | Loaded
    _tables: dict[float, np.ndarray] = field(default_factory=dict)  # by temperature

    @cached_property
    def _held(self) -> tuple[Any, Any]:
        """Parameters of the environment and the teachers' weights: one copy for every method."""
        held: tuple[Any, Any] = jax.device_get((self.task.env_params, self.teachers.params))
        return held

    def given(self, config: TeachingStudy, every: int) -> Given:
        """What runs begin with, on the host; what each seed has of its own is [seeds, ...]."""
        hot = config.hyperparams.temperature
        if hot not in self._tables:
            self._tables[hot] = jax.device_get(_first_tables(config, self.teachers))
        return Given(*self._held, self._tables[hot], np.int32(every))

    def same(self, given: Given) -> Shared:
        """What of it is that of all seeds."""
        every = all_shared(given)
        own = jax.tree.map(lambda _: not self.teachers.own, given.weights)
        return Shared(every._replace(weights=own, table=False), ())


class Teaching(TrainedStudy):
    """A language model as teacher; to a sweep every method in every case is a policy."""

    objective = "exact expected return, mean over the rounds of training"

    def prepare(self, config: TeachingStudy, path: Path | None, console: Console) -> Problem:
        """The task, and a teacher for each seed."""
        config.teacher.require()  # before a judge is asked
        task = config.task.make()
        teachers = config.teacher.teachers(task, config.seeds, _keys(config)[0])
        return Problem(task, teachers, config.teacher)

    def decides(self, config: TeachingStudy) -> str:
        """What decides task and teachers."""
        return config.model_dump_json(include={"seed", "seeds", "task", "teacher"})

    def job(self, config: TeachingStudy, problem: Problem, name: str) -> Job:
        """A method in a case."""
        policy = config.policies[name]
        method, case = config.methods[policy.method], config.cases[policy.case]
        given = problem.given(config, case.teacher_every)
        # Without its weights, which come with what is given.
        model = replace(problem.teachers.teacher.model, params={})
        return Job(
            train=given,
            test=(),
            same=problem.same(given),
            judge=partial(_judge, problem.task),
            learner=partial(
                taught, problem.task, problem.teachers.teacher._replace(model=model),
                config.loop(case), method.trains,
                steps=config.loop(case).num_envs * config.config.num_steps * case.teacher_every,
                tiny=problem.block.stand_in,
            ),
            iterations=case.iterations // case.teacher_every,
            hyperparams=Taught(jax.device_get(method.choices), config.hyperparams),
            measure=_measure,
            shape=(config.task.model_dump_json(), model.config),
            options=QUICK,
        )  # fmt: skip

    def identity(self, config: TeachingStudy, name: str) -> str:
        """What decides the runs of a method in a case."""
        policy = config.policies[name]
        named: Any = {"cases": {policy.case}, "methods": {policy.method}}
        whole: Any = dict.fromkeys(
            ("seed", "seeds", "task", "teacher", "config", "hyperparams"), True
        )
        return config.model_dump_json(include=whole | named)

    def keys(self, config: TeachingStudy, name: str) -> tuple[jax.Array, jax.Array]:
        """Of student and teacher [seeds, 2]; the same for every method, so that they can be
        compared seed by seed. Nothing is drawn in evaluation."""
        keys = jax.random.split(_keys(config)[1], (config.seeds, 2))
        return keys, keys[:, 0]

    def concerned(self, config: TeachingStudy, key: str) -> Collection[str] | None:
        """The policies of a case or of a method."""
        case, method = (owner(key, getattr(config, block), block) for block in ("cases", "methods"))
        if case is None and method is None:
            return None
        return [n for n, p in config.policies.items() if case == p.case or method == p.method]

    def told(self, problem: Problem) -> Told:
        """Who teaches."""
        return Told(problem.teachers.teacher.model.name, problem.block.stand_in)

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


def _keys(study: TeachingStudy) -> jax.Array:
    """Of the teachers, of the runs, and of the language policy."""
    return jax.random.split(jax.random.key(study.seed), 3)


def _judge(task: TextTask, policy: Policy, key: Key, played: Any) -> dict[str, jax.Array]:
    """The exact value of a policy by table."""
    return {"returns": task.value(policy.initial)["return"][None]}


def _measure(found: Arrays, played: Any) -> Arrays:
    """What the page of a study compares too: the mean return over the training, which a method
    that learns sooner has more of."""
    return {"objective": found["return"].mean(1)}


def _carry_out(study: TeachingStudy, path: Path, console: Console) -> None:
    study.teacher.require()  # before a judge is asked
    task = study.task.make()
    key_teacher, _, key_policy = _keys(study)
    with ThreadPoolExecutor(jobs_at_once()) as pool:
        try:
            running = []
            file = path / "language_policy.npz"
            if study.language_policy is not None and not file.exists():
                key_model, key_learner = jax.random.split(key_policy)
                # Here and not in the job: transformers cannot be imported in two threads at once.
                model = study.teacher.policy_model(task, key_model)
                asked = (study.language_policy, task, model, key_learner, file)
                running.append(pool.submit(_run_policy, *asked))
            start = time.perf_counter()
            teachers = jax.block_until_ready(study.teacher.teachers(task, study.seeds, key_teacher))
            seconds = time.perf_counter() - start
            console.print(f"{teachers.teacher.model.name}: {seconds:.1f} s", highlight=False)
            _describe(study, task, teachers, path)
            problem = Problem(task, teachers, study.teacher)
            evaluate = quick_jit(jax.vmap(partial(evaluate_teacher, task)))
            programs: dict[Any, Program] = {}
            # Long ones first, so that no core is idle at the end.
            for name in sorted(study.policies, key=partial(_length, study), reverse=True):
                policy = study.policies[name]
                file = path / "methods" / policy.case / f"{policy.method}.npz"
                if file.exists():
                    continue
                job = STUDY.job(study, problem, name)
                groups: dict[Any, Group] = {}
                group = grouped(study, name, job, STUDY.keys(study, name), groups)
                (kind,) = groups
                program = programs.setdefault(kind, make_program(group, jax.devices()[:1]))
                given = inputs(group, range(study.seeds), program.shared)
                first = job.train.table
                method = study.methods[policy.method]
                running.append(
                    pool.submit(_run_method, program, given, method, evaluate, first, file)
                )
            waiting, failed = set(running), []
            while waiting:
                done, waiting = wait(waiting, LOG_SECONDS, FIRST_COMPLETED)
                for ended in done:
                    try:
                        console.print(ended.result(), highlight=False, markup=False)
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


def _length(study: TeachingStudy, name: str) -> tuple[int, bool]:
    policy = study.policies[name]
    return study.cases[policy.case].iterations, study.methods[policy.method].trains is not None


def _describe(study: TeachingStudy, task: TextTask, teachers: StandIns, path: Path) -> None:
    """Write ``task.json``."""
    expert = {name: float(value) for name, value in task.value(task.expert).items()}
    TeachingTask(
        name=task.name,
        texts=list(task.texts),
        advice=list(task.advice),
        teacher=teachers.teacher.model.name,
        stand_in=study.teacher.stand_in,
        env_steps_per_iteration={
            name: study.loop(case).num_envs * study.config.num_steps
            for name, case in study.cases.items()
        },
        expert=np.asarray(task.expert).argmax(1).tolist(),
        metric="success" if "success" in expert else "return",
        expert_value=expert,
        references=references(task),
    ).write(path / "task.json")


def _first_tables(study: TeachingStudy, teachers: StandIns) -> jax.Array:
    """log M [seeds, 3 T, A] of teachers that have heard nothing."""

    def one(params: Any, _: Any = None) -> jax.Array:
        return advice_table(teachers.teacher, params, study.hyperparams)

    if teachers.own:
        each = over_seeds(one, own=True, tiny=True)
        return quick_jit(each)(teachers.params, jnp.arange(study.seeds))
    return jnp.stack([quick_jit(one)(teachers.params)] * study.seeds)


def _run_method(
    program: Program,
    given: Inputs,
    method: Method,
    evaluate: Callable[[Any], Any],
    first: np.ndarray,
    file: Path,
) -> str:
    """Train one method on all seeds and write its file; a line to show.

    ``first``: what the teachers say before they have heard anything, [seeds, 3 T, A].
    """
    trained = train_runs(program, given, program.iterations)
    before = jax.device_get(evaluate(first)) if method.teacher else {}
    after = jax.device_get(evaluate(trained.state.table)) if method.trains else before
    what = f"case {file.parent.name}, {file.stem}"
    curves = trained.metrics
    _require_numbers(what, {n: x for n, x in curves.items() if n not in Round._fields})
    result = curves | {
        "iterations": np.arange(1, program.iterations + 1) * int(given.train.every),
        "seconds": np.array(trained.train_seconds),
        "heard": np.asarray(trained.state.student.heard),  # [seeds, T, 2]
    }
    for when, examined in (("before", before), ("after", after)):
        result |= {f"teacher_{name}_{when}": value for name, value in examined.items()}
    write_npz(file, result)
    return f"{what}: return {curves['return'][:, -1].mean():.3f} ({trained.train_seconds:.1f} s)"


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
