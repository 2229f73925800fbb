"""The figures of a study of the edge market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.report.labels import quantity
from rlli_jax.report.style import (
    DASHES,
    HEAT,
    INK,
    MAX_POINTS,
    PAGE,
    SMOOTHING,
    legend,
    legend_columns,
    level,
)
from rlli_jax.statistics import smooth, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlli_jax.report.market import MarketPolicy, MarketRun
    from rlli_jax.report.run import PolicyFolder

# Okabe and Ito's colours (2008); policies beyond their number differ by dash as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#46525e")
BASELINE = "least_loaded"


def _looks(policies: Sequence[MarketPolicy]) -> dict[str, dict[str, Any]]:
    """Colour and dash of each policy's lines."""
    return {
        policy.name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[(i // len(COLOURS) + i) % len(DASHES)],
        }
        for i, policy in enumerate(policies)
    }


def convergence(run: Any) -> Figure:
    """Smoothed return over environment steps, with its band over seeds and the raw mean.

    ``run``: of a market, of an environment or of sessions.
    """
    learned = [p for p in run.policies if p.curve is not None]
    looks = _looks(learned)
    figure = Figure((PAGE, 3.4))
    axes = figure.subplots()
    for policy in learned:
        assert policy.curve is not None
        curves, x = policy.curve.episode_return, policy.curve.env_steps
        mean, low, high = t_interval(smooth(curves, max(1, curves.shape[1] // SMOOTHING)))
        keep = slice(None, None, 1 + len(x) // MAX_POINTS)
        colour = looks[policy.name]["color"]
        axes.plot(x, t_interval(curves).value, color=colour, alpha=0.25, linewidth=0.5)
        axes.fill_between(x[keep], low[keep], high[keep], color=colour, alpha=0.18, linewidth=0)
        axes.plot(x[keep], mean[keep], label=policy.name, **looks[policy.name])
    levels = [
        (p.name, float(p.returns.mean()))
        for p in run.policies
        if p.learner in ("random", "greedy", BASELINE)
    ]
    optimum = getattr(run, "optimum", None)  # only markets know one
    if optimum is not None:
        levels.append(("offline optimum", float(optimum.mean())))
    top = max([value for _, value in levels] + [float(p.returns.mean()) for p in learned])
    lowest = min([value for _, value in levels if value > 0], default=0.0)
    axes.set_ylim(min(0.0, lowest - 0.2 * abs(top)), top + 0.06 * abs(top))
    for name, value in levels:
        if value >= axes.get_ylim()[0]:
            level(axes, name, value, (0, (4, 2)), value)
    axes.margins(x=0)
    ends = [p.curve.env_steps[-1] for p in learned if p.curve is not None]
    if max(ends) > 20 * min(ends):  # on a linear axis the short ones would be one upright line
        axes.set_xscale("log")
    axes.set_xlabel("Environment steps of a seed")
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.set_ylabel("Return of an episode")
    legend(figure, legend_columns([p.name for p in learned], PAGE))
    return figure


def means(axes: Axes, policies: Sequence[PolicyFolder], least: float = -np.inf) -> None:
    """A row for each policy: its mean with its interval, filled if it learned.

    ``least``: what is shown of a lower mean is an arrow there.
    """
    for y, policy in enumerate(policies):
        mean, low, high = (float(x) for x in policy.mean())
        if np.isfinite(low):
            axes.hlines(y, max(low, least), max(high, least), color=COLOURS[0], linewidth=1.6)
        axes.plot(
            max(mean, least), y, "<" if mean < least else "o", color=COLOURS[0],
            markerfacecolor=COLOURS[0] if policy.learned else "white", markersize=4,
        )  # fmt: skip
    axes.set_yticks(range(len(policies)), [policy.name for policy in policies])
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def returns_figure(
    run: Any, label: str = "Return of an episode (filled: learned; line: offline optimum)"
) -> Figure:
    """Mean return with its interval, and the offline optimum as a line."""
    figure = Figure((PAGE, 0.7 + 0.2 * len(run.policies)))
    axes = figure.subplots()
    # A policy that mostly crashes would push all others into a corner: it becomes an arrow.
    best = max(float(policy.mean().value) for policy in run.policies)
    means(axes, run.policies, least=-abs(best))
    optimum = getattr(run, "optimum", None)  # only markets know one
    if optimum is not None:
        axes.axvline(float(optimum.mean()), color=INK, linewidth=0.9)
    axes.set_xlabel(label)
    return figure


def load(run: MarketRun) -> Figure:
    """Share of the assigned denoising steps at each provider, one row for each policy."""
    shares = np.stack([policy.load.mean(0) for policy in run.policies])  # [policies, L]
    figure = Figure((PAGE, 0.9 + 0.2 * len(run.policies)))
    axes = figure.subplots()
    # Four times an even share is full colour, so that a policy with one provider hides no other.
    strongest = min(1.0, 4 / len(run.capacity))
    for (y, x), value in np.ndenumerate(shares):
        # Shares as opacity of one colour: it reads on white paper and in a dark scheme alike.
        axes.fill(
            [x - 0.5, x + 0.5, x + 0.5, x - 0.5],
            [y - 0.5, y - 0.5, y + 0.5, y + 0.5],
            color=HEAT,
            alpha=min(1.0, float(value) / strongest),
            linewidth=0,
        )
        if len(run.capacity) <= 24:
            dark = value > 0.55 * strongest
            axes.text(
                x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6,
                color="white" if dark else INK,
            )  # fmt: skip
    axes.set_xticks(range(len(run.capacity)), [f"{c}" for c in run.capacity], rotation=90)
    axes.set_yticks(range(len(run.policies)), [p.name for p in run.policies])
    axes.set_xlim(-0.5, shares.shape[1] - 0.5)
    axes.set_ylim(len(run.policies) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel("Providers, by their capacity in denoising steps")
    return figure


def qoe(run: MarketRun) -> Figure:
    """Distribution over users of their mean QoE (over seeds), one line for each policy."""
    looks = _looks(run.policies)
    figure = Figure((PAGE, 3.0))
    axes = figure.subplots()
    for policy in run.policies:
        qoe = np.sort(np.nan_to_num(policy.qoe).mean(0))
        axes.step(
            np.concatenate([qoe[:1], qoe]),
            np.arange(len(qoe) + 1) / len(qoe),
            where="post",
            label=policy.name,
            **looks[policy.name],
        )
    axes.set_xlabel("Mean QoE of a user's tasks")
    axes.set_ylabel("Share of users with at most this")
    axes.set_ylim(0, 1.02)
    legend(figure, legend_columns([p.name for p in run.policies], PAGE))
    return figure
