"""From a sweep to its plan: runs, and groups of runs that share one compilation.

What decides shapes (learner, network, number of environments, iterations, K, R, L, observation)
tells groups apart. All else is traced: hyperparameters, rounds and the numbers of the table.
Within a group an input that all runs share, such as the table, is there once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rlli_jax.checking import owner
from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection, make_params
from rlli_jax.errors import InputError, shown
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.selection.tables import Problem, build_problem
from rlli_jax.experiments.sweeps.config import Sweep
from rlli_jax.experiments.training import policy_keys
from rlli_jax.learners.core import Learner


@dataclass(frozen=True)
class Run:
    """One training: a policy of the study at a point, with one seed."""

    point: int
    policy: str
    seed: int


@dataclass
class Group:
    """Runs that one compiled program serves, side by side."""

    block: Learned  # learner, its config and iterations; the same for all runs
    env: ProviderSelection
    episodes: int
    runs: list[Run] = field(default_factory=list)
    hyperparams: list[PyTree] = field(default_factory=list)  # of Python numbers, one a run
    train: list[EnvParams] = field(default_factory=list)  # NumPy; equal ones are one object
    test: list[EnvParams] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)  # [2] uint32, of training
    test_keys: list[np.ndarray] = field(default_factory=list)
    chunk: int = 0  # runs side by side on one device; chosen by the engine

    def __len__(self) -> int:
        return len(self.runs)

    def learner(self) -> Learner:
        """What trains them all."""
        return self.block.make(self.env)

    def chunks(self) -> list[range]:
        """The runs of each chunk; the last may be short."""
        return [range(i, min(i + self.chunk, len(self))) for i in range(0, len(self), self.chunk)]


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep will do, and where each result belongs."""

    sweep: Sweep
    problems: list[Problem]  # of each point; equal ones are one object
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
            if owner(key, self.sweep.study.policies) not in (None, *policies):
                continue  # another policy's, so its runs are shared by all values
            values = {repr(points[i][key]) for i in inside}
            if len(values) == 1 and len({repr(point[key]) for point in points}) > 1:
                told[key] = shown(points[min(inside)][key])
        return told


def make_plan(sweep: Sweep) -> Plan:
    """Ask the judge for every table, and sort the runs into groups.

    Raises:
        InputError: what a study at some point raises for its files or its table.
    """
    problems: dict[str, Problem] = {}
    params: dict[tuple, tuple[EnvParams, EnvParams]] = {}
    groups: dict[Any, Group] = {}
    known: dict[str, tuple[int, int]] = {}
    of_point = []
    seeds = sweep.study.seeds
    place = np.zeros((len(sweep.policies), len(sweep.studies), seeds, 2), np.int32)
    for point, study in enumerate(sweep.studies):
        name = _problem_key(study)
        if name not in problems:
            problems[name] = build_problem(study)
        of_point.append(problems[name])
        rounds = study.environment.rounds
        if (name, rounds) not in params:
            params[name, rounds] = _params(problems[name], rounds)
        train, test = params[name, rounds]
        for p, policy in enumerate(sweep.policies):
            identity = _identity(study, policy)
            if identity in known:
                g, first = known[identity]
            else:
                group = _group(study, policy, train, test, groups)
                g, first = list(groups.values()).index(group), len(group)
                known[identity] = g, first
                _add(group, study, policy, point, train, test)
            place[p, point, :, 0] = g
            place[p, point, :, 1] = np.arange(first, first + seeds)
    return Plan(sweep, of_point, list(groups.values()), place)


def _problem_key(study: StudyConfig) -> str:
    """What decides the tables."""
    return study.model_dump_json(
        include={"population": True, "catalog": True, "judge": True, "table": True,
                 "evaluation": {"human"}}
    )  # fmt: skip


def _identity(study: StudyConfig, policy: str) -> str:
    """What decides a policy's runs: all of the study but the other policies."""
    shared = {"name", "description", "checkpoint_every", "policies"}
    return study.model_dump_json(exclude=shared) + study.policies[policy].model_dump_json()


def _params(problem: Problem, rounds: int) -> tuple[EnvParams, EnvParams]:
    """Training and evaluation, as NumPy; the same object if no requests are held out."""

    def of(table: Any, worth: Any) -> EnvParams:
        params = make_params(table, problem.population.traits, rounds=rounds, worth=worth)
        # An int is an int32 on the device.
        return jax.tree.map(
            lambda x: np.asarray(x, np.int32 if isinstance(x, int) else None), params
        )

    train = of(problem.train, problem.train)
    same = problem.test is problem.train
    return train, train if same else of(problem.test, problem.worth)


def _group(
    study: StudyConfig, policy: str, train: EnvParams, test: EnvParams, groups: dict[Any, Group]
) -> Group:
    block = study.policies[policy]
    if not isinstance(block, Learned):
        raise InputError(f"policies.{policy}: a sweep must not turn it into one that never learns.")
    if study.environment.assignment == "shared":
        ProviderSelection.check_shared(train)
    shapes = tuple(x.shape for x in jax.tree.leaves((train, test)))
    signature = (
        block.learner, repr(block.config), block.iterations, block.observation,
        jax.tree.structure(block.hyperparams), study.environment.assignment,
        study.evaluation.episodes, shapes,
    )  # fmt: skip
    if signature not in groups:
        env = ProviderSelection(
            train, assignment=study.environment.assignment, observation=block.observation
        )
        groups[signature] = Group(block, env, study.evaluation.episodes)
    return groups[signature]


def _add(
    group: Group, study: StudyConfig, policy: str, point: int, train: EnvParams, test: EnvParams
) -> None:
    """All seeds of a policy at a point. Random numbers are those of `rlli run` at this point."""
    block = study.policies[policy]
    assert isinstance(block, Learned)
    training, testing = (
        np.asarray(jax.random.key_data(jax.random.split(k, study.seeds)))
        for k in policy_keys(study.seed, policy)
    )
    for seed in range(study.seeds):
        group.runs.append(Run(point, policy, seed))
        group.hyperparams.append(block.hyperparams)
        group.train.append(train)
        group.test.append(test)
        group.keys.append(training[seed])
        group.test_keys.append(testing[seed])


def stack(trees: Sequence[PyTree], shared: PyTree) -> PyTree:
    """Leaves [runs, ...]; those that ``shared`` marks as equal in all runs stay as they are."""

    def leaf(same: bool, *leaves: Any) -> np.ndarray:
        return np.asarray(leaves[0]) if same else np.stack([_number(x) for x in leaves])

    return jax.tree.map(leaf, shared, *trees)


def shared_leaves(trees: Sequence[PyTree]) -> PyTree:
    """Which leaves are equal in all trees, as a tree of bool."""
    distinct = list({id(tree): tree for tree in trees}.values())
    return jax.tree.map(
        lambda first, *others: all(np.array_equal(first, x) for x in others),
        *distinct,
    )


def _number(x: Any) -> np.ndarray:
    """Python numbers as the device has them."""
    if isinstance(x, float):
        return np.asarray(x, np.float32)
    return np.asarray(x, np.int32) if isinstance(x, int) else np.asarray(x)
