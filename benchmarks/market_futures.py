"""The Vine of a finished study, trying its best providers in sampled futures before each decision.

    python benchmarks/market_futures.py runs/market_learners/fleet-0 --futures 64 --seeds 1

Needs a run that benchmarks/market_learners.py or `rlli run configs/edge_market.yaml` finished. The
policy learned is taken from its checkpoint and judged on the tasks of that run, without and with
futures; prints and adds the returns of each seed to ``edge_market_futures.csv``.
"""

import argparse
import datetime
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
from rich.console import Console

from rlli_jax.envs.edge_market import EdgeMarket
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.market import study
from rlli_jax.experiments.market.config import MarketConfig, MarketLearned
from rlli_jax.experiments.market.episodes import play_all
from rlli_jax.experiments.training import Program, Shared, all_shared, of_seeds, policy_keys
from rlli_jax.learners.vine import vine
from rlli_jax.studies import load_study


def rows(path: Path, name: str, futures: int, seeds: int) -> list[dict[str, Any]]:
    """The returns of the policy ``name`` of a run, without and with futures, seed by seed."""
    config = load_study(path / "config.yaml")
    assert isinstance(config, MarketConfig)
    block = config.policies[name]
    assert isinstance(block, MarketLearned)
    market = study.prepare(config, path, Console())
    seen = {"mask": block.mask, "queue": market.queue, "observation": block.observation}
    env = EdgeMarket(market.params, **seen)
    learners = {n: vine(env, replace(block.config, futures=n)) for n in (0, futures)}
    keys, keys_test = (jax.random.split(k, config.seeds) for k in policy_keys(config.seed, name))
    hyperparams = replace(block.hyperparams, total_iterations=block.iterations)
    shared = Shared(all_shared(market.params))
    program = Program(learners[0], block.iterations, shared, jax.devices()[:1])
    content = program.content(of_seeds(keys, hyperparams, market.params), block.iterations)
    state = Checkpoints(path / "checkpoints" / name).restore(block.iterations, content)["state"]
    optimum = np.asarray(json.loads((path / "references.json").read_text())["optimum"])
    found = []
    for seed in range(seeds):
        learned = jax.tree.map(lambda x, seed=seed: x[seed], state)
        for count, learner in learners.items():
            policy = learner.policy(learned)
            play = jax.jit(
                lambda key, p=policy: play_all(env, market.params, market.episodes, p, key)
            )
            run = play.lower(keys_test[seed]).compile()
            start = time.perf_counter()
            played = jax.block_until_ready(run(keys_test[seed]))
            seconds = time.perf_counter() - start
            returns = np.asarray(played["returns"])
            row = {
                "run": path.name,
                "policy": name,
                "seed": seed,
                "futures": count,
                "return": round(float(returns.mean()), 2),
                "of_optimum": round(float((returns / optimum).mean()), 4),
                "ms_a_decision": round(1e3 * seconds / float(np.sum(played["tasks"])), 2),
                "cpu": measure.cpu(),
                "date": f"{datetime.date.today()}",
            }
            print(row, flush=True)
            found.append(row)
    return found


def main() -> None:
    """Run and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--policy", default="Vine", help="its name in the config")
    parser.add_argument("--futures", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1, help="the first ones of the run")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    kept = arguments.results / "edge_market_futures.csv"
    before = measure.read(kept)
    for path in arguments.runs:
        new = rows(path, arguments.policy, arguments.futures, arguments.seeds)
        before = [row for row in before if row["run"] != path.name] + new
    measure.keep(before, kept)


if __name__ == "__main__":
    main()
