"""Carry out a study of the edge market: train every policy, judge all on the same tasks.

The run directory holds, beside ``config.yaml`` and ``versions.json``::

    fleet.json         the providers            table.npz, population.csv   with personal QoE only
    references.json    {"split": "test" or "tuning", "optimum": return of each episode or null,
                        "tasks": served in each episode, "tasks_per_episode": expected}
    policies/<name>/summary.json     as in other studies, with "mask" and "reward"
    policies/<name>/curve.npz        policies that learn: env_steps [I], episode_return [seeds, I]
    policies/<name>/evaluation.npz   returns [seeds, E] and every sum of EdgeMarket.statistics
    checkpoints/
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress

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
from rlli_jax.envs.edge_market.observation import MarketObservationPart
from rlli_jax.envs.edge_market.optimum import offline_optimum
from rlli_jax.envs.edge_market.regret import RegretMarket
from rlli_jax.errors import InputError
from rlli_jax.experiments.market.config import (
    MarketConfig,
    MarketLearned,
    Rule,
)
from rlli_jax.experiments.market.episodes import Episodes, as_policy, gather, play_all
from rlli_jax.experiments.run_directory import write_json, write_npz
from rlli_jax.experiments.sources import judged
from rlli_jax.experiments.training import Checkpoints, policy_keys, train, training_progress
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable


@dataclass(frozen=True)
class Market:
    """What every policy of a study meets."""

    params: EnvParams
    queue: int
    episodes: Episodes  # E, for evaluation
    train_tasks: Any  # one episode of tasks, by which the best single provider is chosen

    def env(
        self, *, mask: bool, observation: Sequence[MarketObservationPart] = ("providers", "task")
    ) -> EdgeMarket:
        """The market as a policy sees it."""
        return EdgeMarket(self.params, mask=mask, queue=self.queue, observation=observation)


def prepare(config: MarketConfig, path: Path, console: Console) -> Market:
    """Fleet, users and the tasks of evaluation; a run directory that has them already is read.

    Raises:
        InputError: anything that is wrong with the fleet, the users or the market's numbers.
    """
    fleet = _fleet(config, path)
    users = _users(config, path, fleet, console) if config.personal else None
    try:
        people = 1 if users is None else users.count.shape[0]
        link = _link(config, people, len(fleet))
        params = make_params(fleet, users=users, link=link, **config.market.numbers())
    except InputError as error:
        raise InputError(f"market: {error}") from None
    # Arrays, not Python numbers: weak types would compile anew.
    params = jax.tree.map(jnp.asarray, params)
    env = EdgeMarket(params, queue=config.market.queue)
    split = _split(config, path)
    key_train, *keys = jax.random.split(jax.random.key(config.evaluation.seed), 3)
    key = keys[("tuning", "test").index(split)]
    drawn = [sample_tasks(key, params) for key in jax.random.split(key, config.evaluation.episodes)]
    market = Market(
        params, config.market.queue, gather(env, params, drawn), sample_tasks(key_train, params)
    )
    fleet.save(path / "fleet.json")
    if not (path / "references.json").exists():
        with console.status("finding the offline optimum"):
            optimum = (
                [offline_optimum(env, params, tasks).value for tasks in drawn]
                if config.evaluation.optimum
                else None
            )
        write_json(
            path / "references.json",
            {
                "split": split,
                "optimum": optimum,
                "tasks": np.asarray(market.episodes.decisions).tolist(),
                "tasks_per_episode": config.market.arrival_rate * config.market.horizon,
            },
        )
    return market


def _split(config: MarketConfig, path: Path) -> str:
    """The episodes that a run is judged by: those it began with.

    Runs that do not say were judged by what are the tuning episodes now.
    """
    file = path / "references.json"
    if not file.exists():
        return config.evaluation.split
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("split", "tuning"))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); start afresh with --overwrite."
        ) from None


def _fleet(config: MarketConfig, path: Path) -> Fleet:
    if (path / "fleet.json").exists():
        return load_fleet(path / "fleet.json")
    block = config.market.fleet
    if block.file is not None:
        return load_fleet(block.file)
    assert block.sample is not None  # the config says that one of the two is given
    return sample_fleet(block.sample.seed, block.sample.providers)


def _link(config: MarketConfig, users: int, providers: int) -> Link | None:
    block = config.market.link
    if block is None:
        return None
    distance = jnp.asarray(sample_distances(block.seed, users, providers, side=block.side))
    return Link(distance=distance, **block.model_dump(exclude={"seed", "side"}))


def _users(config: MarketConfig, path: Path, fleet: Fleet, console: Console) -> Any:
    """The oracle's table and its users, on the device."""
    if not (path / "table.npz").exists():
        assert config.catalog is not None
        assert config.judge is not None
        inquiry, table = judged(config.population, config.catalog, config.judge, console, path=path)
        if config.judge.on_missing == "impute":
            table = table.imputed()
        inquiry.population.select(table.users).to_csv(path / "population.csv")
        table.save(path / "table.npz")
    table = QoETable.load(path / "table.npz")
    if len(table.providers) != len(fleet):
        raise InputError(
            f"market.fleet has {len(fleet)} providers, but the judge rated pictures of "
            f"{len(table.providers)} ({', '.join(table.providers)}): give a fleet of as many"
        )
    drift = None if config.market.drift is None else Drift(**config.market.drift.model_dump())
    traits = Population.from_csv(path / "population.csv", traits=config.knows_traits).traits
    market = config.market
    try:
        return make_users(
            table, traits, user_mix=market.user_mix, request_mix=market.request_mix, drift=drift
        )
    except InputError as error:
        raise InputError(f"market: {error}") from None


def train_all(config: MarketConfig, path: Path, market: Market, console: Console) -> None:
    """Train and evaluate every policy that is not finished yet."""
    with training_progress(console) as progress:
        for name in config.policies:
            if not (path / "policies" / name / "summary.json").exists():
                _run_policy(name, config, path, market, progress)


def _run_policy(
    name: str, config: MarketConfig, path: Path, market: Market, progress: Progress
) -> None:
    """Train (if it learns), evaluate, and write the folder of one policy."""
    block = config.policies[name]
    folder = path / "policies" / name
    key_train, key_test = policy_keys(config.seed, name)
    keys_train = jax.random.split(key_train, config.seeds)
    keys_test = jax.random.split(key_test, config.seeds)
    summary: dict[str, Any] = {
        "name": name,
        "learner": block.learner,
        "observation": [],
        "mask": block.mask,
        "reward": "paid",
        "seeds": config.seeds,
        "iterations": None,
        "env_steps": None,
        "compile_seconds": None,
        "train_seconds": None,
        "steps_per_second": None,
    }
    total = block.iterations if isinstance(block, MarketLearned) else 1
    task = progress.add_task(name, total=total, note="")
    if isinstance(block, MarketLearned):
        result, curve, learned = _learn(
            block, config, Checkpoints(path / "checkpoints" / name), market, keys_train, keys_test,
            lambda done, note: progress.update(task, completed=done, note=note),
        )  # fmt: skip
    else:
        result, curve, learned = _follow(block, market, keys_test), None, {}
    if curve is not None:
        write_npz(folder / "curve.npz", curve)
    progress.update(task, completed=total, note=f"return {result['returns'].mean():.1f}")
    write_npz(folder / "evaluation.npz", result)
    # Last, because its presence says that the policy is finished.
    write_json(folder / "summary.json", summary | learned)


def _learn(
    block: MarketLearned,
    config: MarketConfig,
    checkpoints: Checkpoints,
    market: Market,
    keys_train: jax.Array,
    keys_test: jax.Array,
    tell: Callable[[int, str], None],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Train a learner on all seeds: its evaluation, its curve, and its part of the summary."""
    env = training = market.env(mask=block.mask, observation=block.observation)
    shift = 0.0
    if block.reward == "regret":
        training = regret = RegretMarket(
            market.params, mask=block.mask, queue=market.queue, observation=block.observation
        )
        shift = regret.mean_total(market.params)
    learner = block.make(training)

    def show(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
        recent = metrics["episode_return"][:, -10:] + shift
        tell(iteration, f"return {np.nanmean(recent):.1f}" if np.isfinite(recent).any() else "")

    trained = train(
        learner,
        block.hyperparams,
        market.params,
        keys_train,
        block.iterations,
        config.checkpoint_every,
        checkpoints,
        show,
    )

    @jax.jit
    @jax.vmap
    def judge(state: Any, key: jax.Array) -> dict[str, Any]:
        return play_all(env, market.params, market.episodes, learner.policy(state), key)

    steps = learner.env_steps * np.arange(1, block.iterations + 1)
    curve = {"env_steps": steps, **trained.metrics}
    curve["episode_return"] = curve["episode_return"] + np.float32(shift)
    learned = {
        "observation": list(env.observation),
        "reward": block.reward,
        "iterations": block.iterations,
        "env_steps": int(steps[-1]),
        "compile_seconds": trained.compile_seconds,
        "train_seconds": trained.train_seconds,
        "steps_per_second": int(steps[-1]) * len(keys_train) / trained.train_seconds,
    }
    return _numpy(judge(trained.state, keys_test)), curve, learned


def _follow(block: Rule, market: Market, keys: jax.Array) -> dict[str, np.ndarray]:
    """The evaluation of a policy that does not learn."""
    env, params = market.env(mask=block.mask), market.params
    if block.learner == "best_single":
        rule = references.single(references.best_single(env, params, market.train_tasks)[0])
    else:
        rule = getattr(references, block.learner)(env)
    policy = as_policy(rule)
    judge = jax.jit(jax.vmap(lambda key: play_all(env, params, market.episodes, policy, key)))
    return _numpy(judge(keys))


def _numpy(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in tree.items()}
