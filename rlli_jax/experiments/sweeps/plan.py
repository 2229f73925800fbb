"""From a sweep to its plan: runs, and groups of runs that share one compilation.

What decides shapes (learner, network, number of environments, iterations, K, R, L, observation)
tells groups apart. All else is traced: hyperparameters, rounds and the numbers of the table.
Within a group an input that all runs share, such as the table, is there once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import PyTree
from rlli_jax.errors import InputError, shown
from rlli_jax.experiments.study import Arrays, Job, TrainedStudy, signature
from rlli_jax.experiments.sweeps.config import Sweep
from rlli_jax.experiments.training import Judge, as_number, key_words
from rlli_jax.learners.core import Learner


@dataclass(frozen=True)
class PlannedRun:
    """One training: a policy of the study at a point, with one seed."""

    point: int
    policy: str
    seed: int


@dataclass
class Group:
    """Runs that one compiled program serves, side by side."""

    name: str  # of the learner
    learner: Callable[[], Learner]
    judge: Judge
    measure: Callable[[Arrays, PyTree], Arrays]
    iterations: int
    options: Mapping[str, Any]  # of the compiler
    runs: list[PlannedRun] = field(default_factory=list)
    hyperparams: list[PyTree] = field(default_factory=list)  # of Python numbers, one a run
    train: list[PyTree] = field(default_factory=list)  # NumPy; equal ones are one object
    test: list[PyTree] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)  # of the returns of training
    keys: list[np.ndarray] = field(default_factory=list)  # [..., 2] uint32, of training
    test_keys: list[np.ndarray] = field(default_factory=list)
    chunk: int = 0  # runs side by side on one device; chosen by the engine

    def __len__(self) -> int:
        return len(self.runs)

    def chunks(self) -> list[range]:
        """The runs of each chunk; the last may be short."""
        return [range(i, min(i + self.chunk, len(self))) for i in range(0, len(self), self.chunk)]


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep will do, and where each result belongs."""

    sweep: Sweep
    study: TrainedStudy
    problems: list[Any]  # of each point; equal ones are one object
    groups: list[Group]
    # [policies, points, seeds, 2] int32: group and place in it. Points that differ in nothing
    # that matters to a policy share its runs.
    place: np.ndarray

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def varies(self, group: Group) -> dict[str, str]:
        """The swept keys that have one value in this group but several in the sweep."""
        points = self.sweep.points
        inside = {run.point for run in group.runs}
        policies = {run.policy for run in group.runs}
        told = {}
        for key in self.sweep.block.keys:
            concerned = self.study.concerned(self.sweep.study, key)
            if concerned is not None and not policies & set(concerned):
                continue  # another policy's, so its runs are shared by all values
            values = {repr(points[i][key]) for i in inside}
            if len(values) == 1 and len({repr(point[key]) for point in points}) > 1:
                told[key] = shown(points[min(inside)][key])
        return told


def make_plan(sweep: Sweep, console: Console | None = None) -> Plan:
    """Prepare every problem (ask the judge for its table), and sort the runs into groups.

    Raises:
        InputError: what a study at some point raises for its files or its table.
    """
    console = console or Console(quiet=True)
    study: TrainedStudy = sweep.kind.part("study")
    problems: dict[str, Any] = {}
    groups: dict[Any, Group] = {}
    known: dict[str, tuple[int, int]] = {}
    of_point = []
    seeds = sweep.study.seeds
    place = np.zeros((len(sweep.policies), len(sweep.studies), seeds, 2), np.int32)
    for point, config in enumerate(sweep.studies):
        decides = study.decides(config)
        if decides not in problems:
            problems[decides] = study.prepare(_of(config, sweep.policies), None, console)
        of_point.append(problems[decides])
        for p, policy in enumerate(sweep.policies):
            identity = study.identity(config, policy)
            if identity not in known:
                job = study.job(config, of_point[-1], policy)
                group = grouped(config, policy, job, study.keys(config, policy), groups)
                known[identity] = list(groups.values()).index(group), len(group)
                group.runs += [PlannedRun(point, policy, seed) for seed in range(seeds)]
            g, first = known[identity]
            place[p, point, :, 0] = g
            place[p, point, :, 1] = np.arange(first, first + seeds)
    return Plan(sweep, study, of_point, list(groups.values()), place)


def _of(config: Any, policies: Sequence[str]) -> Any:
    """A study with some of its policies alone: nobody is asked for what others would do."""
    if "policies" not in type(config).model_fields:
        return config
    return config.model_copy(update={"policies": {n: config.policies[n] for n in policies}})


def grouped(
    config: Any,
    policy: str,
    job: Job,
    keys: tuple[jax.Array, jax.Array],
    groups: dict[Any, Group],
) -> Group:
    """The group of a policy's runs, with all seeds of it added but their names.

    Random numbers are those of ``rlli run`` at this point.
    """
    if job.learner is None:
        raise InputError(f"policies.{policy}: a sweep must not turn it into one that never learns.")
    block, seeds = config.policies[policy], config.seeds
    group = groups.setdefault(
        signature(block, job),
        Group(block.learner, job.learner, job.judge, job.measure, job.iterations, job.options),
    )
    training, testing = map(key_words, keys)
    group.hyperparams += [job.hyperparams] * seeds
    train, test = job.of_seeds(seeds)
    group.train += train
    group.test += test
    group.shift += [job.shift] * seeds
    group.keys += list(training)
    group.test_keys += list(testing)
    return group


def stack(trees: Sequence[PyTree], shared: PyTree) -> PyTree:
    """Leaves [runs, ...]; those that ``shared`` marks as equal in all runs stay as they are."""

    def leaf(same: bool, *leaves: Any) -> np.ndarray:
        return np.asarray(leaves[0]) if same else np.stack([as_number(x) for x in leaves])

    return jax.tree.map(leaf, shared, *trees)


def shared_leaves(trees: Sequence[PyTree]) -> PyTree:
    """Which leaves are equal in all trees, as a tree of bool."""
    distinct = list({id(tree): tree for tree in trees}.values())
    return jax.tree.map(
        lambda first, *others: all(x is first or np.array_equal(first, x) for x in others),
        *distinct,
    )
