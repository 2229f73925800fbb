"""How far scores can be trusted: ``reliability.json`` of a run directory, in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlli_jax.report.data import Run, read, read_json
from rlli_jax.report.labels import conjunction, number, percent

MAX_USERS = 10  # whose use of the scale is listed one by one


@dataclass(frozen=True)
class ScaleRow:
    """How much of the scale one user's ratings use, as QoE in [0, 1]."""

    user: str
    mean: float
    low: float  # 5th percentile
    high: float  # 95th percentile
    entropy: float  # of ten equal bins, over its maximum


@dataclass(frozen=True)
class ReliabilityView:
    """The section of the report, ready to print."""

    measures: list[tuple[str, str]]
    scale: list[ScaleRow]
    processing: str  # what was done to the table before anything learned from it


def load(run: Run) -> ReliabilityView | None:
    """What the run directory says; None where it says nothing."""
    path = run.path / "reliability.json"
    if not path.exists():
        return None
    processing = _processing(yaml.safe_load(run.config).get("table") or {})
    return read(path, lambda file: _view(file, processing))


def _view(path: Path, processing: str) -> ReliabilityView:
    found = read_json(path)
    uses = [ScaleRow(name, **use) for name, use in found["scale_use"].items()]
    if len(uses) > MAX_USERS:
        middle = np.median([(u.mean, u.low, u.high, u.entropy) for u in uses], axis=0)
        uses = [ScaleRow(f"Median of {len(uses)} users", *map(float, middle))]
    return ReliabilityView(_measures(found), uses, processing)


def _measures(found: dict[str, Any]) -> list[tuple[str, str]]:
    ratings, missing, imputed = (int(found[key]) for key in ("ratings", "missing", "imputed"))
    rows = [("Ratings", f"{ratings:,}"), ("Questions without a rating", "none")]
    if missing:
        done = (
            f"{imputed:,} filled with the provider's mean, {missing - imputed:,} left out"
            if imputed
            else "left out"
        )
        share = percent(missing / (ratings + missing))
        rows[-1] = (rows[-1][0], f"{missing:,} of {ratings + missing:,} ({share}): {done}")
    rows.append(("Probability on the scale's labels", number(found["valid_mass"], 3)))
    repeats = (
        "each question was asked once: noise shows only as disagreement between users"
        if found["repeat_sd"] is None
        else f"standard deviation {number(found['repeat_sd'], 3)}, {_icc(found['repeats'])}"
    )
    rows.append(("Repeats of a question", repeats))
    if found["agreement"] is not None:
        agreement = f"mean correlation {number(found['agreement'], 2)}, {_icc(found['users'])}"
        rows.append(("Agreement between users", agreement))
    shares = [f"{_effect(name)} {percent(share)}" for name, share in found["variance"].items()]
    rows.append(("Where the variance of an answer lies", conjunction(shares)))
    return rows


def _icc(pair: list[float | None]) -> str:
    single, average = (float("nan") if value is None else value for value in pair)
    return f"ICC(1) {number(single, 2)}, ICC(1,k) {number(average, 2)}"


def _effect(name: str) -> str:
    return "rest" if name == "residual" else name.replace(":", " × ")


def _processing(block: dict[str, Any]) -> str:
    done = []
    if block.get("calibrate"):
        done.append("calibrated by people's scores (see below)")
    if block.get("standardise"):
        done.append("standardised (every user's level and spread removed)")
    if block.get("shrink"):
        done.append("shrunk (noisy cells drawn toward means of user, request and provider)")
    if not done:
        return "Learners got the scores as they were given."
    return f"The table that learners got was {conjunction(done)}. The measures are from before."
