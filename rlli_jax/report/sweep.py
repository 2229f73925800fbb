"""The report of a sweep: how far the share of the optimum depends on each swept key.

Reads the files of a sweep's directory; ``sweep.nc`` is told in
``rlli_jax/experiments/sweeps/results.py``.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlli_jax.checking import owner
from rlli_jax.errors import InputError, listed
from rlli_jax.report.data import read, read_config, read_versions, require
from rlli_jax.report.figures import (
    BLUE,
    COLUMN,
    DASHES,
    INK,
    MUTED,
    OTHER_COLOURS,
    STYLE,
    Plate,
    legend,
    legend_columns,
    plate,
)
from rlli_jax.report.labels import conjunction, digits_for, number, percent_interval, slug, too_few
from rlli_jax.report.page import on_page, templates, write_report
from rlli_jax.run_files import Array
from rlli_jax.statistics import (
    MIN_RUNS,
    Estimate,
    bootstrap_iqm,
    performance_profile,
    probability_of_improvement,
)

COLOURS = (BLUE, "#d55e00", *OTHER_COLOURS)
MAX_LEVELS = 12  # values of a key that are shown one by one; more numbers are put into bins
BINS = 6
MAX_POINTS = 10  # in the table of the best points
RESAMPLES = 2000
LOG_FROM = 8.0  # ratio of the largest to the smallest value from which an axis is logarithmic


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
    policy: str | None  # the one that it belongs to
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


@dataclass(frozen=True)
class SweepRun:
    """A finished sweep, as its directory holds it."""

    path: Path
    config: str
    versions: dict[str, str]
    data: xr.Dataset
    keys: tuple[Key, ...]
    _known: dict[Any, Estimate] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return str(self.data.attrs["title"])

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
        """Interquartile mean over seeds and points that differ; the interval is over seeds."""
        at = policy, tuple(self.distinct(policy, points))
        if at not in self._known:  # several parts of the page show the same ones
            self._known[at] = bootstrap_iqm(self.ratio(*at), resamples=RESAMPLES)
        return self._known[at]

    def concerns(self, policy: str) -> list[Key]:
        """The keys that can matter to a policy: all but those of other policies."""
        return [key for key in self.keys if key.policy in (None, policy)]

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
    study, content = read(path / "config.yaml", read_config)
    policies = content.get("policies") or data["policy"].values.tolist()
    keys = tuple(
        Key(
            key,
            _shortest(key, paths),
            owner(key, policies),
            data[key].values,
            _levels(data[key].values),
        )
        for key in paths
    )
    block = read(path / "sweep.yaml", read_config)[0]
    config = study + "sweep:\n" + "".join(f"  {line}\n" for line in block.splitlines())
    return SweepRun(path, config, read(path / "versions.json", read_versions), data, keys)


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


def render_sweep(path: str | Path) -> Path:
    """Write ``figures/*`` and ``report.html`` into a sweep's directory; the path of the page.

    Raises:
        InputError: the directory is incomplete or damaged.
    """
    run = load_sweep_run(path)
    plates = list(sweep_plates(run))
    page = (
        templates()
        .get_template("sweep.html")
        .render(
            run=run,
            summary=_summary(run),
            lead=_lead(run),
            details=_details(run),
            figures=on_page(plates),
            keys=[
                {"path": key.path, "figure": figure_name(key), "rows": _level_rows(run, key),
                 "binned": key.binned, "first": key.first.label}
                for key in run.keys
                if len(key.levels) > 1
            ],
            best=_best_rows(run),
            command=_command(run),
        )
    )  # fmt: skip
    return write_report(run.path, plates, page)


def _command(run: SweepRun) -> str:
    folder, other = shlex.quote(run.path.name), shlex.quote(f"{run.path.name}-again")
    return (
        f"(cat {folder}/config.yaml; echo sweep:; sed 's/^/  /' {folder}/sweep.yaml) > again.yaml\n"
        f"rlli sweep again.yaml --output {other}"
    )


def _summary(run: SweepRun) -> str:
    sizes = run.data.sizes
    counts = [
        f"{sizes[dim]} {dim if sizes[dim] == 1 else plural}"
        for dim, plural in (("point", "points"), ("policy", "policies"), ("seed", "seeds"))
    ]
    keys = conjunction([key.path for key in run.keys])
    return f"{' × '.join(counts)}; swept: {keys}."


def _order(run: SweepRun, policy: str) -> list[int]:
    """Points that differ from the best to the worst, by interquartile mean over seeds."""
    iqm = run.iqm(policy)
    return sorted(run.distinct(policy), key=lambda point: -float(iqm[point]))


def _lead(run: SweepRun) -> str:
    sentences = []
    for policy in run.policies:
        best, *others = _order(run, policy)
        value = run.estimate(policy).value
        everywhere = run.shown(Estimate(value, np.full_like(value, np.nan), value))
        estimate = run.estimate(policy, [best])
        reached = run.shown(estimate, "95 % interval ")
        reached += " of the optimum" if run.compared == "ratio" else ""
        verb = "reaches" if run.compared == "ratio" else "returns"
        if not others:
            sentences.append(f"{policy} {verb} {reached}.")
            continue
        same = sum(bool(run.estimate(policy, [p]).high >= estimate.low) for p in others)
        cannot = (
            f"; the interval{'s' if same > 1 else ''} of {same} other "
            f"point{'s overlap' if same > 1 else ' overlaps'} with its own"
            if same
            else ""
        )
        sentences.append(
            f"{policy} {verb} {reached} at its best point "
            f"({run.setting(policy, best)}){cannot}. Over all points it {verb} {everywhere}."
        )
    return " ".join(sentences)


def _diverged(run: SweepRun, policy: str) -> list[str]:
    """At which points parameters of a policy are no numbers any more."""
    if "diverged" not in run.data:  # of an earlier version
        return []
    runs = run.data["diverged"].sel(policy=policy).sum("seed").values
    points = [point for point in run.distinct(policy) if runs[point]]
    if not points:
        return []
    where = listed([f"{run.setting(policy, point)}: {int(runs[point])}" for point in points])
    return [
        f"{policy}: parameters are no numbers at the end of some runs, whose choices mean nothing "
        f"({where}); rewards or observations are no numbers there, or a learning rate is too high."
    ]


def _details(run: SweepRun) -> list[str]:
    """For each policy and key: its best and its worst value."""
    few = too_few(run.seeds)
    sentences = [f"{few}."] if few else []
    for policy in run.policies:
        sentences += _diverged(run, policy)
        for key in run.concerns(policy):
            if len(key.levels) < 2:
                continue
            values = [run.estimate(policy, level.points) for level in key.levels]
            order = np.argsort([float(value.value) for value in values])
            low, high = int(order[0]), int(order[-1])
            apart = values[high].low > values[low].high
            sentences.append(
                f"{policy}, {key.path}: from {run.shown(values[low])} at "
                f"{key.levels[low].label} to {run.shown(values[high])} at "
                f"{key.levels[high].label}"
                + ("." if apart or few else "; the intervals overlap, so no difference is shown.")
            )
    return sentences


@dataclass(frozen=True)
class LevelRow:
    """One value of a key for one policy, ready to print."""

    policy: str
    label: str
    iqm: str
    better: str


def _level_rows(run: SweepRun, key: Key) -> list[LevelRow]:
    rows = []
    for policy in run.policies:
        if key not in run.concerns(policy):
            continue
        for level in key.levels:
            first = key.first
            better = "–" if level is first else _interval(_improvement(run, policy, level, first))
            iqm = run.shown(run.estimate(policy, level.points))
            rows.append(LevelRow(policy, level.label, iqm, better))
    return rows


def _improvement(run: SweepRun, policy: str, level: Level, first: Level) -> Estimate:
    """Over the first value: point by point where points differ in this key only, else pooled."""
    one, other = run.ratio(policy, level.points), run.ratio(policy, first.points)
    if not _paired(run, policy, level, first):
        one, other = one.reshape(-1), other.reshape(-1)
        if run.seeds < MIN_RUNS:  # many points do not make up for few seeds
            value = probability_of_improvement(one, other).value
            return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    return probability_of_improvement(one, other)


def _paired(run: SweepRun, policy: str, level: Level, first: Level) -> bool:
    """Whether the points of two values are the same in all other keys, in order: a grid."""
    here, there = run.distinct(policy, level.points), run.distinct(policy, first.points)
    if len(here) != len(there):
        return False
    keys = run.concerns(policy)
    return sum(bool((key.values[here] != key.values[there]).any()) for key in keys) == 1


def _interval(estimate: Estimate) -> str:
    value, low, high = (number(float(x), 2) for x in estimate)
    return f"{value} ({low}–{high})" if np.isfinite(estimate.low) else value


def _best_rows(run: SweepRun) -> list[dict[str, Any]]:
    rows = []
    for policy in run.policies:
        for point in _order(run, policy)[:MAX_POINTS]:
            reached = run.shown(run.estimate(policy, [point]))
            concerned = run.concerns(policy)
            values = [
                value_text(key.values[point]) if key in concerned else "–" for key in run.keys
            ]
            rows.append({"policy": policy, "iqm": reached, "values": values})
    return rows


def figure_name(key: Key) -> str:
    """File name of a key's figure."""
    return slug(f"sensitivity-{key.path}")


def sweep_plates(run: SweepRun) -> Iterator[Plate]:
    """Every figure of the report, in its order."""
    with matplotlib.rc_context(STYLE):
        for key in run.keys:
            if len(key.levels) > 1:
                title = f"{run.measure} against {key.path}"
                yield plate(figure_name(key), title, sensitivity(run, key))
        title = f"Share of runs above each {run.measure.lower()}"
        yield plate("profile", title, profile(run))


def sensitivity(run: SweepRun, key: Key) -> Figure:
    """Interquartile mean of the share of the optimum at each value, with 95 % intervals."""
    figure = Figure((COLUMN, 2.5))
    axes = figure.subplots()
    x = np.array([level.x for level in key.levels])
    for index, policy in enumerate(run.policies):
        if key not in run.concerns(policy):
            continue
        colour = COLOURS[index % len(COLOURS)]
        if key.binned:
            points = run.distinct(policy)
            shares = run.iqm(policy)[points]
            axes.plot(
                key.values[points], run.scale * shares, ".", color=colour, alpha=0.3, markersize=2.5
            )
        estimates = [run.estimate(policy, level.points) for level in key.levels]
        value, low, high = (
            run.scale * np.array(part, float) for part in zip(*estimates, strict=True)
        )
        axes.errorbar(
            x,
            value,
            np.nan_to_num(np.stack([value - low, high - value])),
            color=colour,
            linestyle=DASHES[index % len(DASHES)] if key.numeric else "none",
            marker="o",
            markersize=3.5,
            elinewidth=1,
            capsize=2,
            label=policy,
        )
    _references(axes, run, key, x)
    _key_axis(axes, key, x)
    axes.set_ylabel(_axis(run))
    legend(figure, legend_columns(axes.get_legend_handles_labels()[1], COLUMN))
    return figure


def _references(axes: Axes, run: SweepRun, key: Key, x: Array) -> None:
    """What random choice and the best single provider reach, mean over the points of a value."""
    looks = {
        "best_single": ("best single provider", (0, (4, 2))),
        "random": ("random", (0, (1, 2))),
    }
    if run.compared == "objective":  # no optimum is known
        return
    for name, (label, dash) in ((n, look) for n, look in looks.items() if n in run.data):
        share = 100 * run.data[name].values / run.data["optimum"].values
        y = [share[level.points].mean() for level in key.levels]
        axes.plot(x, y, color=INK, linewidth=0.8, linestyle=dash, label=label, zorder=1.5)


def _axis(run: SweepRun) -> str:
    return f"{run.measure} (%)" if run.compared == "ratio" else run.measure


def _key_axis(axes: Axes, key: Key, x: Array) -> None:
    axes.set_xlabel(key.name)
    if not key.numeric:
        axes.set_xticks(x, [level.label for level in key.levels])
        axes.margins(x=0.2)
        if max(len(level.label) for level in key.levels) * len(x) > 40:
            axes.tick_params(axis="x", rotation=20)
        return
    values = key.values.astype(float)
    if values.min() > 0 and values.max() / values.min() >= LOG_FROM:
        axes.set_xscale("log")
    if not key.binned:
        axes.set_xticks(x, [level.label for level in key.levels])
        axes.minorticks_off()


def profile(run: SweepRun) -> Figure:
    """Performance profiles: the share of runs above each share of the optimum."""
    figure = Figure((COLUMN, 2.5))
    axes = figure.subplots()
    values = run.data[run.compared].values
    values = values[np.isfinite(values)]
    least, most = float(values.min(initial=1)), float(values.max(initial=0))
    if run.compared == "ratio":
        thresholds = np.linspace(least - 0.01, max(1.0, most), 101)
    else:
        thresholds = np.linspace(least - 0.01 * (most - least), most, 101)
    for index, policy in enumerate(run.policies):
        colour = COLOURS[index % len(COLOURS)]
        part = performance_profile(run.ratio(policy), thresholds)
        value, low, high = (100 * x for x in part)
        dash = DASHES[index % len(DASHES)]
        axes.plot(run.scale * thresholds, value, color=colour, linestyle=dash, label=policy)
        axes.fill_between(run.scale * thresholds, low, high, color=colour, alpha=0.18, linewidth=0)
    if run.compared == "ratio":
        axes.axvline(100, color=MUTED, linewidth=0.6)
    axes.set_xlabel(_axis(run))
    axes.set_ylabel("Runs above it (%)")
    axes.set_ylim(0, 102)
    axes.margins(x=0)
    legend(figure, legend_columns(run.policies, COLUMN))
    return figure
