"""A study whose policies learn in an environment: what one engine needs to run and sweep it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress

from rlli_jax.checking import owner
from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.policy import Policy
from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.training import (
    Judge,
    NotNumbers,
    Program,
    Shared,
    all_shared,
    along_seeds,
    as_number,
    of_seeds,
    policy_keys,
    train_runs,
    training_progress,
)
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import TRAIN
from rlli_jax.qoe import QoETable
from rlli_jax.run_files import write_npz
from rlli_jax.run_files.policies import Summary

Arrays = dict[str, np.ndarray]


def nothing_more(found: Arrays, played: PyTree) -> Arrays:
    """Of an evaluation whose objective is its mean return."""
    return {"objective": found["returns"].mean(1)}


@dataclass(frozen=True)
class Job:
    """A policy of a study, with what it learns on and what it is judged on."""

    train: PyTree
    """Parameters of the environment in which it learns; NumPy arrays or numbers."""
    test: PyTree
    """What ``judge`` plays."""
    judge: Judge
    """policy, key, ``test`` -> ``returns`` [episodes] and more; compiled. Two jobs of equal
    ``shape`` have equal ones."""
    learner: Callable[[], Learner] | None = None
    """None: it does not learn, but follows ``policy``."""
    iterations: int = 0
    hyperparams: PyTree = None
    policy: Policy | None = None
    measure: Callable[[Arrays, PyTree], Arrays] = nothing_more
    """What the judge found of some runs [runs, ...], with the metrics of their training, ``test``
    [...] -> what follows from it, among it ``objective`` [runs], by which runs are compared."""
    shape: tuple = ()
    """What compiled programs depend on beside the learner, its config and the shapes of arrays: two
    jobs that are equal in all of that share one. Empty: each run of a job has its own."""
    shift: float = 0.0
    """To be added to the returns of training."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the summary says beside what all policies have."""
    options: Mapping[str, Any] = field(default_factory=lambda: TRAIN)
    """Of the compiler, for training on a CPU."""
    same: Shared | None = None
    """Which arrays of ``train`` and ``test`` are those of all seeds; the others have a leading axis
    of seeds. None: all are."""

    @property
    def shared(self) -> Shared:
        """Which arrays all seeds have in common."""
        return self.same or Shared(all_shared(self.train), all_shared(self.test))

    def of_seeds(self, seeds: int) -> tuple[list[PyTree], list[PyTree]]:
        """What each seed learns on, and what each is judged on."""

        def parts(tree: PyTree, shared: PyTree) -> list[PyTree]:
            if self.same is None:
                return [tree] * seeds
            return [
                jax.tree.map(lambda same, x, i=i: x if same else x[i], shared, tree)
                for i in range(seeds)
            ]

        return parts(self.train, self.shared.train), parts(self.test, self.shared.test)


class Told(NamedTuple):
    """What a report must say of a problem."""

    judge: str = ""
    stand_in: bool = False


class Offered(NamedTuple):
    """What providers offer, whoever chooses."""

    table: QoETable
    spared: np.ndarray | None = None
    """[R, L] in [0, 1], the part of denoising steps that sharing them spares; None: none."""


class TrainedStudy(ABC):
    """A kind of study: a problem, and a job for each of its policies.

    Its config has, beside what :class:`StudyBlock` has, ``seeds``, ``checkpoint_every`` and
    ``policies``.
    """

    summary: type[Summary] = Summary
    objective: str = "mean return of the evaluation episodes"
    """What ``objective`` is, in words, where no optimum is known."""

    @abstractmethod
    def prepare(self, config: Any, path: Path | None, console: Console) -> Any:
        """The problem: what all policies meet. With a run directory it is kept there.

        Raises:
            InputError: what the config asks for cannot be had.
        """

    @abstractmethod
    def job(self, config: Any, problem: Any, name: str) -> Job:
        """A policy of the study, by its name."""

    def decides(self, config: Any) -> str:
        """What decides the problem: configs that agree in it have the same one."""
        return str(config.model_dump_json(exclude={
            "name", "description", "seed", "seeds", "checkpoint_every", "policies",
        }))  # fmt: skip

    def identity(self, config: Any, name: str) -> str:
        """What decides the runs of a policy: all of the study but the other policies."""
        shared = {"name", "description", "checkpoint_every", "policies"}
        return str(config.model_dump_json(exclude=shared) + config.policies[name].model_dump_json())

    def keys(self, config: Any, name: str) -> tuple[jax.Array, jax.Array]:
        """Typed keys [seeds, ...] of a policy's training and of its evaluation."""
        of_training, of_evaluation = policy_keys(config.seed, name)
        return (
            jax.random.split(of_training, config.seeds),
            jax.random.split(of_evaluation, config.seeds),
        )

    def concerned(self, config: Any, key: str) -> Collection[str] | None:
        """Names of the policies that a swept key can matter to; None: all."""
        name = owner(key, config.policies)
        return None if name is None else (name,)

    def references(self, problem: Any) -> dict[str, float]:
        """Exact values by which an objective is judged; ``optimum`` among them if it is known."""
        return {}

    def told(self, problem: Any) -> Told:
        """What reports say of the problem."""
        return Told()

    def offered(self, problem: Any) -> Offered | None:
        """What providers offer; None where there is no table."""
        return None

    def conclude(self, config: Any, problem: Any, path: Path) -> None:  # noqa: B027 - may be nothing
        """What remains to be done when all policies are finished."""

    def carry_out(self, config: Any, path: Path, console: Console, *, train: bool = True) -> None:
        """Fill an open run directory: the problem, then each policy that is not finished.

        Raises:
            InputError: what the config asks for cannot be had; or, when all others are finished,
                losses of some policy are no numbers.
        """
        problem = self.prepare(config, path, console)
        if not train:
            return
        failed = []
        with training_progress(console) as progress:
            for name in config.policies:
                if not (path / "policies" / name / "summary.json").exists():
                    try:
                        self._run(config, problem, name, path, progress)
                    except NotNumbers as error:
                        failed.append(str(error))
        if failed:
            raise NotNumbers(" ".join(failed))
        self.conclude(config, problem, path)

    def _run(self, config: Any, problem: Any, name: str, path: Path, progress: Progress) -> None:
        """Train (if it learns), evaluate, and write the folder of one policy."""
        job, folder = self.job(config, problem, name), path / "policies" / name
        about: dict[str, Any] = {
            "name": name,
            "learner": config.policies[name].learner,
            "seeds": config.seeds,
            **job.about,
        }
        key_train, key_test = self.keys(config, name)
        task = progress.add_task(name, total=job.iterations or 1, note="")
        curve: Arrays = {}
        if job.learner is None:
            found = follow(job, key_test)
        else:

            def show(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
                recent = metrics["episode_return"][:, -10:] + job.shift
                note = f"return {np.nanmean(recent):.3f}" if np.isfinite(recent).any() else ""
                progress.update(task, completed=iteration, note=note)

            progress.update(task, note="compiling")
            checkpoints = Checkpoints(path / "checkpoints" / name)
            program = program_of(config.policies[name], job, config.seeds)
            found, curve, more = learn(program, job, key_train, key_test, config.checkpoint_every,
                                       checkpoints, show)  # fmt: skip
            write_npz(folder / "curve.npz", curve)
            about |= more
        note = f"return {found['returns'].mean():.3f}"
        progress.update(task, completed=job.iterations or 1, note=note)
        write_npz(folder / "evaluation.npz", found | job.measure(curve | found, job.test))
        # Last, because its presence says that the policy is finished.
        self.summary(**about).write(folder / "summary.json")


def signature(block: Any, job: Job) -> tuple:
    """What decides the compiled programs of a policy that learns, ``block``, at its job."""
    arrays, structure = jax.tree.flatten((job.train, job.test))
    return (
        block.program, job.iterations, job.shape, jax.tree.structure(job.hyperparams), structure,
        tuple(jax.tree.leaves((job.shared.train, job.shared.test))),
        tuple((np.shape(x), np.asarray(x).dtype) for x in arrays),
    )  # fmt: skip


def program_of(block: Any, job: Job, seeds: int) -> Program:
    """The compiled functions of a job, or those of an equal one of this process.

    So policies that differ in hyperparameters are compiled once, and a study that is carried out
    again, with other numbers or to go on where it stopped, not at all.
    """
    assert job.learner is not None
    types = tuple(as_number(x).dtype for x in jax.tree.leaves(job.hyperparams))
    settings = jax.config.jax_enable_x64, jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    key = signature(block, job), types, seeds, settings
    if key in _programs and job.shape:
        return _programs[key]
    program = Program(job.learner(), job.iterations, job.shared, jax.devices()[:1], job.judge)
    while len(_programs) >= KEPT_PROGRAMS:
        del _programs[next(iter(_programs))]
    _programs[key] = program
    return program


KEPT_PROGRAMS = 8
_programs: dict[tuple, Program] = {}  # of this process, the newest last


def learn(
    program: Program,
    job: Job,
    key_train: jax.Array,
    key_test: jax.Array,
    every: int,
    checkpoints: Checkpoints,
    show: Callable[[int, Arrays], None],
) -> tuple[Arrays, Arrays, dict[str, Any]]:
    """Train on all seeds: what the judge finds, the curve, and what the summary says of it."""
    given = of_seeds(key_train, job.hyperparams, job.train, key_test, job.test)
    trained = train_runs(program, given, every, checkpoints=checkpoints, check=True, progress=show)
    steps = program.learner.env_steps * np.arange(1, job.iterations + 1)
    curve = {"env_steps": steps, **trained.metrics}
    if job.shift:
        curve["episode_return"] = curve["episode_return"] + np.float32(job.shift)
    return program.evaluate(trained.state, given), curve, {
        "iterations": job.iterations,
        "env_steps": int(steps[-1]),
        "compile_seconds": trained.compile_seconds,
        "train_seconds": trained.train_seconds,
        "steps_per_second": int(steps[-1]) * len(key_train) / max(trained.train_seconds, 1e-9),
    }  # fmt: skip


def follow(job: Job, keys: jax.Array) -> Arrays:
    """What the judge finds of a policy that does not learn, [seeds, ...]."""
    assert job.policy is not None
    policy, axes = job.policy, along_seeds(job.shared.test)
    play = jax.jit(jax.vmap(lambda key, played: job.judge(policy, key, played), (0, axes)))
    found = play(keys, jax.tree.map(jnp.asarray, job.test))
    return {name: np.asarray(x) for name, x in found.items()}


def require_learned(config: Any, name: str) -> InputError:
    """That a policy of a sweep does not learn at some point."""
    return InputError(f"policies.{name}: a sweep must not turn it into one that never learns.")
