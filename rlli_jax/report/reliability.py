"""How far scores can be trusted: ``reliability.json`` of a run directory, in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.report.labels import conjunction, number, percent
from rlli_jax.report.run import RunDirectory
from rlli_jax.report.section import of_file
from rlli_jax.run_files.answers import ReliabilityFile, ScaleRecord

MAX_USERS = 10  # whose use of the scale is listed one by one


@dataclass(frozen=True)
class ReliabilityView:
    """The section of the report, ready to print."""

    measures: list[tuple[str, str]]
    scale: list[tuple[str, ScaleRecord]]
    processing: str  # what was done to the table before anything learned from it


def view(path: Path, run: RunDirectory) -> ReliabilityView:
    """What the run directory says of it. Raises InputError."""
    found = ReliabilityFile.read(path)
    uses = list(found.scale_use.items())
    if len(uses) > MAX_USERS:
        parts = ScaleRecord.model_fields
        middle = {part: float(np.median([getattr(use, part) for _, use in uses])) for part in parts}
        uses = [(f"Median of {len(uses)} users", ScaleRecord(**middle))]
    return ReliabilityView(_measures(found), uses, _processing(run.config.get("table") or {}))


def _measures(found: ReliabilityFile) -> list[tuple[str, str]]:
    ratings, missing, imputed = found.ratings, found.missing, found.imputed
    rows = [("Ratings", f"{ratings:,}"), ("Questions without a rating", "none")]
    if missing:
        done = (
            f"{imputed:,} filled with the provider's mean, {missing - imputed:,} left out"
            if imputed
            else "left out"
        )
        share = percent(missing / (ratings + missing))
        rows[-1] = (rows[-1][0], f"{missing:,} of {ratings + missing:,} ({share}): {done}")
    rows.append(("Probability on the scale's labels", number(found.valid_mass, 3)))
    repeats = (
        "each question was asked once: noise shows only as disagreement between users"
        if found.repeat_sd is None
        else f"standard deviation {number(found.repeat_sd, 3)}, {_icc(found.repeats)}"
    )
    rows.append(("Repeats of a question", repeats))
    if found.agreement is not None:
        agreement = f"mean correlation {number(found.agreement, 2)}, {_icc(found.users)}"
        rows.append(("Agreement between users", agreement))
    shares = [f"{_effect(name)} {percent(share)}" for name, share in found.variance.items()]
    rows.append(("Where the variance of an answer lies", conjunction(shares)))
    return rows


def _icc(pair: tuple[float | None, float | None]) -> str:
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


SECTION = of_file("reliability", "reliability.json", view)
