"""The report of a study of the edge market: figures, tables and one self-contained page.

Reads files only, like the rest of this room; what the files hold is told in
``rlli_jax/experiments/market/study.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.report import asking, examination, generated, reliability
from rlli_jax.report.examination import judged
from rlli_jax.report.labels import duration, number, plus_minus, quantity
from rlli_jax.report.market_figures import BASELINE, convergence, load, qoe, returns_figure
from rlli_jax.report.run import (
    PolicyFolder,
    RunDirectory,
    learns,
    load_policies,
    opened,
    opened_with_table,
)
from rlli_jax.report.section import Report, Section, each, one
from rlli_jax.report.style import SMOOTHING
from rlli_jax.run_files import Array, read, read_json
from rlli_jax.run_files.market import MarketEvaluation, MarketReferences, MarketSummary
from rlli_jax.statistics import Estimate, jain_index, smooth
from rlli_jax.two_way import interval_over, two_way_bootstrap, two_way_difference


class MarketPolicy(MarketSummary, PolicyFolder):
    """One policy, and its sums over each of E episodes of evaluation."""

    evaluation: MarketEvaluation

    @cached_property
    def sums(self) -> dict[str, Array]:
        """``returns`` [seeds, E], and those of EdgeMarket.statistics."""
        return self.evaluation.arrays()

    def mean(self, key: str = "returns") -> Estimate:
        """Of one of the sums, over seeds and episodes."""
        return two_way_bootstrap(np.asarray, self.sums[key])

    def share(self, count: str) -> Estimate:
        """A count as a share of the tasks."""
        return two_way_bootstrap(np.divide, self.sums[count], self.sums["tasks"])

    @property
    def load(self) -> Array:
        """Share of the assigned denoising steps at each provider, [seeds, L]."""
        load = self.sums["load"].sum(1)
        return np.asarray(load / np.maximum(load.sum(-1, keepdims=True), 1))

    @property
    def qoe(self) -> Array:
        """Mean QoE of each user's tasks, 0 for those that were dropped; [seeds, K].

        NaN for a user without a task that was assigned.
        """
        assigned = self.sums["assigned_of_user"].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sums["qoe_of_user"].sum(1) / assigned)


@dataclass(frozen=True, kw_only=True)
class MarketRun(RunDirectory):
    """All that a run directory holds for the report."""

    capacity: Array  # [L]
    split: str  # of the episodes: "test", or "tuning", on which settings are chosen
    optimum: Array | None  # [E]
    tasks: Array  # [E]
    policies: tuple[MarketPolicy, ...]  # in the order of the config

    @property
    def baseline(self) -> MarketPolicy | None:
        """Crash Avoid, if the study has it."""
        return next((p for p in self.policies if p.learner == BASELINE), None)

    @property
    def personal(self) -> bool:
        """Whether users have personal QoE."""
        return bool(self.judge)

    @property
    def interval(self) -> str:
        """What the intervals of evaluation are over, for a caption."""
        over = interval_over(len(self.policies[0].returns), len(self.tasks))
        if over is None:
            return f"No intervals: {len(self.tasks)} episodes are too few."
        text = f"±: half the 95 % interval over {over}, by a bootstrap of "
        if over == "episodes":
            return text + "these; other seeds may give other results, for there are too few here."
        return text + "both together."


def load_market_run(directory: str | Path) -> MarketRun:
    """Read a run directory. InputError where a file is missing, damaged or does not fit."""
    path = Path(directory)
    personal = (path / "table.npz").exists()
    files = opened_with_table(path) if personal else opened(path)
    references = MarketReferences.read(path / "references.json")
    policies = load_policies(path, files["config"], MarketPolicy)
    return MarketRun(
        **files,
        capacity=read(path / "fleet.json", lambda p: np.asarray(read_json(p)["capacity"])),
        split=references.split,
        optimum=None if references.optimum is None else np.asarray(references.optimum),
        tasks=np.asarray(references.tasks),
        policies=policies,
    )


def ratio(run: MarketRun, policy: MarketPolicy) -> Estimate:
    """Return over the offline optimum, mean over seeds and episodes. NaN without an optimum."""
    optimum = np.nan if run.optimum is None else run.optimum
    return two_way_bootstrap(np.asarray, policy.sums["returns"] / optimum)


def steps_to(policy: MarketPolicy, goal: float) -> Array:
    """Environment steps of each seed until its smoothed training return reaches ``goal``.

    Infinite where it never does; an empty array for a policy without a curve.
    """
    if policy.curve is None:
        return np.empty(0)
    curves = policy.curve.episode_return
    smoothed = smooth(curves, max(1, curves.shape[1] // SMOOTHING))
    reached = smoothed >= goal
    first = policy.curve.env_steps[reached.argmax(1)].astype(float)
    return np.where(reached.any(1), first, np.inf)


def _summary(run: MarketRun) -> str:
    seeds = len(run.policies[0].returns)
    return (
        f"{len(run.capacity)} providers, {len(run.tasks)} {run.split} episodes with "
        f"{number(float(run.tasks.mean()), 0)} tasks on average, the same for every policy; "
        f"{seeds} seed{'' if seeds == 1 else 's'}."
        + (" Settings are chosen on tuning episodes: report test episodes." * (run.split != "test"))
    )


def _lead(run: MarketRun) -> str:
    best = max(run.policies, key=lambda policy: float(policy.returns.mean()))
    text = f"{best.name} returns most: {plus_minus(best.mean('returns'), 1)}"
    if run.optimum is None:
        return text + "."
    return text + f", {_percent_plus_minus(ratio(run, best))} % of the offline optimum."


def _details(run: MarketRun) -> list[str]:
    """Learned policies against the best that does not learn; persona-aware against blind."""
    rules = [p for p in run.policies if not p.learned]
    learned = [p for p in run.policies if p.learned]
    sentences = []
    if rules and learned:
        rule = max(rules, key=lambda policy: float(policy.returns.mean()))
        learner = max(learned, key=lambda policy: float(policy.returns.mean()))
        sentences.append(_against(learner, rule))
    for first in learned:
        rest = tuple(part for part in first.observation if part not in ("persona", "request"))
        blind = next(
            (
                p
                for p in learned
                if (p.learner, p.observation, p.mask, p.reward)
                == (first.learner, rest, first.mask, first.reward)
            ),
            None,
        )
        if blind is not None and blind is not first:
            sentences.append(_against(first, blind))
    return sentences


def _against(first: MarketPolicy, second: MarketPolicy) -> str:
    """How much one policy returns above another on the same episodes."""
    returns = first.sums["returns"], second.sums["returns"]
    gain = two_way_difference(*returns)
    over = interval_over(*returns[0].shape)
    text = f"{first.name} returns {number(float(gain.value))} more than {second.name}"
    if over is None:
        return text + "; so few episodes give no interval."
    low, high = number(float(gain.low)), number(float(gain.high))
    if over == "episodes":
        return (
            text + f" (95 % interval over episodes only, {low} to {high}); too few seeds for more."
        )
    verdict = "the interval excludes zero" if gain.low * gain.high > 0 else "no difference is shown"
    return text + f" (95 % interval over {over} {low} to {high}); {verdict}."


def _row(run: MarketRun, policy: MarketPolicy) -> dict[str, Any]:
    """One line of the table of policies, ready to print."""
    return {
        "name": policy.name,
        "returns": plus_minus(policy.mean("returns"), 1),
        "ratio": _percent_plus_minus(ratio(run, policy)),
        "finished": _percent_plus_minus(policy.share("finished")),
        "crashed": _percent_plus_minus(policy.share("crashed")),
        "lost": _percent_plus_minus(policy.share("lost")),
        "utility": plus_minus(policy.mean("utility"), 1),
        "reference": not policy.learned,
    }


def _learning_row(run: MarketRun, policy: MarketPolicy) -> dict[str, Any]:
    """One line of the table of learning, ready to print."""
    baseline = run.baseline
    goal = np.inf if baseline is None else float(baseline.returns.mean())
    steps = steps_to(policy, goal)
    reached = np.isfinite(steps).all() and steps.size > 0 and policy.env_steps
    seconds = policy.train_seconds
    return {
        "name": policy.name,
        "steps": _steps(steps) if reached else ("never" if steps.size else "–"),
        "time": duration(float(steps.mean()) / policy.env_steps * seconds)
        if reached and policy.env_steps and seconds
        else "–",
        "train": duration(seconds),
        "speed": quantity(policy.steps_per_second),
        "sees": ", ".join(policy.observation) + (", mask" if policy.mask else ""),
        "reward": policy.reward if policy.learned else "–",
        "reference": not policy.learned,
    }


def _steps(steps: Array) -> str:
    low, high = quantity(float(steps.min())), quantity(float(steps.max()))
    middle = quantity(float(steps.mean()))
    return middle if low == high else f"{middle} ({low} to {high})"


def _percent_plus_minus(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return "–"
    scaled = Estimate(*(100 * np.asarray(x) for x in estimate))
    return plus_minus(scaled, 1)


def _user_row(policy: MarketPolicy) -> dict[str, str]:
    """QoE over users: mean, Jain's index, the user worst off; each a mean over seeds."""

    def over_users(statistic: Callable[[Array], Array]) -> Estimate:
        def of_means(qoe: Array, assigned: Array) -> Array:
            some = assigned > 0
            return statistic(np.where(some, qoe / np.where(some, assigned, 1), 0))

        sums = policy.sums["qoe_of_user"], policy.sums["assigned_of_user"]
        return two_way_bootstrap(of_means, *sums)

    return {
        "name": policy.name,
        "mean": plus_minus(over_users(lambda qoe: qoe.mean(-1)), 3),
        "jain": plus_minus(over_users(jain_index), 4),
        "minimum": plus_minus(over_users(lambda qoe: qoe.min(-1)), 3),
    }


REPORT = Report(
    kicker="rlli_jax report: edge market",
    load=load_market_run,
    header=judged(_summary),
    sections=(
        examination.SECTION,
        Section("market/finding", lambda run: {"lead": _lead(run), "details": _details(run)}),
        Section("market/policies", each(_row)),
        Section("market/learning", each(_learning_row), when=learns),
        Section(
            "market/convergence",
            figures=one("convergence", "Return while training", convergence),
            when=learns,
        ),
        Section(
            "market/returns",
            figures=one("returns", "Return of each policy", returns_figure),
        ),
        Section("market/load", figures=one("load", "Load of each provider", load)),
        Section(
            "market/qoe",
            lambda run: {"users": [_user_row(policy) for policy in run.policies]},
            one("qoe", "QoE over users", qoe),
            lambda run: run.personal,
        ),
        generated.SECTION,
        asking.SECTION,
        reliability.SECTION,
    ),
)
render = REPORT.render
