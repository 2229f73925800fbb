"""The report of a sweep: how far the share of the optimum depends on each swept key."""

from typing import Any

import numpy as np

from rlli_jax.errors import listed
from rlli_jax.report import sweep_providers
from rlli_jax.report.examination import judged
from rlli_jax.report.labels import conjunction, interval, too_few
from rlli_jax.report.section import Header, Report, Section
from rlli_jax.report.sweep_data import Key, Level, SweepRun, load_sweep_run, value_text
from rlli_jax.report.sweep_figures import figure_name, profiles, sensitivities
from rlli_jax.report.teaching import STAND_IN as TEACHER
from rlli_jax.statistics import MIN_RUNS, Estimate, probability_of_improvement

MAX_POINTS = 10  # in the table of the best points
MOST_TOLD = 4  # policies of which the first sentences tell


def _summary(run: SweepRun) -> str:
    sizes = run.data.sizes
    counts = [
        f"{sizes[dim]} {dim if sizes[dim] == 1 else plural}"
        for dim, plural in (("point", "points"), ("policy", "policies"), ("seed", "seeds"))
    ]
    keys = conjunction([key.path for key in run.keys])
    return f"{' × '.join(counts)}; swept: {keys}."


def _header(run: SweepRun) -> Header:
    """Who judged, or taught."""
    who: dict[str, Any] = {"word": "Teacher", "stand_in": TEACHER} if run.kind == "teaching" else {}
    return judged(_summary, **who)(run)


def _order(run: SweepRun, policy: str) -> list[int]:
    """Points that differ from the best to the worst, by interquartile mean over seeds."""
    iqm = run.iqm(policy)
    return sorted(run.distinct(policy), key=lambda point: -float(iqm[point]))


def _lead(run: SweepRun) -> str:
    sentences = []
    first = sorted(run.policies, key=lambda policy: -float(run.iqm(policy).max()))
    told = run.policies if len(first) <= MOST_TOLD else first[:MOST_TOLD]
    for policy in told:
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
    if len(told) < len(first):
        left = len(first) - len(told)
        sentences.insert(0, f"The best {len(told)} of {len(first)} policies, by their best points:")
        sentences.append(f"The other {left} are in the table below.")
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
            if run.shown(values[low]) == run.shown(values[high]):
                sentences.append(f"{policy}, {key.path}: {run.shown(values[low])} at every value.")
                continue
            apart = values[high].low > values[low].high
            sentences.append(
                f"{policy}, {key.path}: from {run.shown(values[low])} at "
                f"{key.levels[low].label} to {run.shown(values[high])} at "
                f"{key.levels[high].label}"
                + ("." if apart or few else "; the intervals overlap, so no difference is shown.")
            )
    return sentences


def _level_rows(run: SweepRun, key: Key) -> list[dict[str, str]]:
    """The values of a key for each policy, ready to print."""
    rows = []
    for policy in run.policies:
        if key not in run.concerns(policy):
            continue
        for level in key.levels:
            first = key.first
            better = "–" if level is first else interval(_improvement(run, policy, level, first), 2)
            iqm = run.shown(run.estimate(policy, level.points))
            rows.append({"policy": policy, "label": level.label, "iqm": iqm, "better": better})
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


def _best_rows(run: SweepRun) -> dict[str, Any]:
    rows = []
    for policy in run.policies:
        for point in _order(run, policy)[:MAX_POINTS]:
            reached = run.shown(run.estimate(policy, [point]))
            concerned = run.concerns(policy)
            values = [
                value_text(key.values[point]) if key in concerned else "–" for key in run.keys
            ]
            rows.append({"policy": policy, "iqm": reached, "values": values})
    return {"best": rows}


def _keys(run: SweepRun) -> dict[str, Any]:
    return {
        "keys": [
            {"path": key.path, "figure": figure_name(key), "rows": _level_rows(run, key),
             "binned": key.binned, "first": key.first.label}
            for key in run.varied
        ]
    }  # fmt: skip


REPORT = Report(
    kicker="rlli_jax report: sweep",
    load=load_sweep_run,
    header=_header,
    sections=(
        Section("sweep/finding", lambda run: {"lead": _lead(run), "details": _details(run)}),
        Section("sweep/best", _best_rows),
        sweep_providers.SECTION,
        Section("sweep/sensitivity", _keys, sensitivities),
        Section("sweep/profile", figures=profiles),
    ),
)
render = REPORT.render
