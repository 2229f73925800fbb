"""Planners as a study: one low level for all of them, flat policies beside.

The run directory holds, beside what all have, ``references.json``, ``low_level.npz`` (how the low
level learned), ``plans/`` (what models named), and in the market ``table.npz`` and
``population.csv``; see :mod:`rlli_jax.run_files.planner`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy
from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.planner.config import (
    LOW_LEVEL,
    FlatLearned,
    GivenPlan,
    PlannedEnv,
    PlannerLearned,
    PlannerStudy,
)
from rlli_jax.experiments.planner.worlds import (
    Found,
    World,
    best_constant,
    best_of_estimated,
    low_learner,
    make_world,
    play,
)
from rlli_jax.experiments.plans import kept_plan
from rlli_jax.experiments.study import Arrays, Job, Told, TrainedStudy, program_of
from rlli_jax.experiments.training import (
    Shared,
    all_shared,
    of_seeds,
    policy_keys,
    train_runs,
    training_progress,
)
from rlli_jax.judges.prompting import messages, plan_question
from rlli_jax.learners.options import Following, Levels, SMDPHyperparams, follow_given
from rlli_jax.run_files import write_npz
from rlli_jax.run_files.planner import MadePlan, PlannerReferences, PlannerSummary


@dataclass(frozen=True, eq=False)
class Problem:
    """What every policy of a study meets."""

    world: World
    plans: Mapping[str, MadePlan | None]
    low: PyTree
    """Parameters of the trained low level, leaves [seeds, ...], on the host."""
    references: PlannerReferences
    follow: Callable[[Key, Levels], Found]
    """Plays the plan that stands in the parameters; one for all planners that do not learn, so that
    it is traced once."""


class PlannersStudy(TrainedStudy):
    """A planner names goals, a low level follows them."""

    summary = PlannerSummary

    def decides(self, config: PlannerStudy) -> str:
        """The low level is part of the problem, and it differs from seed to seed."""
        return super().decides(config) + f"{config.seed} {config.seeds}"

    def prepare(self, config: PlannerStudy, path: Path | None, console: Console) -> Problem:
        """The environment, then the plans, then the low level."""
        world = make_world(config, path, console)
        for name, block in config.policies.items():
            if isinstance(block, FlatLearned):
                self._flat(world, name, block)
        plans = {
            name: kept_plan(name, block, world.todo, config.seed, path, console)
            for name, block in config.policies.items()
        }
        low, references = _low_level(config, world, path, console)
        env, played = PlannedEnv(world.env, world.todo.hierarchy), _played(config, world)
        policy = follow_given(world.todo.hierarchy)
        follow = jax.jit(partial(_judge, env, played, policy))
        return Problem(world, plans, low, references, follow)

    @staticmethod
    def _flat(world: World, name: str, block: FlatLearned) -> Any:
        try:
            return world.flat(block.observation)
        except InputError as error:
            raise InputError(f"policies.{name}.observation: {error}") from None

    def job(self, config: PlannerStudy, problem: Problem, name: str) -> Job:
        """Planners learn above the low level of their seed; flat policies by themselves."""
        block, world = config.policies[name], problem.world
        played = _played(config, world)
        if isinstance(block, FlatLearned):
            env = self._flat(world, name, block)
            return Job(
                world.train,
                world.test,
                partial(play, env, **played),
                learner=partial(block.make, env),
                iterations=block.iterations,
                hyperparams=block.hyperparams,
                measure=_as_found,
            )
        env = PlannedEnv(world.env, world.todo.hierarchy)
        about: dict[str, Any] = {"low_steps": problem.references.low_steps}
        made = problem.plans[name]
        if made is not None:
            about |= made.model_dump(exclude={"plan"})
        plan = None if isinstance(block, PlannerLearned) else self._plan(config, problem, name)
        train, test = (Levels(params, problem.low, plan) for params in (world.train, world.test))
        ready = Job(
            train,
            test,
            partial(_judge, env, played),
            measure=_as_found,
            about=about,
            same=Shared(*(_same(levels) for levels in (train, test))),
        )
        if not isinstance(block, PlannerLearned):
            policy = follow_given(world.todo.hierarchy)
            follow = problem.follow
            return replace(ready, policy=policy, judge=lambda _, key, test: follow(key, test))
        return replace(
            ready,
            learner=partial(block.make, env),
            iterations=block.iterations,
            hyperparams=block.hyperparams,
        )

    def _plan(self, config: PlannerStudy, problem: Problem, name: str) -> np.ndarray:
        """[seeds, S, O] float32."""
        made, todo, seeds = problem.plans.get(name), problem.world.todo, config.seeds
        options = np.eye(len(todo.options), dtype=np.float32)
        if made is not None:
            return np.repeat(np.asarray(made.plan, np.float32)[None], seeds, 0)
        block = config.policies[name]
        assert isinstance(block, GivenPlan)  # all others have theirs
        if block.learner == "oracle":
            return options[np.asarray(problem.references.oracle)]
        keys = jax.random.split(policy_keys(config.seed, name)[0], seeds)
        best = best_constant(problem.world, problem.low, keys, config.evaluation.episodes)
        return np.repeat(options[best][:, None], len(todo.situations), 1)

    def told(self, problem: Problem) -> Told:
        """Who judged the pictures of a market."""
        return problem.world.told


STUDY = PlannersStudy()


def _played(config: PlannerStudy, world: World) -> dict[str, Any]:
    return {"episodes": config.evaluation.episodes, "success": world.success}


def _same(levels: Levels) -> Levels:
    """Each seed has its own low level and plan; the environment is one."""
    own = jax.tree.map(lambda _: False, levels)
    return own.replace(env=all_shared(levels.env))


def _judge(
    env: PlannedEnv, played: Mapping[str, Any], policy: Policy, key: Key, params: Levels
) -> Found:
    plan = policy.plan if isinstance(policy, Following) else params.plan
    assert plan is not None  # a planner that does not learn has it
    return play(env, policy, key, params, **played) | {"plan": plan}


def _as_found(found: Arrays, played: PyTree) -> Arrays:
    """What runs are compared by is found already."""
    return {}


def _low_level(
    config: PlannerStudy, world: World, path: Path | None, console: Console
) -> tuple[PyTree, PlannerReferences]:
    """Train what follows goals, once, or read it from its checkpoint; and what follows from it."""
    block, seeds = config.low_level, config.seeds
    job = Job(
        world.low,
        None,
        partial(play, world.low_env, **_played(config, world)),
        learner=partial(low_learner, config, world.low_env),
        iterations=block.iterations,
        hyperparams=block.hyperparams,
    )
    program = program_of(block, job, seeds)
    keys = jax.random.split(policy_keys(config.seed, LOW_LEVEL)[0], seeds)
    given = of_seeds(keys, job.hyperparams, job.train)
    checkpoints = None if path is None else Checkpoints(path / "checkpoints" / LOW_LEVEL)
    with training_progress(console) as progress:
        task = progress.add_task("low level", total=block.iterations, note="compiling")

        def show(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
            note = f"return {np.nanmean(metrics['episode_return'][:, -10:]):.3f}"
            progress.update(task, completed=iteration, note=note)

        trained = train_runs(
            program, given, config.checkpoint_every,
            checkpoints=checkpoints, check=checkpoints is not None, progress=show,
        )  # fmt: skip
    # What acts needs the networks alone.
    lean = trained.state.replace(key=None, optimizer=None, envs=None, memory=())
    low = jax.tree.map(np.asarray, lean)
    file = None if path is None else path / "references.json"
    if file is not None and file.exists():
        return low, PlannerReferences.read(file)
    late = trained.metrics["episode_return"][:, -max(1, block.iterations // 10) :]
    references = _references(config, world, low, {
        "low_iterations": block.iterations,
        "low_steps": program.learner.env_steps * block.iterations,
        "low_seconds": trained.train_seconds,
        "low_return": np.nan_to_num(np.nanmean(late, 1)).tolist(),
    })  # fmt: skip
    if path is not None and file is not None:
        steps = program.learner.env_steps * np.arange(1, block.iterations + 1)
        write_npz(path / "low_level.npz", {"env_steps": steps, **trained.metrics})
        references.write(file)
    return low, references


def _references(
    config: PlannerStudy, world: World, low: PyTree, about: Mapping[str, Any]
) -> PlannerReferences:
    todo, seeds = world.todo, config.seeds
    if todo.right is None:
        keys = jax.random.split(policy_keys(config.seed, "oracle")[0], seeds)
        oracle = best_of_estimated(world, low, keys, _gamma(config))
    else:
        oracle = np.repeat(todo.right[None], seeds, 0)
    question = plan_question(todo.situations[0], todo.question, todo.options)
    content: Any = messages(question)[0]["content"]
    return PlannerReferences(
        situations=list(todo.situations),
        options=list(todo.options),
        prompt=todo.prompts[0],
        question=content[0]["text"],
        oracle=oracle.tolist(),
        estimated=todo.right is None,
        **about,
    )


def _gamma(config: PlannerStudy) -> float:
    """The discount of the planner that learns, or what it would have."""
    learned = [b for b in config.policies.values() if isinstance(b, PlannerLearned)]
    hyperparams = learned[0].hyperparams if learned else SMDPHyperparams()
    return float(hyperparams.gamma)
