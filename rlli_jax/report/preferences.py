"""The report of a study of preferences: what a reward model promises, and what it is worth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.errors import InputError
from rlli_jax.report import asking, examination, reliability
from rlli_jax.report.labels import duration, number, percent, plus_minus, too_few
from rlli_jax.report.market_figures import COLOURS
from rlli_jax.report.run import RunDirectory, opened_with_table
from rlli_jax.report.section import Report, Section, one
from rlli_jax.report.style import DASHES, INK, PAGE, Drawing, legend, legend_columns
from rlli_jax.run_files import Array
from rlli_jax.run_files.preferences import AskedPairs, PreferenceReferences, PreferenceRuns
from rlli_jax.statistics import Estimate, t_interval

DIGITS = 4
METHODS = {"exact": "exact", "ppo": "PPO", "dpo": "DPO"}
TURN = 0.001  # QoE that gold must lose after its peak to be called a turn of a single run


class Curve(NamedTuple):
    """An optimisation on all seeds of a setting, [seeds, points]."""

    kl: Array
    gold: Array
    proxy: Array


class Turn(NamedTuple):
    """Where gold is highest, and what is lost behind it."""

    peak: Estimate
    """Gold there."""
    end: Estimate
    """Gold where the optimisation ends."""
    lost: Estimate
    """From there to the end, on seeds that did not choose the peak."""
    distance: float
    """Square root of KL there."""
    promised: Estimate
    """What the proxy gains from there to the end, on the same seeds."""
    share: float
    """Of runs that lose more than ``TURN`` after their own peak while the proxy gains."""

    @property
    def turns(self) -> bool:
        """Whether gold falls while the proxy rises."""
        return bool(self.lost.low > 0 and self.promised.low > 0)


@dataclass(frozen=True, kw_only=True)
class PreferencesRun(RunDirectory):
    """All that a run directory holds for the report."""

    counts: tuple[int, ...]
    noises: tuple[float, ...]
    sizes: tuple[str, ...]
    file: str | None
    asked: AskedPairs | None
    """What the judge said of pairs, where it was asked."""
    references: PreferenceReferences
    runs: PreferenceRuns

    @property
    def seeds(self) -> int:
        """Of each setting."""
        return int(self.runs.seed.max()) + 1

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        few = too_few(self.seeds)
        over = (
            "Intervals: 95 % Student-t over draws of the pairs and of their ratings; the people, "
        )
        return f"{few}." if few else f"{over}the pictures and the table are these."

    def curve(self, method: str, count: int, noise: float, size: int) -> Curve:
        """Of one setting."""
        runs = self.runs
        chosen = (runs.count == count) & np.isclose(runs.noise, noise) & (runs.size == size)
        return Curve(*(getattr(runs, f"{method}_{what}")[chosen] for what in Curve._fields))


def turn_of(curve: Curve) -> Turn:
    """The peak is found on every second seed, and what is lost behind it on the others."""
    several = len(curve.gold) > 1
    chooses, judges = slice(0, None, 2 if several else 1), slice(int(several), None, 2)
    peak = int(curve.gold[chooses].mean(0).argmax())
    own = curve.gold.argmax(1)
    every = np.arange(len(own))
    falls = curve.gold[every, own] - curve.gold[:, -1] > TURN
    rises = curve.proxy[:, -1] > curve.proxy[every, own]
    return Turn(
        peak=t_interval(curve.gold[:, peak]),
        end=t_interval(curve.gold[:, -1]),
        lost=t_interval(curve.gold[judges, peak] - curve.gold[judges, -1]),
        distance=float(np.sqrt(max(curve.kl[:, peak].mean(), 0))),
        promised=t_interval(curve.proxy[judges, -1] - curve.proxy[judges, peak]),
        share=float((falls & rises).mean()),
    )


def _summary(run: PreferencesRun) -> str:
    known, runs = run.references, run.runs
    ties = f" {percent(float(runs.ties.mean()))} of the comparisons are ties."
    raters = "a simulated rater, in both orders, with ties"
    if run.asked is not None:
        raters, ties = f"{known.comparisons:,} pairs compared by the judge in both orders", ""
    elif run.file:
        raters = f"{known.comparisons:,} comparisons of a file"
    return (
        f"{len(runs.count):,} runs in {duration(float(runs.seconds.sum()))}: {raters}; "
        f"{known.users} users, {known.requests} requests, {known.providers} providers.{ties}"
    )


def _load(path: Path) -> PreferencesRun:
    files = opened_with_table(path)
    config = files["config"]
    pairs = config["pairs"]
    runs = PreferenceRuns.read(path / "runs.npz")
    if not len(runs.count):
        raise InputError(f"{path / 'runs.npz'} holds no run: repeat the study.")
    return PreferencesRun(
        **files,
        counts=tuple(sorted(pairs["counts"])),
        noises=tuple(sorted(pairs["noise"])),
        sizes=tuple(config["reward_model"]["sizes"]),
        file=pairs.get("file"),
        asked=AskedPairs.read(path / "pairs.npz") if pairs.get("ask") is not None else None,
        references=PreferenceReferences.read(path / "references.json"),
        runs=runs,
    )


def _settings(run: PreferencesRun) -> list[tuple[int, float, int]]:
    return [
        (count, noise, size)
        for noise in run.noises
        for size in range(len(run.sizes))
        for count in run.counts
    ]


def _lead(run: PreferencesRun) -> str:
    """What enough pairs reach, and where few turn over."""
    optimum, most = run.references.optimum, run.counts[-1]
    ends = {
        setting: turn_of(run.curve("ppo", *setting)) for setting in _settings(run)
    }  # fmt: skip
    best = max((s for s in ends if s[0] == most), key=lambda s: float(ends[s].end.value))
    regret = optimum - float(ends[best].end.value)
    text = (
        f"With {most:,} pairs PPO on the reward model ends {number(regret, DIGITS)} QoE below "
        f"the optimum of {number(optimum, 3)} (reference policy: "
        f"{number(run.references.reference, 3)})."
    )
    turning = {s: t for s, t in ends.items() if t.turns}
    if not turning:
        return text + " In no setting does gold fall while the proxy rises."
    worst = max(turning, key=lambda s: float(turning[s].lost.value))
    found = turning[worst]
    count, noise, size = worst
    return (
        f"{text} In {len(turning)} of {len(ends)} settings gold falls while the proxy rises; most "
        f"with {count:,} pairs, noise {noise:g} and the {run.sizes[size]} model, where gold turns "
        f"at √KL = {number(found.distance, 2)} (KL {number(found.distance**2, 2)} nats) and loses "
        f"{plus_minus(found.lost, DIGITS)} QoE, while the proxy still gains "
        f"{plus_minus(found.promised, DIGITS)}."
    )


def _details(run: PreferencesRun) -> list[str]:
    """How the judge compared; DPO beside PPO, where pairs are fewest and where they are most."""
    said = [] if run.asked is None else [_compared(run.asked)]
    for noise in run.noises:
        for count in (run.counts[0], run.counts[-1]):
            ppo, dpo = (run.curve(name, count, noise, 0) for name in ("ppo", "dpo"))
            more = t_interval(dpo.gold[:, -1] - ppo.gold[:, -1])
            value, low, high = (number(float(x), DIGITS) for x in more)
            far = [number(float(_distance(curve)[-1]), 2) for curve in (dpo, ppo)]
            said.append(
                f"{count:,} pairs, noise {noise:g}, {run.sizes[0]} model: where both end, DPO is "
                f"worth {value} QoE more than PPO (95 % interval {low} to {high}), at √KL {far[0]} "
                f"against {far[1]}."
            )
    return said


def _compared(pairs: AskedPairs) -> str:
    """How far the judge's two orders agree with each other, and both with its ratings."""
    there = pairs.answered
    first, second, gap = pairs.shown_first[there], pairs.shown_second[there], pairs.gap[there]
    won = (first + second) / 2
    place = t_interval((first + 1 - second) / 2)
    favoured, low, high = (number(float(x), 2) for x in place)
    told = (won != 0.5) & (gap != 0)
    alike = ((won > 0.5) == (gap > 0))[told]
    share = percent(float(alike.mean())) if alike.size else "none"
    unlike = np.sign(first - 0.5) != np.sign(second - 0.5)
    return (
        f"The judge compared {there.size:,} pairs in both orders and answered {there.sum():,}. In "
        f"{percent(float(unlike.mean()))} of these the orders do not prefer the same picture, and "
        f"{percent(float((won == 0.5).mean()))} are ties. What is shown first gets {favoured} of "
        f"the preference (95 % interval over pairs {low} to {high}; .50 is no liking for a place). "
        f"The picture that it prefers is the one that it rates higher in {share} of "
        f"{int(told.sum()):,} pairs that differ in both."
    )


def _row(run: PreferencesRun, count: int, noise: float, size: int) -> dict[str, Any]:
    found = turn_of(run.curve("ppo", count, noise, size))
    dpo = run.curve("dpo", count, noise, size)
    peak, lost = (plus_minus(x, DIGITS) if found.turns else "–" for x in (found.peak, found.lost))
    return {
        "count": f"{count:,}",
        "noise": f"{noise:g}",
        "size": run.sizes[size],
        "peak": peak,
        "end": plus_minus(found.end, DIGITS),
        "regret": number(run.references.optimum - float(found.end.value), DIGITS),
        "turn": number(found.distance, 2) if found.turns else "–",
        "lost": lost,
        "share": percent(found.share),
        "dpo": plus_minus(t_interval(dpo.gold[:, -1]), DIGITS),
    }


def _reference_rows(run: PreferencesRun) -> list[tuple[str, str, str]]:
    known = run.references
    return [
        ("Optimum", number(known.optimum, DIGITS), "the best provider for each user and request"),
        ("Best single", number(known.best_single, DIGITS), f"{known.best_single_provider} for all"),
        ("Reference policy", number(known.reference, DIGITS),
         "what is optimised away from: providers by what they are worth to all"),
        ("Random", number(known.random, DIGITS), "each provider alike"),
    ]  # fmt: skip


def _distance(curve: Curve) -> Array:
    return np.sqrt(np.maximum(curve.kl.mean(0), 0))


def _curves(run: PreferencesRun) -> Figure:
    """Gold (solid) and proxy (dashed) against the square root of KL; a column a noise, PPO."""
    shown = _spread(run.counts, 4)
    figure = Figure((PAGE, 2.9 * len(run.sizes)))
    panels = figure.subplots(len(run.sizes), len(run.noises), squeeze=False, sharex=True)
    top = run.references.optimum + 0.6 * (run.references.optimum - run.references.reference)
    for (row, column), axes in np.ndenumerate(panels):
        for i, count in enumerate(shown):
            curve = run.curve("ppo", count, run.noises[column], row)
            x, colour = _distance(curve), COLOURS[i % len(COLOURS)]
            mean, low, high = t_interval(curve.gold)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            label = f"{count:,} pairs" if (row, column) == (0, 0) else None
            axes.plot(x, mean, color=colour, label=label)
            # The proxy is known up to a constant; here both begin at the reference's gold.
            proxy = curve.proxy.mean(0) - curve.proxy[:, 0].mean() + curve.gold[:, 0].mean()
            axes.plot(x, proxy, color=colour, linestyle=DASHES[1], linewidth=0.9)
        axes.axhline(run.references.optimum, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)))
        axes.set_ylim(run.references.reference - 0.02, top)
        axes.set_title(f"noise {run.noises[column]:g}, {run.sizes[row]} model")
        if column == 0:
            axes.set_ylabel("QoE (solid: gold, dashed: proxy)")
        if row == len(run.sizes) - 1:
            axes.set_xlabel("Square root of KL, nats")
    legend(figure, legend_columns([f"{count:,} pairs" for count in shown], PAGE))
    return figure


def _spread(values: tuple[int, ...], most: int) -> list[int]:
    """At most so many, from the first to the last."""
    places = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [values[i] for i in places]


def _pairs(run: PreferencesRun) -> Figure:
    """Gold where PPO ends (filled) and at its peak (open) by the number of pairs."""
    figure = Figure((PAGE, 3.0))
    panels = figure.subplots(1, len(run.noises), squeeze=False, sharey=True)[0]
    for axes, noise in zip(panels, run.noises, strict=True):
        for i, size in enumerate(run.sizes):
            found = [turn_of(run.curve("ppo", count, noise, i)) for count in run.counts]
            end, low, high = np.array([t.end for t in found]).T
            label = f"{size}, end" if noise == run.noises[0] else None
            axes.fill_between(run.counts, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
            axes.plot(run.counts, end, "o-", color=COLOURS[i], markersize=4, label=label)
            label = f"{size}, at its peak" if noise == run.noises[0] else None
            axes.plot(
                run.counts, [t.peak.value for t in found], "o", linestyle=DASHES[1],
                color=COLOURS[i], markerfacecolor="white", markersize=4, label=label,
            )  # fmt: skip
        axes.axhline(run.references.optimum, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)))
        axes.set_xscale("log")
        axes.set_xticks(run.counts, [f"{count:,}" for count in run.counts])
        axes.tick_params(axis="x", which="minor", length=0, labelsize=0)
        axes.set_title(f"noise {noise:g}")
        axes.set_xlabel("Pairs")
    panels[0].set_ylabel("Gold, QoE (dotted: optimum)")
    legend(figure, legend_columns([f"{size}, at its peak" for size in run.sizes] * 2, PAGE))
    return figure


def _methods(run: PreferencesRun) -> Figure:
    """Gold against divergence on the way of each method, with the fewest and the most pairs."""
    shown = _spread(run.counts, 2)
    figure = Figure((PAGE, 2.7 * len(shown)))
    panels = figure.subplots(len(shown), len(run.noises), squeeze=False, sharex=True)
    for (row, column), axes in np.ndenumerate(panels):
        for i, (method, name) in enumerate(METHODS.items()):
            curve = run.curve(method, shown[row], run.noises[column], 0)
            x, (mean, low, high) = _distance(curve), t_interval(curve.gold)
            axes.fill_between(x, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
            label = name if (row, column) == (0, 0) else None
            axes.plot(x, mean, color=COLOURS[i], linestyle=DASHES[i], label=label)
        axes.axhline(run.references.optimum, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)))
        axes.set_title(f"{shown[row]:,} pairs, noise {run.noises[column]:g}")
        if column == 0:
            axes.set_ylabel("Gold, QoE")
        if row == len(shown) - 1:
            axes.set_xlabel("Square root of KL, nats")
    legend(figure, legend_columns(list(METHODS.values()), PAGE))
    return figure


def _settings_and_references(run: PreferencesRun) -> dict[str, Any]:
    rows = [_row(run, *setting) for setting in _settings(run)]
    return {"rows": rows, "references": _reference_rows(run)}


def _overoptimisation(run: PreferencesRun) -> list[Drawing]:
    return [
        ("overoptimisation", "Gold and proxy against divergence", _curves(run)),
        ("pairs", "What pairs are worth", _pairs(run)),
    ]


REPORT = Report(
    kicker="rlli_jax report: preferences",
    load=_load,
    header=examination.judged(_summary, word="Gold"),
    sections=(
        examination.SECTION,
        Section("preferences/finding", lambda run: {"lead": _lead(run), "details": _details(run)}),
        Section("preferences/overoptimisation", figures=_overoptimisation),
        Section("preferences/settings", _settings_and_references),
        Section(
            "preferences/methods",
            figures=one("methods", "Three ways to a policy", _methods),
        ),
        asking.SECTION,
        reliability.SECTION,
    ),
)
render = REPORT.render
