"""The figures of a sweep's report."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlli_jax.report.labels import slug
from rlli_jax.report.style import (
    BLUE,
    COLUMN,
    DASHES,
    INK,
    MUTED,
    OTHER_COLOURS,
    Drawing,
    legend,
    legend_columns,
)
from rlli_jax.report.sweep_data import Key, SweepRun
from rlli_jax.run_files import Array
from rlli_jax.statistics import performance_profile

COLOURS = (BLUE, "#d55e00", *OTHER_COLOURS)
LOG_FROM = 8.0  # ratio of the largest to the smallest value from which an axis is logarithmic


def figure_name(key: Key) -> str:
    """File name of a key's figure."""
    return slug(f"sensitivity-{key.path}")


def sensitivities(run: SweepRun) -> Iterator[Drawing]:
    """What is compared, against each key."""
    for key in run.varied:
        yield figure_name(key), f"{run.measure} against {key.path}", sensitivity(run, key)


def profiles(run: SweepRun) -> Iterator[Drawing]:
    """The performance profile."""
    yield "profile", f"Share of runs above each {run.measure.lower()}", profile(run)


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
    key_axis(axes, key, x)
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


def key_axis(axes: Axes, key: Key, x: Array) -> None:
    """The axis of a key's values, at ``x``."""
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
