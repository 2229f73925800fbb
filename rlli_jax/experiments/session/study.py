"""Sessions as a study: people to learn from, others to be judged by, and exact references.

The run directory holds, beside what all have, ``table.npz``, ``population.csv``,
``references.json`` and ``plans/`` (what language models named); see :mod:`rlli_jax.run_files`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.policy import Policy, random, round_robin, totals
from rlli_jax.envs.session import EnvParams, Session, make_params
from rlli_jax.envs.session import references as known
from rlli_jax.errors import InputError
from rlli_jax.experiments.kept_table import kept_table
from rlli_jax.experiments.plans import kept_plan
from rlli_jax.experiments.session.config import SessionBaseline, SessionStudy, SessionTold
from rlli_jax.experiments.sources import Parts
from rlli_jax.experiments.study import Arrays, Job, Told, TrainedStudy
from rlli_jax.experiments.training import on_host
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.planner import MadePlan
from rlli_jax.run_files.session import SessionReferences, SessionSummary
from rlli_jax.teaching.planner import Situations
from rlli_jax.teaching.session_words import by_plan, grade_bounds, session_situations


@dataclass(frozen=True)
class Problem:
    """What every policy of a study meets, on the host."""

    train: EnvParams  # people to learn from
    test: EnvParams  # others; what is believed of them was learned from the first
    references: SessionReferences
    told: Told
    plans: Mapping[str, MadePlan]  # of those who are told the last turns in words


def prepare(config: SessionStudy, path: Path | None, console: Console) -> Problem:
    """People, their split, and what sessions are worth; a run directory that has them is read.

    Raises:
        InputError: anything that is wrong with the files or numbers of the config.
    """

    def check(parts: Parts) -> None:
        """That people can be split, sessions be played, and models be told what they are asked."""
        table = parts.users.rehearsal()
        _params(config, table, parts.users.population)
        _told_in_words(config, table)

    table, people, *_ = kept_table(
        config.population, config.catalog, config.judge, path, console, check
    )
    problem = _params(config, table, people)
    file = None if path is None else path / "references.json"
    if file is not None and file.exists():
        found = SessionReferences.read(file)
    else:
        with console.status("working out the references"):
            found = _references(config, *problem)
        if file is not None:
            found.write(file)
    plans = _plans(config, table, path, console)
    return Problem(*problem, found, Told(table.judge, table.stand_in), plans)


def _params(
    config: SessionStudy, table: QoETable, people: Population
) -> tuple[EnvParams, EnvParams]:
    """Of the people to learn from, and of the others."""
    traits, block = people.traits, config.session
    try:
        test, train = table.split_users(block.held_out_users, block.split_seed)
    except InputError as error:
        raise InputError(f"session.held_out_users: {error}") from None

    def of(part: QoETable) -> EnvParams:
        places = [table.users.index(name) for name in part.users]
        own = None if traits is None else traits[places]
        made: EnvParams = on_host(make_params(part, own, known=train, **block.numbers()))
        return made

    return of(train), of(test)


def _told_in_words(config: SessionStudy, table: QoETable) -> dict[str, Situations]:
    """What each language model among the policies is asked."""
    found = {}
    for name, block in config.policies.items():
        if isinstance(block, SessionTold):
            try:
                found[name] = session_situations(table, block.remembered)
            except InputError as error:
                raise InputError(f"policies.{name}.{error}") from None
    return found


def _plans(
    config: SessionStudy, table: QoETable, path: Path | None, console: Console
) -> dict[str, MadePlan]:
    plans = {}
    for name, todo in _told_in_words(config, table).items():
        made = kept_plan(name, config.policies[name], todo, config.seed, path, console)
        assert made is not None  # all such blocks ask somebody
        plans[name] = made
    return plans


def _references(config: SessionStudy, train: EnvParams, test: EnvParams) -> SessionReferences:
    env, played = _env(config, test), jax.tree.map(jnp.asarray, test)
    key = jax.random.key(np.uint32(config.seed % 2**32))
    hindsight = known.hindsight(env, played, key, config.evaluation.episodes)
    return SessionReferences(
        turns=config.session.turns,
        people=(train.count.shape[0], test.count.shape[0]),
        random=known.uniform(env, test),
        best_without_adapting=known.plan(env, test).value,
        known_person=known.known_person(env, test),
        hindsight=hindsight.tolist(),
    )


def _env(config: SessionStudy, params: EnvParams, observation: Any = ("belief",)) -> Session:
    block = config.session
    return Session(params, turns=block.turns, window=block.satiation.turns, observation=observation)


class SessionsStudy(TrainedStudy):
    """One unknown person asks several times."""

    summary = SessionSummary

    def prepare(self, config: SessionStudy, path: Path | None, console: Console) -> Problem:
        """People and references."""
        return prepare(config, path, console)

    def job(self, config: SessionStudy, problem: Problem, name: str) -> Job:
        """Learned with some people, judged with others."""
        block, episodes = config.policies[name], config.evaluation.episodes
        seen: Any = getattr(block, "observation", ("belief",))
        env = _env(config, problem.train, seen)
        shared: dict[str, Any] = {
            "train": problem.train,
            "test": problem.test,
            "judge": partial(totals, env, episodes),
            "measure": partial(_measure, episodes),
        }
        if isinstance(block, SessionBaseline):
            return Job(
                policy=_baseline(block, env, problem.train), about={"observation": ()}, **shared
            )
        if isinstance(block, SessionTold):
            made, bounds = problem.plans[name], grade_bounds(problem.train.mean)
            policy = by_plan(np.asarray(made.plan, np.float32), bounds, block.remembered)
            about = {"observation": (), "remembered": block.remembered}
            about |= made.model_dump(exclude={"plan"})
            return Job(policy=policy, about=about, **shared)
        return Job(
            learner=partial(block.make, env),
            iterations=block.iterations,
            hyperparams=block.hyperparams,
            shape=(env.turns, env.window, env.observation, episodes),
            about={"observation": env.observation},
            **shared,
        )

    def references(self, problem: Problem) -> dict[str, float]:
        """Of the people of evaluation, a whole session each."""
        found = problem.references
        return {
            "hindsight": float(np.mean(found.hindsight)),
            "known_person": found.known_person,
            "best_without_adapting": found.best_without_adapting,
            "random": found.random,
        }

    def told(self, problem: Problem) -> Told:
        """Who judged."""
        return problem.told


STUDY = SessionsStudy()


def _measure(episodes: int, found: Arrays, params: EnvParams) -> Arrays:
    """Mean QoE expected in each turn; the objective is their sum, a session."""
    felt = found["felt"] / episodes
    return {"felt": felt, "objective": felt.sum(-1)}


def _baseline(block: SessionBaseline, env: Session, train: EnvParams) -> Policy:
    if block.learner == "random":
        return random()
    if block.learner == "round_robin":
        return round_robin()
    if block.learner == "best_fixed":
        return known.fixed(known.plan(env, train))
    return known.by_belief(env, sampling=block.learner == "belief_sampling")
