"""What policies are worth to people whom neither learners nor whatever was fitted had met."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rlli_jax.qoe import QoETable
from rlli_jax.run_files.selection import HeldOutUsers, Interval, Served
from rlli_jax.two_way import interval_over, two_way_bootstrap

FILE = "held_out_users.json"


def held_out_users(train: QoETable, others: QoETable, names: Iterable[str], path: Path) -> None:
    """Write ``held_out_users.json`` of a run directory whose policies are finished.

    Args:
        train: what learners saw; its best single provider is that of the file.
        others: QoE of the held-out users, by which choices are valued.
        names: of the policies.
        path: of the run directory.
    """
    values = others.provider_values  # [K', L]
    optimum = values.max(-1)
    single = int(train.provider_values.sum(0).argmax())
    found = {}
    for name in names:
        with np.load(path / "policies" / name / "evaluation.npz") as evaluation:
            found[name] = evaluation["others_qoe"]
    seeds = max((len(qoe) for qoe in found.values()), default=1)
    HeldOutUsers(
        users=len(others.users),
        requests=len(others.requests),
        best_single_provider=others.providers[single],
        references={
            "optimum": served(optimum[None], optimum),
            "best_single": served(values[None, :, single], optimum),
            "random": served(values.mean(-1)[None], optimum),
        },
        policies={name: served(qoe, optimum) for name, qoe in found.items()},
        over=interval_over(seeds, len(others.users), "people") or "",
    ).write(path / FILE)


def served(qoe: np.ndarray, optimum: np.ndarray) -> Served:
    """Mean QoE of people [seeds, K'], and its share of that of their optimum [K']."""
    best = np.broadcast_to(optimum, qoe.shape)
    share = two_way_bootstrap(lambda x, top: x / top, qoe, best)
    return Served(qoe=_interval(two_way_bootstrap(lambda x: x, qoe)), of_optimum=_interval(share))


def _interval(estimate: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Interval:
    value, low, high = (float(x) for x in estimate)
    return value, low, high
