"""What people think of the pictures that judges' scores choose, on AGIQA-3K.

    python benchmarks/agiqa3k_choices.py --output results/

200 requests, 10 providers, five vision-language models as judges; human scores (0-5) are the mean
of the two mean opinion scores of a picture, quality and alignment. Two tables are printed and
written as CSV:

- ``choices.csv``: the human score of the choices made from raw, standardised, pooled, shrunk and
  calibrated scores. The requests are split into halves at random, 40 times, and choices are valued
  on one half. Methods without people's scores see the judges' scores of that half and no human
  score at all; those with people's scores see them on the other half only.
- ``curve.csv``: the human score of the choices on the other requests, by the number of requests
  with human scores (200 random draws of them).

The method without people's scores was not chosen blind: human scores were at hand when it was
written, though variances are always estimated and never tuned by them. Other ways to shrink pooled
judges, tried on all requests, gave 3.21 to 3.32: judges shrunk one by one (a row of the table), the
same in log-odds (a row, for the final method), judges as repeats of one user, and weights from a
one-factor model; and 3.49 for raw probabilities as repeats, where the variance of pictures comes
out negative and nothing but provider means is left. Calibration with shrunk instead of fixed
provider offsets gave about 3.46 at 20 requests.

On these data people's scores alone (the provider with the best mean) choose better than judges
calibrated by them: one provider is best for most requests, even the best choice for each request
gains only 0.1 on it, and judges tell its good pictures from its bad ones poorly.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import logit

from rlli_jax.catalog import Catalog
from rlli_jax.judges import named_scale
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.oracle import ask, build_questions
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.calibration import (
    CurvePoint,
    calibrate,
    calibration_curve,
    human_scores,
    value_of_choices,
)
from rlli_jax.qoe.reliability import pool, reliability, shrink

DATA = Path(__file__).parents[2] / "shared" / "data" / "agiqa3k"
SPLITS = 40
DRAWS = 200
SIZES = (0, 2, 3, 5, 10, 20, 50, 100)
HUMAN_SCALE = 5.0


class Row(NamedTuple):
    """Human score (0-5) of one method's choices."""

    method: str
    people: bool  # does it use human scores (of the other half)?
    score: float  # mean over the splits
    low: float  # central 95 % over the splits
    high: float


def load(data: Path) -> tuple[QoETable, np.ndarray]:
    """The judges' table [5, 200, 10, 1] and the human QoE [200, 10], NaN where no picture is."""
    catalog = Catalog.from_manifest(data / "images.csv", pictures=False)
    scale = named_scale("good-poor")
    recorded = RecordedJudge.from_file(
        data / "judge_logits.csv", catalog, scale=scale, columns={"user": "judge"}
    )
    people = recorded.population()
    judges = QoETable.from_answers(
        ask(recorded, build_questions(people, catalog, scale)),
        population=people,
        catalog=catalog,
        scale=scale,
        judge=recorded.identity,
    )
    human = RecordedJudge.from_file(
        data / "images.csv",
        catalog,
        scale=named_scale("0-5"),
        columns={"score": ["mos_quality", "mos_align"]},
        user="human",
    )
    return judges, human_scores(human, judges)


def choices(judges: QoETable, human: np.ndarray, *, splits: int = SPLITS) -> list[Row]:
    """Value every method's choices on one half of the requests, over random splits."""
    values: dict[tuple[str, bool], list[float]] = {}
    for seed in range(splits):
        other, half = judges.split_requests(0.5, seed)
        for (method, people), value in _values(half, other, judges, human).items():
            values.setdefault((method, people), []).append(HUMAN_SCALE * value)
    rows = []
    for (method, people), scores in values.items():
        low, high = np.percentile(scores, [2.5, 97.5])
        rows.append(Row(method, people, float(np.mean(scores)), float(low), float(high)))
    return rows


def _values(
    half: QoETable, other: QoETable, judges: QoETable, human: np.ndarray
) -> dict[tuple[str, bool], float]:
    """(method, does it use people's scores) -> human QoE of its choices on ``half``."""
    here = human[np.isin(judges.requests, half.requests)]
    elsewhere = np.where(np.isin(judges.requests, other.requests)[:, None], human, np.nan)

    def mean(table: QoETable) -> float:
        return float(value_of_choices(table, here).mean())

    def each(table: QoETable, how: str) -> dict[tuple[str, bool], float]:
        value = value_of_choices(table, here).mean(1)
        return {
            (f"{name}, {how}", False): float(v) for name, v in zip(table.users, value, strict=True)
        }

    def one_user(qoe: np.ndarray, name: str) -> QoETable:
        return QoETable(
            qoe=np.where(half.legal[:1], qoe, 0)[..., None],
            valid=half.legal[:1, ..., None],
            users=(name,),
            requests=half.requests,
            providers=half.providers,
            judge=name,
            stand_in=False,
        )

    even = half.standardised()
    # Intervals are not used here, so one resample is enough.
    calibrated = calibrate(judges, elsewhere, resamples=1).table.select(requests=half.requests)
    provider_means = np.broadcast_to(np.nanmean(elsewhere, 0), half.mean[:1].shape)
    return {
        ("random provider", False): float(np.nanmean(here, 1).mean()),
        **each(half, "raw"),
        **each(even, "standardised"),
        **each(shrink(even), "standardised and shrunk"),
        ("mean of raw judges", False): mean(one_user(half.mean.mean(0, keepdims=True), "mean")),
        ("pooled", False): mean(pool(half)),
        ("mean of shrunk judges", False): mean(
            one_user(shrink(even).mean.mean(0, keepdims=True), "mean")
        ),
        ("pooled and shrunk", False): mean(pool(half, shrunk=True)),
        ("pooled and shrunk log-odds", False): mean(pool(_log_odds(half), shrunk=True)),
        ("provider means of people's scores", True): mean(one_user(provider_means, "people")),
        ("calibrated by people's scores", True): mean(calibrated),
        ("limit: people's best for each request", True): float(np.nanmax(here, 1).mean()),
    }


def _log_odds(table: QoETable) -> QoETable:
    """The table in log-odds, moved and stretched into [0, 1], which standardising undoes."""
    odds = logit(np.clip(table.qoe.astype(np.float64), 1e-6, 1 - 1e-6))
    return replace(table, qoe=(odds - odds.min()) / np.ptp(odds))


def table_rows(rows: list[Row]) -> list[tuple[object, ...]]:
    """Rows as cells for CSV."""
    return [
        (r.method, "yes" if r.people else "no", f"{r.score:.3f}", f"{r.low:.3f}", f"{r.high:.3f}")
        for r in rows
    ]


def curve_rows(points: list[CurvePoint]) -> list[tuple[object, ...]]:
    """Points of the curve as cells for CSV, in human scores."""
    return [
        (
            point.requests,
            f"{point.scores:.0f}",
            *(
                "" if np.isnan(x) else f"{HUMAN_SCALE * x:.3f}"
                for x in (*point.value, *point.without_judges)
            ),
        )
        for point in points
    ]


def _show(path: Path, title: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Print a table and write it as CSV."""
    table = Table(title=title)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=120).print(table)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    """Print and write both tables."""
    parser = argparse.ArgumentParser(description="Human scores of the choices that judges make.")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of AGIQA-3K")
    parser.add_argument("--output", type=Path, required=True, help="folder for the CSV files")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    judges, human = load(arguments.data)
    print(reliability(judges))
    _show(
        arguments.output / "choices.csv",
        f"Human score (0-5) of choices, mean and central 95 % of {SPLITS} random halves",
        ("method", "people", "score", "low", "high"),
        table_rows(choices(judges, human, splits=SPLITS)),
    )
    _show(
        arguments.output / "curve.csv",
        f"Human score (0-5) on the other requests, mean and central 95 % of {DRAWS} draws",
        (
            "requests",
            "scores",
            "calibrated",
            "calibrated low",
            "calibrated high",
            "people alone",
            "people low",
            "people high",
        ),
        curve_rows(calibration_curve(judges, human, SIZES, draws=DRAWS)),
    )
    print(calibrate(judges, human))


if __name__ == "__main__":
    main()
