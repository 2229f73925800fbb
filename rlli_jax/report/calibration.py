"""What people's scores bought: ``calibration.json`` of a run directory."""

from dataclasses import dataclass
from pathlib import Path

from rlli_jax.report.data import Run, optional, read, read_json

Interval = tuple[float, float, float]  # value, and the ends of its 95 % interval


@dataclass(frozen=True)
class Point:
    """Human QoE of the choices, by the number of requests with human scores."""

    requests: int
    value: Interval
    without_judges: Interval | None  # None where nobody scored


@dataclass(frozen=True)
class CalibrationView:
    """The section of the report, ready to print."""

    requests: int
    scores: int
    weights: dict[str, Interval]
    offsets: dict[str, Interval]
    curve: list[Point]


def load(run: Run) -> CalibrationView | None:
    """What the run directory says; None where it says nothing."""
    path = run.path / "calibration.json"
    return read(path, _view) if path.exists() else None


def _view(path: Path) -> CalibrationView:
    found = read_json(path)
    return CalibrationView(
        requests=int(found["requests"]),
        scores=int(found["scores"]),
        weights={str(name): _interval(x) for name, x in found["weights"].items()},
        offsets={str(name): _interval(x) for name, x in found["offsets"].items()},
        curve=[
            Point(
                int(point["requests"]),
                _interval(point["value"]),
                optional(_interval, point["without_judges"]),
            )
            for point in found["curve"]
        ],
    )


def _interval(numbers: list[float]) -> Interval:
    value, low, high = map(float, numbers)
    return value, low, high
