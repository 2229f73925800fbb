"""An environment of one's own as a study."""

from functools import partial
from pathlib import Path

from rich.console import Console

from rlli_jax.envs.contract import Env, PyTree, check_environment
from rlli_jax.envs.policy import random, totals
from rlli_jax.experiments.environment.config import EnvironmentStudy, RandomPolicy
from rlli_jax.experiments.study import Job, TrainedStudy

Problem = tuple[Env, PyTree]


class OwnEnvironment(TrainedStudy):
    """Policies are judged by their mean return."""

    def prepare(self, config: EnvironmentStudy, path: Path | None, console: Console) -> Problem:
        """The environment and its parameters."""
        env, params = config.environment.load()
        check_environment(env, params)
        return env, params

    def job(self, config: EnvironmentStudy, problem: Problem, name: str) -> Job:
        """Learned and judged in the same environment."""
        (env, params), block = problem, config.policies[name]
        judge = partial(totals, env, config.evaluation.episodes)
        if isinstance(block, RandomPolicy):
            return Job(params, params, judge, policy=random())
        return Job(
            params,
            params,
            judge,
            learner=partial(block.make, env),
            iterations=block.iterations,
            hyperparams=block.hyperparams,
            shape=(
                type(env),
                config.environment.make,
                repr(config.environment.arguments),
                config.evaluation.episodes,
            ),
        )


STUDY = OwnEnvironment()
