"""The report of a study of the edge market: figures, tables and one self-contained page.

Reads files only, like the rest of this room; what the files hold is told in
``rlli_jax/experiments/market/study.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlli_jax.errors import InputError
from rlli_jax.experiments.two_way import interval_over, two_way_bootstrap, two_way_difference
from rlli_jax.qoe import QoETable
from rlli_jax.report.data import read, read_config, read_versions
from rlli_jax.report.figures import (
    DASHES,
    HEAT,
    INK,
    MAX_POINTS,
    PAGE,
    SMOOTHING,
    STYLE,
    Plate,
    legend,
    legend_columns,
    level,
    plate,
)
from rlli_jax.report.labels import duration, number, plus_minus, quantity, too_few
from rlli_jax.report.page import again, on_page, templates, write_report
from rlli_jax.run_files import (
    Array,
    Curve,
    MarketEvaluation,
    MarketReferences,
    MarketSummary,
    read_json,
)
from rlli_jax.statistics import Estimate, jain_index, smooth, t_interval

# Okabe and Ito's colours (2008); policies beyond their number differ by dash as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#46525e")
BASELINE = "least_loaded"


class MarketPolicy(MarketSummary):
    """One policy, and its sums over each of E episodes of evaluation."""

    sums: dict[str, Any]
    """``returns`` [seeds, E], and those of EdgeMarket.statistics."""
    curve: Curve | None

    @property
    def returns(self) -> Array:
        """Mean over episodes, [seeds]."""
        return self.sums["returns"].mean(1)

    def mean(self, key: str) -> Estimate:
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


@dataclass(frozen=True)
class MarketRun:
    """All that a run directory holds for the report."""

    path: Path
    config: str
    description: str
    versions: dict[str, str]
    capacity: Array  # [L]
    split: str  # of the episodes: "test", or "tuning", on which settings are chosen
    optimum: Array | None  # [E]
    tasks: Array  # [E]
    judge: str | None  # with personal QoE
    stand_in: bool
    policies: tuple[MarketPolicy, ...]  # in the order of the config

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def baseline(self) -> MarketPolicy | None:
        """Crash Avoid, if the study has it."""
        return next((p for p in self.policies if p.learner == BASELINE), None)

    @property
    def personal(self) -> bool:
        """Whether users have personal QoE."""
        return self.judge is not None

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
    text, config = read(path / "config.yaml", read_config)
    references = MarketReferences.read(path / "references.json")
    table = read(path / "table.npz", QoETable.load) if (path / "table.npz").exists() else None
    folders = {p.name: p for p in (path / "policies").glob("*") if p.is_dir()}
    names = [name for name in config.get("policies", ()) if name in folders]
    if not names:
        raise InputError(f"{path / 'policies'} holds no policy: finish the run with `rlli run`.")
    return MarketRun(
        path=path,
        config=text,
        description=str(config.get("description", "")),
        versions=read(path / "versions.json", read_versions),
        capacity=read(path / "fleet.json", lambda p: np.asarray(read_json(p)["capacity"])),
        split=references.split,
        optimum=None if references.optimum is None else np.asarray(references.optimum),
        tasks=np.asarray(references.tasks),
        judge=None if table is None else table.judge,
        stand_in=table is not None and table.stand_in,
        policies=tuple(_policy(folders[name]) for name in names),
    )


def _policy(folder: Path) -> MarketPolicy:
    curve = folder / "curve.npz"
    return MarketPolicy(
        **MarketSummary.read(folder / "summary.json").model_dump(),
        sums=MarketEvaluation.read(folder / "evaluation.npz").arrays(),
        curve=Curve.read(curve) if curve.exists() else None,
    )


def ratio(run: MarketRun, policy: MarketPolicy) -> Estimate:
    """Return over the offline optimum, mean over seeds and episodes. NaN without an optimum."""
    optimum = np.nan if run.optimum is None else run.optimum
    return two_way_bootstrap(np.asarray, policy.sums["returns"] / optimum)


def interval_words(seeds: int) -> str:
    """What intervals over seeds alone are, for a caption."""
    few = too_few(seeds)
    return f"{few}." if few else "±: half the 95 % Student-t interval over seeds."


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


def render_market(run_dir: str | Path) -> Path:
    """Write ``figures/*`` and ``report.html`` into a run directory; the path of the page.

    InputError where the run directory is incomplete or damaged.
    """
    run = load_market_run(run_dir)
    plates = list(_plates(run))
    page = (
        templates()
        .get_template("market.html")
        .render(
            run=run,
            summary=_summary(run),
            lead=_lead(run),
            details=_details(run),
            rows=[_row(run, policy) for policy in run.policies],
            users=[_user_row(policy) for policy in run.policies] if run.personal else [],
            figures=on_page(plates),
            command=again(run.path),
        )
    )
    return write_report(run.path, plates, page)


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
    rules = [p for p in run.policies if p.curve is None]
    learned = [p for p in run.policies if p.curve is not None]
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
    estimate = ratio(run, policy)
    baseline = run.baseline
    goal = np.inf if baseline is None else float(baseline.returns.mean())
    steps = steps_to(policy, goal)
    reached = np.isfinite(steps).all() and steps.size > 0 and policy.env_steps
    seconds = policy.train_seconds
    return {
        "name": policy.name,
        "returns": plus_minus(policy.mean("returns"), 1),
        "ratio": _percent_plus_minus(estimate),
        "finished": _percent_plus_minus(policy.share("finished")),
        "crashed": _percent_plus_minus(policy.share("crashed")),
        "lost": _percent_plus_minus(policy.share("lost")),
        "utility": plus_minus(policy.mean("utility"), 1),
        "steps": _steps(steps) if reached else ("never" if steps.size else "–"),
        "time": duration(float(steps.mean()) / policy.env_steps * seconds)
        if reached and policy.env_steps and seconds
        else "–",
        "train": duration(seconds),
        "speed": quantity(policy.steps_per_second),
        "sees": ", ".join(policy.observation) + (", mask" if policy.mask else ""),
        "reward": policy.reward if policy.curve is not None else "–",
        "reference": policy.curve is None,
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


def _plates(run: MarketRun) -> Iterator[Plate]:
    with matplotlib.rc_context(STYLE):
        if any(policy.curve is not None for policy in run.policies):
            yield plate("convergence", "Return while training", convergence(run))
        yield plate("returns", "Return of each policy", returns_figure(run))
        yield plate("load", "Load of each provider", _load(run))
        if run.personal:
            yield plate("qoe", "QoE over users", _qoe(run))


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

    ``run``: that of a market, or of an environment.
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
    if run.optimum is not None:
        levels.append(("offline optimum", float(run.optimum.mean())))
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


def returns_figure(run: Any) -> Figure:
    """Mean return with its interval, and the offline optimum as a line."""
    figure = Figure((PAGE, 0.7 + 0.2 * len(run.policies)))
    axes = figure.subplots()
    estimates = [policy.mean("returns") for policy in run.policies]
    # A policy that mostly crashes would push all others into a corner: it becomes an arrow.
    least = -abs(max(float(estimate.value) for estimate in estimates))
    for y, (policy, estimate) in enumerate(zip(run.policies, estimates, strict=True)):
        mean, low, high = (float(x) for x in estimate)
        if np.isfinite(low):
            axes.hlines(y, max(low, least), max(high, least), color=COLOURS[0], linewidth=1.6)
        filled = "white" if policy.curve is None else COLOURS[0]
        axes.plot(
            max(mean, least), y, "<" if mean < least else "o",
            color=COLOURS[0], markerfacecolor=filled, markersize=4,
        )  # fmt: skip
    if run.optimum is not None:
        axes.axvline(float(run.optimum.mean()), color=INK, linewidth=0.9)
    axes.set_yticks(range(len(run.policies)), [p.name for p in run.policies])
    axes.set_ylim(len(run.policies) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Return of an episode (filled: learned; line: offline optimum)")
    return figure


def _load(run: MarketRun) -> Figure:
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


def _qoe(run: MarketRun) -> Figure:
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
