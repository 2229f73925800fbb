"""Provider selection as a study: the problem, and a job for each policy."""

from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, evaluate, random, round_robin
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection, make_params, policies
from rlli_jax.envs.provider_selection.fresh_people import fresh_people
from rlli_jax.experiments.generated import generated, spared_parts
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.selection import judging
from rlli_jax.experiments.selection.config import Baseline, SelectionLearned, StudyConfig
from rlli_jax.experiments.selection.held_out_users import held_out_users
from rlli_jax.experiments.selection.tables import Problem, build_problem
from rlli_jax.experiments.selection.texts import texts
from rlli_jax.experiments.study import Arrays, Job, Offered, Told, TrainedStudy
from rlli_jax.feedback.of_table import personalising
from rlli_jax.judges import scale_of
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import QoEModel
from rlli_jax.run_files.selection import Human, HumanReferences, SelectionSummary


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
        params = _params(problem, rounds)
        train, played, about = params.train, params.played, {}
        if isinstance(block, Learned) and problem.model is not None:
            train = training_params(config, problem.train, None, problem.model)
        if isinstance(block, SelectionLearned) and "request_text" in block.observation:
            found = texts(problem.table.requests, problem.train.requests, block.text)
            train = train.replace(request_text=found.of(problem.train))
            test = found.of(problem.test)
            played = Played(
                played.users.replace(request_text=test),
                played.others and played.others.replace(request_text=test),
            )
            about["encoder"] = found.encoder
        env = ProviderSelection(train, assignment=assignment, observation=block.observation)
        episodes = config.evaluation.episodes
        shared: dict[str, Any] = {
            "train": train,
            "test": played,
            "measure": _measure,
            "about": {"assignment": assignment, "observation": env.observation, "rounds": rounds}
            | about,
        }
        if isinstance(block, Baseline):
            given = jax.tree.map(jnp.asarray, played)
            others = None if given.others is None else _baseline(block, env, given.others, True)
            policy = _baseline(block, env, given.users)
            return Job(policy=policy, judge=partial(_judge, env, episodes, others), **shared)
        return Job(
            judge=partial(_judge, env, episodes, None),
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

    def offered(self, problem: Problem) -> Offered:
        """The table that policies play."""
        table = problem.table
        shape = len(table.requests), len(table.providers)
        return Offered(table, spared_parts(generated(problem.catalog), shape))

    def conclude(self, config: StudyConfig, problem: Problem, path: Path) -> None:
        """What people think of the choices, and whether personalising is worth it at all."""
        human_opinion(config, path, problem)
        if problem.others is not None:
            held_out_users(problem.train, problem.others.table, config.policies, path)
        traits, file = problem.population.traits, path / "personalising.json"
        if traits is not None and not file.exists():
            personalising(problem.worth, traits).write(file)


STUDY = Selection()


class Played(NamedTuple):
    """What policies are judged on."""

    users: EnvParams  # of the table, on the requests of evaluation
    others: EnvParams | None  # held-out users, if there are any


class Params(NamedTuple):
    """Tables of a problem as parameters of the environment, of NumPy arrays."""

    train: EnvParams
    played: Played  # its users are the same object as ``train`` if no requests are held out


@cache
def _params(problem: Problem, rounds: int) -> Params:
    traits = problem.population.traits
    train = on_host(make_params(problem.train, traits, rounds=rounds))
    users, others = train, None
    if problem.test is not problem.train:
        users = on_host(make_params(problem.test, traits, rounds=rounds, worth=problem.worth))
    if problem.others is not None:
        people = problem.others.population.traits
        others = on_host(make_params(problem.others.table, people, rounds=rounds))
    return Params(train, Played(users, others))


def training_params(
    config: StudyConfig, train: QoETable, traits: np.ndarray | None, model: QoEModel | None
) -> EnvParams:
    """What policies learn on: the users of ``train``, or new people in every episode.

    Args:
        config: of the study.
        train: the requests that learners see.
        traits: of its users, [K, 5]; None if they are unknown.
        model: of the people who come instead, see :class:`Problem`.
    """
    rounds, fresh = config.environment.rounds, None
    if model is not None:
        assert config.population is not None
        assert config.population.sample is not None  # else nobody is drawn
        sample, traits = config.population.sample, None
        fresh = fresh_people(model, sample.group, sample.correlations)
    return on_host(make_params(train, traits, rounds=rounds, fresh=fresh))


def on_host(params: EnvParams) -> EnvParams:
    """As arrays, not Python numbers: weak types would compile anew. An int is an int32 there."""
    return jax.tree.map(lambda x: np.asarray(x, np.int32 if isinstance(x, int) else None), params)


def _judge(
    env: ProviderSelection,
    episodes: int,
    for_others: Policy | None,
    policy: Policy,
    key: Key,
    played: Played,
) -> dict[str, jax.Array]:
    """``for_others`` serves held-out users in place of ``policy``, if it is given."""
    result = evaluate(env, policy, key, played.users, episodes)
    found = {"returns": result.returns, "choices": result.statistics["choices"]}
    if played.others is not None:
        key = jax.random.fold_in(key, 1)
        result = evaluate(env, for_others or policy, key, played.others, episodes)
        found["others_choices"] = result.statistics["choices"]
    return found


def _measure(found: Arrays, played: Played) -> Arrays:
    """Expected QoE of each user under its choices, every request weighing alike."""

    def expected(choices: np.ndarray, params: EnvParams) -> np.ndarray:
        return expected_score(choices, np.asarray(params.mean)).astype(np.float32)

    qoe = expected(found["choices"], played.users)
    measured = {"qoe": qoe, "objective": qoe.sum(-1)}
    if played.others is not None:
        measured["others_qoe"] = expected(found["others_choices"], played.others)
    return measured


def _baseline(
    block: Baseline, env: ProviderSelection, played: EnvParams, others: bool = False
) -> Policy:
    """``optimal`` and ``best_single`` choose by the table of training, ``greedy`` by that of the
    requests at hand. Of ``others`` that table says nothing, so ``optimal`` knows their answers."""
    if block.learner == "random":
        return random()
    if block.learner == "round_robin":
        return round_robin()
    if block.learner == "greedy":
        return policies.greedy(env, played)
    train = jax.tree.map(jnp.asarray, env.default_params)
    if block.learner == "optimal":
        return policies.optimal(env, played if others else train)
    return policies.best_single(env, train)


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
