"""Total QoE in an edge market against the denoising steps that its providers share.

    python benchmarks/shared_steps.py

``configs/generate_market.yaml`` at every number of shared steps: pictures are generated anew, rated
by the judge (both stand-ins: random weights and the psychometric model), and every policy of the
study serves the same episodes of tasks, once by the scores of the pictures as they were made
(``scores``: made) and once by those of the pictures that share nothing (unshared), which tells what
saved steps bring from what they do to pictures. Prints and keeps, for each policy, the sum of QoE
over an episode's served tasks, its return, the denoising steps that sharing saved, and the tasks
that crashes lost, each as a mean over the episodes with its 95 % Student-t interval; ``more_qoe``
and ``gain`` are QoE and return less those without sharing, episode by episode.
"""

import argparse
import datetime
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
from rich.console import Console

from rlli_jax.experiments.market import study
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.market.study import Market
from rlli_jax.statistics import t_interval
from rlli_jax.studies import load_study

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "results" / "shared_steps.csv"


def prepared(shared: int, console: Console) -> tuple[MarketConfig, Market]:
    """The study with so many steps shared, and its market."""
    names = [p.name for p in load(()).catalog.generate.providers]
    changes = [f"catalog.generate.providers.{name}.shared_steps={shared}" for name in names]
    config = load(changes)
    return config, study.STUDY.prepare(config, None, console)


def played(config: MarketConfig, market: Market) -> dict[str, dict[str, np.ndarray]]:
    """By policy: sums over each episode, [E]."""
    found = {}
    for name in config.policies:
        job = study.STUDY.job(config, market, name)
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
    """Run and keep, beside what is kept of other numbers of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="*", default=list(range(9)))
    given = parser.parse_args()
    rows = [row for row in measure.read(FILE) if row["shared_steps"] not in given.steps]
    config, alone = prepared(0, Console())
    none = played(config, alone)
    for shared in given.steps:
        _, market = prepared(shared, Console())
        unshared = replace(market, params=market.params.replace(users=alone.params.users))
        for scores, table in (("made", market), ("unshared", unshared)):
            for name, sums in played(config, table).items():
                rows.append(row_of(name, scores, shared, sums, none[name]))
        rows.sort(key=lambda row: row["shared_steps"])
        measure.keep(rows, FILE)
    print(measure.table(rows))


def row_of(
    policy: str,
    scores: str,
    shared: int,
    sums: dict[str, np.ndarray],
    none: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Means over episodes with their intervals, as a line; ``none``: without sharing."""
    numbers = {
        "qoe": sums["qoe"],
        "more_qoe": sums["qoe"] - none["qoe"],
        "return": sums["returns"],
        "gain": sums["returns"] - none["returns"],
        "saved": sums.get("saved", np.zeros_like(sums["qoe"])),
        "lost": sums["lost"],
    }
    row: dict[str, Any] = {"policy": policy, "scores": scores, "shared_steps": shared}
    for key, values in numbers.items():
        estimate = t_interval(values)
        for end, value in zip(("", "_low", "_high"), estimate, strict=True):
            row[f"{key}{end}"] = round(float(value), 3)
    return row | {"date": f"{datetime.date.today()}"}


if __name__ == "__main__":
    main()
