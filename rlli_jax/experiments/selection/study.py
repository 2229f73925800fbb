"""Provider selection as a study: the problem, and a job for each policy."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, evaluate, random, round_robin
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection, make_params, policies
from rlli_jax.experiments.selection import judging
from rlli_jax.experiments.selection.config import Reference, StudyConfig
from rlli_jax.experiments.selection.tables import Problem, build_problem
from rlli_jax.experiments.study import Arrays, Job, Told, TrainedStudy
from rlli_jax.feedback.of_table import personalising
from rlli_jax.judges import scale_of
from rlli_jax.run_files import Human, HumanReferences, SelectionSummary, write_json


class Selection(TrainedStudy):
    """Which provider should serve which user (RLLI, Section III)."""

    summary = SelectionSummary

    def prepare(self, config: StudyConfig, path: Path | None, console: Console) -> Problem:
        """The tables; a run directory that has them already is read."""
        return build_problem(config) if path is None else judging.judge(config, path, console)

    def decides(self, config: StudyConfig) -> str:
        """What decides the tables."""
        return config.model_dump_json(
            include={"population": True, "catalog": True, "judge": True, "table": True,
                     "evaluation": {"human"}}
        )  # fmt: skip

    def job(self, config: StudyConfig, problem: Problem, name: str) -> Job:
        """Learned policies play the requests of training, and are judged on the others."""
        block = config.policies[name]
        rounds, assignment = config.environment.rounds, config.environment.assignment
        train, test = _params(problem, rounds)
        env = ProviderSelection(train, assignment=assignment, observation=block.observation)
        episodes = config.evaluation.episodes
        shared: dict[str, Any] = {
            "train": train,
            "test": test,
            "judge": partial(_judge, env, episodes),
            "measure": _measure,
            "about": {"assignment": assignment, "observation": env.observation, "rounds": rounds},
        }
        if isinstance(block, Reference):
            return Job(policy=_reference(block, env, jax.tree.map(jnp.asarray, test)), **shared)
        return Job(
            learner=partial(block.make, env),
            iterations=block.iterations,
            hyperparams=block.hyperparams,
            shape=(assignment, block.observation, episodes),
            **shared,
        )

    def references(self, problem: Problem) -> dict[str, float]:
        """Of the evaluation requests."""
        values = problem.worth.references()
        return {
            "optimum": values["optimum"],
            "optimum_per_request": values["optimum_per_request"],
            "best_single": values["best_single"][1],
            "random": values["random"],
        }

    def told(self, problem: Problem) -> Told:
        """Who judged."""
        return Told(problem.table.judge, problem.table.stand_in)

    def conclude(self, config: StudyConfig, problem: Problem, path: Path) -> None:
        """What people think of the choices, and whether personalising is worth it at all."""
        human_opinion(config, path, problem)
        traits, file = problem.population.traits, path / "personalising.json"
        if traits is not None and not file.exists():
            write_json(file, personalising(problem.worth, traits))


STUDY = Selection()


@cache
def _params(problem: Problem, rounds: int) -> tuple[EnvParams, EnvParams]:
    """Of training and of evaluation, as NumPy; the same object if no requests are held out."""

    def of(table: Any, worth: Any) -> EnvParams:
        params = make_params(table, problem.population.traits, rounds=rounds, worth=worth)
        # Arrays, not Python numbers: weak types would compile anew. An int is an int32 there.
        return jax.tree.map(
            lambda x: np.asarray(x, np.int32 if isinstance(x, int) else None), params
        )

    train = of(problem.train, problem.train)
    same = problem.test is problem.train
    return train, train if same else of(problem.test, problem.worth)


def _judge(
    env: ProviderSelection, episodes: int, policy: Policy, key: Key, params: EnvParams
) -> dict[str, jax.Array]:
    result = evaluate(env, policy, key, params, episodes)
    return {"returns": result.returns, "choices": result.statistics["choices"]}


def _measure(found: Arrays, params: EnvParams) -> Arrays:
    """Expected QoE of each user under its choices, every request weighing alike."""
    qoe = expected_score(found["choices"], np.asarray(params.mean))
    return {"qoe": qoe.astype(np.float32), "objective": qoe.sum(-1).astype(np.float32)}


def _reference(block: Reference, env: ProviderSelection, test: EnvParams) -> Policy:
    """``optimal`` and ``best_single`` choose by the table of training, ``greedy`` by that of the
    requests at hand."""
    if block.learner == "random":
        return random()
    if block.learner == "round_robin":
        return round_robin()
    if block.learner == "greedy":
        return policies.greedy(env, test)
    make = policies.optimal if block.learner == "optimal" else policies.best_single
    return make(env, jax.tree.map(jnp.asarray, env.default_params))


def expected_score(choices: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mean score of what each user got: [seeds, K, R, L] counts, [K, R, L] -> [seeds, K].

    Within a request by how often a provider was chosen; requests weigh alike, as in Eq. (2),
    although chance draws some more often. A request that a user never met is left out.
    """
    met = choices.sum(-1)  # [seeds, K, R]
    within = (choices * score).sum(-1) / np.maximum(met, 1)
    return within.sum(-1) / (met > 0).sum(-1)


def human_opinion(config: StudyConfig, path: Path, problem: Problem) -> None:
    """Look up what people think of each policy's choices on the evaluation requests."""
    if problem.human is None:
        return
    block = config.evaluation.human
    assert block is not None  # the problem has human scores because the config names them
    scale = scale_of(block.scale)

    def opinion(qoe: Any) -> Any:
        return scale.low + (scale.high - scale.low) * np.asarray(qoe)

    scores, legal = problem.human.mean[0], problem.human.legal[0]  # [R, L]
    references = problem.human.references()
    policies = {}
    for name in config.policies:
        with np.load(path / "policies" / name / "evaluation.npz") as evaluation:
            score = expected_score(evaluation["choices"], np.where(legal, scores, 0)[None])
        policies[name] = opinion(score.mean(-1)).tolist()
    provider, single = references["best_single"]
    Human(
        scale=f"{scale.low:g} to {scale.high:g}",
        requests=len(problem.test.requests),
        references=HumanReferences(
            random=opinion(references["random"]),
            best_single=opinion(single),
            best_single_provider=provider,
            best_per_request=opinion(references["optimum_per_request"]),
        ),
        policies=policies,
    ).write(path / "human.json")
