"""The edge market as a study: every policy learns in one market and is judged on the same tasks.

The run directory holds, beside what all have, ``fleet.json``, the providers, and with personal QoE
``table.npz`` and ``population.csv``; see :mod:`rlli_jax.run_files`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.envs.contract import Key
from rlli_jax.envs.edge_market import (
    Drift,
    EdgeMarket,
    EnvParams,
    Fleet,
    Link,
    load_fleet,
    make_params,
    make_users,
    references,
    sample_distances,
    sample_fleet,
    sample_tasks,
)
from rlli_jax.envs.edge_market.optimum import offline_optimum
from rlli_jax.envs.edge_market.regret import RegretMarket
from rlli_jax.envs.policy import Policy
from rlli_jax.errors import InputError
from rlli_jax.experiments.generated import generated, spared_parts
from rlli_jax.experiments.kept_table import kept_table
from rlli_jax.experiments.market.config import MarketBaseline, MarketConfig
from rlli_jax.experiments.market.episodes import Episodes, gather, play_episodes, policy_of
from rlli_jax.experiments.sources import Parts
from rlli_jax.experiments.study import Job, Offered, Told, TrainedStudy
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.generated import GeneratedPictures
from rlli_jax.run_files.market import MarketReferences, MarketSummary


@dataclass(frozen=True)
class Market:
    """What every policy of a study meets."""

    params: EnvParams
    queue: int
    episodes: Episodes  # E, for evaluation
    train_tasks: Any  # one episode of tasks, by which the best single provider is chosen
    optimum: float | None  # mean over the episodes of the offline optimum
    offered: Offered | None  # of users with personal QoE


def market_params(
    config: Any,
    path: Path | None,
    console: Console,
    check: Callable[[EnvParams, Fleet], None] = lambda params, fleet: None,
) -> tuple[EnvParams, Fleet, QoETable | None]:
    """The numbers of a market, its fleet, and the table that the users' QoE comes from.

    Args:
        config: a block with ``market``, ``population``, ``catalog`` and ``judge``.
        path: of the run directory.
        console: shows how far it is.
        check: what else can be wrong, before the judge is asked.

    Raises:
        InputError: anything that is wrong with the fleet, the users or the market's numbers.
    """
    fleet = _fleet(config, path)
    table, traits, shared = None, None, None
    if config.catalog is not None and config.judge is not None:

        def rehearse(parts: Parts) -> None:
            """That fleet, users and the market's numbers fit each other."""
            inquiry = parts.users
            made = _shared(generated(inquiry.catalog), inquiry.catalog)
            told = _params(config, fleet, inquiry.rehearsal(), inquiry.population.traits, made)
            check(told, fleet)

        table, people, made, _ = kept_table(
            config.population, config.catalog, config.judge, path, console, rehearse
        )
        traits, shared = people.traits, _shared(made, table)
    params = _params(config, fleet, table, traits, shared)
    check(params, fleet)
    return params, fleet, table


def prepare(config: MarketConfig, path: Path | None, console: Console) -> Market:
    """Fleet, users and the tasks of evaluation; a run directory that has them already is read.

    Raises:
        InputError: anything that is wrong with the fleet, the users or the market's numbers.
    """

    def check(params: EnvParams, fleet: Fleet) -> None:
        if config.evaluation.optimum and (params.shared is not None or fleet.pace is not None):
            raise InputError(
                "evaluation.optimum: there is none where denoising steps are shared or providers "
                "differ in pace; set it to false"
            )

    params, fleet, table = market_params(config, path, console, check)
    env = EdgeMarket(params, queue=config.market.queue)
    split = _split(config, path)
    key_train, *keys = jax.random.split(jax.random.key(config.evaluation.seed), 3)
    key = keys[("tuning", "test").index(split)]
    drawn = [sample_tasks(key, params) for key in jax.random.split(key, config.evaluation.episodes)]
    episodes = gather(env, params, drawn)
    file = None if path is None else path / "references.json"
    if file is not None and file.exists():
        known = MarketReferences.read(file)
    else:
        with console.status("finding the offline optimum"):
            known = MarketReferences(
                split=split,
                optimum=[offline_optimum(env, params, tasks).value for tasks in drawn]
                if config.evaluation.optimum
                else None,
                tasks=np.asarray(episodes.decisions).tolist(),
                tasks_per_episode=config.market.arrival_rate * config.market.horizon,
            )
    if path is not None and file is not None and not file.exists():
        fleet.save(path / "fleet.json")
        known.write(file)
    spared = None if params.shared is None else np.asarray(params.shared)
    return Market(
        params,
        config.market.queue,
        episodes,
        sample_tasks(key_train, params),
        None if known.optimum is None else float(np.mean(known.optimum)),
        None if table is None else Offered(table, spared),
    )


def _split(config: MarketConfig, path: Path | None) -> str:
    """The episodes that a run is judged by: those it began with."""
    if path is None or not (path / "references.json").exists():
        return config.evaluation.split
    return MarketReferences.read(path / "references.json").split


def _fleet(config: Any, path: Path | None) -> Fleet:
    if path is not None and (path / "fleet.json").exists():
        return load_fleet(path / "fleet.json")
    block = config.market.fleet
    if block.file is not None:
        return load_fleet(block.file)
    assert block.sample is not None  # the config says that one of the two is given
    return sample_fleet(block.sample.seed, block.sample.providers)


def _link(config: Any, users: int, providers: int) -> Link | None:
    block = config.market.link
    if block is None:
        return None
    distance = jnp.asarray(sample_distances(block.seed, users, providers, side=block.side))
    return Link(distance=distance, **block.model_dump(exclude={"seed", "side"}))


def _shared(made: GeneratedPictures | None, of: QoETable | Catalog) -> np.ndarray | None:
    """The parts of denoising steps that sharing them among requests spares providers."""
    return spared_parts(made, (len(of.requests), len(of.providers)))


def _params(
    config: Any,
    fleet: Fleet,
    table: QoETable | None,
    traits: np.ndarray | None,
    shared: np.ndarray | None,
) -> EnvParams:
    """The market on the device."""
    users = None if table is None else _users(config, fleet, table, traits)
    people = 1 if users is None else users.count.shape[0]
    try:
        link = _link(config, people, len(fleet))
        numbers = config.market.numbers()
        params = make_params(fleet, users=users, link=link, shared=shared, **numbers)
    except InputError as error:
        raise InputError(f"market: {error}") from None
    # Arrays, not Python numbers: weak types would compile anew.
    return jax.tree.map(jnp.asarray, params)


def _users(config: Any, fleet: Fleet, table: QoETable, traits: np.ndarray | None) -> Any:
    """The users of a table on the device."""
    if len(table.providers) != len(fleet):
        raise InputError(
            f"market.fleet has {len(fleet)} providers, but the judge rated pictures of "
            f"{len(table.providers)} ({', '.join(table.providers)}): give a fleet of as many"
        )
    drift = None if config.market.drift is None else Drift(**config.market.drift.model_dump())
    mixes: dict[str, Any] = {
        "user_mix": config.market.user_mix,
        "request_mix": config.market.request_mix,
    }
    try:
        return make_users(table, traits, drift=drift, **mixes)
    except InputError as error:
        raise InputError(f"market: {error}") from None


class EdgeMarketStudy(TrainedStudy):
    """Which provider should serve each arriving task."""

    summary = MarketSummary

    def prepare(self, config: MarketConfig, path: Path | None, console: Console) -> Market:
        """Fleet, users and tasks."""
        return prepare(config, path, console)

    def job(self, config: MarketConfig, problem: Market, name: str) -> Job:
        """All policies are judged on the same episodes of tasks, by what was paid."""
        block, params = config.policies[name], problem.params
        given: dict[str, Any] = {"mask": block.mask, "queue": problem.queue}
        if not isinstance(block, MarketBaseline):
            given["observation"] = block.observation
        env = EdgeMarket(params, **given)
        about = {"mask": block.mask, "observation": (), "reward": "paid"}
        shape = block.mask, problem.queue, env.observation, env.slots
        tests, judge = (params, problem.episodes), partial(_judge, env)
        if isinstance(block, MarketBaseline):
            policy = policy_of(_baseline(block, env, problem))
            return Job(params, tests, judge, policy=policy, about=about)
        training, shift = env, 0.0
        if block.reward == "regret":
            training = regret = RegretMarket(params, **given)
            shift = regret.mean_total(params)
        return Job(
            params,
            tests,
            judge,
            learner=partial(block.make, training),
            iterations=block.iterations,
            hyperparams=block.hyperparams,
            shape=(*shape, block.reward),
            shift=shift,
            about=about | {"observation": env.observation, "reward": block.reward},
        )

    def references(self, problem: Market) -> dict[str, float]:
        """The offline optimum, if it was found."""
        return {} if problem.optimum is None else {"optimum": problem.optimum}

    def told(self, problem: Market) -> Told:
        """Who judged the pictures."""
        table = problem.offered and problem.offered.table
        return Told(table.judge, table.stand_in) if table else Told()

    def offered(self, problem: Market) -> Offered | None:
        """The users' table."""
        return problem.offered


STUDY = EdgeMarketStudy()


def _judge(
    env: EdgeMarket, policy: Policy, key: Key, played: tuple[EnvParams, Episodes]
) -> dict[str, jax.Array]:
    return play_episodes(env, *played, policy, key)


def _baseline(block: MarketBaseline, env: EdgeMarket, market: Market) -> Any:
    if block.learner == "best_single":
        best, *_ = references.best_single(env, market.params, market.train_tasks)
        return references.single(best)
    return getattr(references, block.learner)(env)
