"""Total QoE in an edge market against the denoising steps that its providers share.

    python benchmarks/shared_steps.py

``configs/generate_market.yaml`` at every number of shared steps: pictures are generated anew, rated
by the judge (both stand-ins: random weights and the psychometric model), and every policy of the
study serves the same episodes of tasks. Prints and keeps, for each policy, the sum of QoE over an
episode's served tasks, its return, the denoising steps that sharing saved, and the tasks that
crashes lost, each as a mean over the episodes with its 95 % Student-t interval; ``gain`` is the
return less that without sharing, episode by episode.
"""

import argparse
import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
from rich.console import Console

from rlli_jax.experiments.market import study
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.statistics import t_interval
from rlli_jax.studies import load_study

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "results" / "shared_steps.csv"


def played(shared: int, console: Console) -> dict[str, dict[str, np.ndarray]]:
    """By policy: sums over each episode, [E]."""
    names = [p.name for p in load(()).catalog.generate.providers]
    changes = [f"catalog.generate.providers.{name}.shared_steps={shared}" for name in names]
    config = load(changes)
    problem = study.STUDY.prepare(config, None, console)
    found = {}
    for name in config.policies:
        job = study.STUDY.job(config, problem, name)
        judge = jax.jit(partial(job.judge, job.policy))
        sums = judge(jax.random.key(0), job.test)
        found[name] = {k: np.asarray(v, np.float64) for k, v in sums.items()}
    return found


def load(changes: Any) -> MarketConfig:
    """The study. InputError for a mistake in it."""
    config = load_study(ROOT / "configs" / "generate_market.yaml", changes)
    assert isinstance(config, MarketConfig)
    return config


def main() -> None:
    """Run and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="*", default=list(range(9)))
    given = parser.parse_args()
    rows, first = [], None
    for shared in given.steps:
        sums = played(shared, Console())
        first = first or sums
        for name, of in sums.items():
            row: dict[str, Any] = {"policy": name, "shared_steps": shared}
            numbers = {
                "qoe": of["qoe"],
                "return": of["returns"],
                "gain": of["returns"] - first[name]["returns"],
                "saved": of.get("saved", np.zeros_like(of["qoe"])),
                "lost": of["lost"],
            }
            for key, values in numbers.items():
                estimate = t_interval(values)
                row |= {
                    key: round(float(estimate.value), 3),
                    f"{key}_low": round(float(estimate.low), 3),
                    f"{key}_high": round(float(estimate.high), 3),
                }
            rows.append(row | {"date": f"{datetime.date.today()}"})
    print(measure.table(rows))
    measure.keep(rows, FILE)


if __name__ == "__main__":
    main()
