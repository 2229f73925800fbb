"""A finished sweep as its directory holds it, for its report.

``sweep.nc`` is told in ``rlli_jax/experiments/sweeps/results.py``.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rlli_jax.checking import owner
from rlli_jax.errors import InputError
from rlli_jax.report.labels import digits_for, number, percent_interval
from rlli_jax.report.run import RunDirectory, opened, read_config, require
from rlli_jax.run_files import Array, read
from rlli_jax.statistics import Estimate, bootstrap_iqm, within

MAX_LEVELS = 12  # values of a key that are shown one by one; more numbers are put into bins
BINS = 6
RESAMPLES = 2000


@dataclass(frozen=True)
class Level:
    """One value of a key, or one bin of its values."""

    label: str
    x: float  # the value if it is a number (of a bin: the median), else its position
    points: Array  # indices of the points that have it


@dataclass(frozen=True)
class Key:
    """A swept key."""

    path: str  # in the config, or the name of its coordinate (``study.seed``)
    name: str  # the shortest end of the path that no other key shares
    policies: tuple[str, ...] | None  # those that it can matter to; None: all
    values: Array  # [points], numbers or text
    levels: tuple[Level, ...]

    @property
    def numeric(self) -> bool:
        return self.values.dtype.kind in "if"

    @property
    def binned(self) -> bool:
        return len(np.unique(self.values)) > len(self.levels)

    @property
    def first(self) -> Level:
        """What the others are compared with: the first value given, of bins the lowest."""
        return next(level for level in self.levels if self.binned or 0 in level.points)


@dataclass(frozen=True, kw_only=True)
class SweepRun(RunDirectory):
    """A finished sweep, as its directory holds it."""

    data: xr.Dataset
    keys: tuple[Key, ...]
    _known: dict[Any, Estimate] = field(default_factory=dict, repr=False, compare=False)

    @property
    def title(self) -> str:
        """That of the study."""
        return str(self.data.attrs["title"])

    @property
    def kind(self) -> str:
        """Of the study that was swept."""
        return str(self.data.attrs.get("kind", "selection"))

    @property
    def command(self) -> str:
        """What repeats the sweep, from the folder that holds its directory."""
        folder, other = shlex.quote(self.name), shlex.quote(f"{self.name}-again")
        return (
            f"(cat {folder}/config.yaml; echo sweep:; sed 's/^/  /' {folder}/sweep.yaml) > "
            f"again.yaml\nrlli sweep again.yaml --output {other}"
        )

    @property
    def varied(self) -> list[Key]:
        """The keys that have several values."""
        return [key for key in self.keys if len(key.levels) > 1]

    @property
    def compared(self) -> str:
        """The variable by which runs are compared: ``ratio``, or ``objective`` if there is none."""
        return str(self.data.attrs.get("compared", "ratio"))

    @property
    def scale(self) -> float:
        """What values are shown times: 100 for percent."""
        return 100.0 if self.compared == "ratio" else 1.0

    @property
    def measure(self) -> str:
        """What is compared, in words."""
        return "Share of the optimum" if self.compared == "ratio" else "Mean return"

    @property
    def objective(self) -> str:
        """What is compared where no optimum is known, in words."""
        return str(self.data.attrs.get("objective", "mean return of the evaluation episodes"))

    def iqm(self, policy: str) -> Array:
        """Interquartile mean over seeds of each point."""
        values: Array = self.data[f"{self.compared}_iqm"].sel(policy=policy).values
        return values

    def shown(self, estimate: Estimate, name: str = "") -> str:
        """An estimate as it is printed, its interval named if asked."""
        if self.compared == "ratio":
            return percent_interval(estimate, name)
        digits = digits_for(float(np.abs(self.data["objective"]).max()))
        value, low, high = (number(float(x), digits) for x in estimate)
        return f"{value} ({name}{low} to {high})" if np.isfinite(estimate.low) else value

    @property
    def policies(self) -> list[str]:
        return [str(name) for name in self.data["policy"].values]

    @property
    def seeds(self) -> int:
        return int(self.data.sizes["seed"])

    def distinct(self, policy: str, points: Iterable[int] | None = None) -> list[int]:
        """The points (all, if not given) whose runs of a policy differ: the first of equal ones.

        Points that differ only in a key of another policy share this policy's runs.
        """
        keys = self.concerns(policy)
        first: dict[tuple[Any, ...], int] = {}
        for point in range(self.data.sizes["point"]) if points is None else points:
            first.setdefault(tuple(key.values[point] for key in keys), int(point))
        return list(first.values())

    def ratio(self, policy: str, points: Iterable[int] | None = None) -> Array:
        """Share of the optimum, or mean return, [seeds, points that differ]."""
        values: Array = self.data[self.compared].sel(policy=policy).values
        return values[self.distinct(policy, points)].T

    def estimate(self, policy: str, points: Iterable[int] | None = None) -> Estimate:
        """Interquartile mean over seeds and points that differ; the interval is over seeds, and
        that of a share ends where choosing the best provider for each request does."""
        at = policy, tuple(self.distinct(policy, points))
        if at not in self._known:  # several parts of the page show the same ones
            found = bootstrap_iqm(self.ratio(*at), resamples=RESAMPLES)
            if self.compared == "ratio" and "optimum_per_request" in self.data:
                bound = self.data["optimum_per_request"] / self.data["optimum"]
                found = within(found, 0, float(bound.values[list(at[1])].max()))
            self._known[at] = found
        return self._known[at]

    def concerns(self, policy: str) -> list[Key]:
        """The keys that can matter to a policy: all but those of other policies."""
        return [key for key in self.keys if key.policies is None or policy in key.policies]

    def setting(self, policy: str, point: int) -> str:
        """The values of a point in words, as far as they matter to a policy."""
        keys = self.concerns(policy)
        return ", ".join(f"{key.name} {value_text(key.values[point])}" for key in keys)


def value_text(value: Any) -> str:
    """A value as it is printed: numbers short, text as it is."""
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def load_sweep_run(path: str | Path) -> SweepRun:
    """Read and check a sweep's directory. InputError where it is incomplete or damaged."""
    path = Path(path).resolve()

    def parse(file: Path) -> xr.Dataset:
        data = xr.load_dataset(file, engine="scipy")
        dims = set(data[data.attrs.get("compared", "ratio")].dims)
        require({"policy", "point", "seed"} <= dims, "what is compared lacks a dimension")
        return data

    data = read(path / "sweep.nc", parse)
    paths = [str(key) for key in json.loads(data.attrs["swept"])]
    for key in paths:
        if data[key].dims != ("point",):
            raise InputError(
                f"{path / 'sweep.nc'} mixes up the swept key {key} and the runs of each point: an "
                "earlier version wrote it; go on with the sweep (--resume), which repeats no run "
                "and writes the file anew."
            )
    files = opened(path)
    concerned = json.loads(data.attrs.get("concerned", "{}"))
    policies = files["config"].get("policies") or data["policy"].values.tolist()
    keys = tuple(
        Key(
            key,
            _shortest(key, paths),
            _concerned(concerned, key, policies),
            data[key].values,
            _levels(data[key].values),
        )
        for key in paths
    )
    block = read(path / "sweep.yaml", read_config)[0]
    text = files["text"] + "sweep:\n" + "".join(f"  {line}\n" for line in block.splitlines())
    return SweepRun(
        **files | {"text": text},
        judge=str(data.attrs.get("judge", "")),
        stand_in=bool(data.attrs.get("stand_in", False)),
        data=data,
        keys=keys,
    )


def _concerned(told: dict[str, Any], key: str, policies: Iterable[str]) -> tuple[str, ...] | None:
    """The policies that a key can matter to; where the sweep does not tell, by the key itself."""
    if key in told:
        return None if told[key] is None else tuple(told[key])
    name = owner(key, policies)
    return None if name is None else (name,)


def _shortest(path: str, others: Sequence[str]) -> str:
    parts = path.split(".")
    ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    return next(e for e in ends if sum(f".{other}".endswith(f".{e}") for other in others) == 1)


def _levels(values: Array) -> tuple[Level, ...]:
    """Numbers in ascending order, of many numbers bins with as many points each; text as given."""
    numeric = values.dtype.kind in "if"
    distinct = np.unique(values) if numeric else list(dict.fromkeys(values.tolist()))
    if not numeric or len(distinct) <= MAX_LEVELS:
        return tuple(
            Level(value_text(v), float(v) if numeric else float(i), np.flatnonzero(values == v))
            for i, v in enumerate(distinct)
        )
    bins = np.array_split(np.argsort(values, kind="stable"), BINS)
    return tuple(
        Level(
            f"{value_text(values[points].min())} to {value_text(values[points].max())}",
            float(np.median(values[points])),
            points,
        )
        for points in bins
    )
