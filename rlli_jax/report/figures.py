"""The figures of a study of provider selection."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from rlli_jax.personas import TRAIT_NAMES
from rlli_jax.report.data import SelectionPolicy, SelectionRun
from rlli_jax.report.labels import (
    Setting,
    number,
    quantity,
    setting,
    setting_words,
    settings,
    slug,
)
from rlli_jax.report.style import (
    BLUE,
    COLUMN,
    DASHES,
    GRID,
    HEAT,
    INK,
    LIGHT_GREY,
    MAX_POINTS,
    MUTED,
    OTHER_COLOURS,
    OUTLINE,
    PAGE,
    SLATE,
    SMOOTHING,
    Drawing,
    legend,
    legend_columns,
    level,
)
from rlli_jax.statistics import smooth, t_interval, within

MAX_USERS = 12
OPTIMUM = "User's own optimum"
LEARNER_COLOURS = {"ppo": BLUE, "dqn": "#d55e00", "random": LIGHT_GREY, "optimal": SLATE}


def learning_curves(run: SelectionRun) -> Iterator[Drawing]:
    """Average return while training (Fig. 4 of the paper), one figure for each setting.

    Each seed's trace is smoothed with a centred window; line and band are the mean over seeds and
    its 95 % Student-t interval; the faint line is the raw mean.
    """
    groups = settings(run.policies)
    low, high = _return_limits(run)
    # As many in every figure, so that their axes line up side by side.
    columns = legend_columns([p.name for p in run.policies if p.learned], COLUMN)
    for group in groups:
        words = setting_words(group, groups)
        figure = Figure((COLUMN, 2.6))
        axes = figure.subplots()
        _curves(axes, run, group)
        axes.set_ylim(low * group.rounds, high * group.rounds)
        axes.set_ylabel("Average return")
        axes.set_title("\n".join(textwrap.wrap(words, 52)))
        _reference_lines(axes, run, group.rounds)
        legend(figure, columns)
        yield slug("curves-" + "-".join(map(str, _setting_parts(group, groups)))), words, figure


def _setting_parts(group: Setting, groups: Sequence[Setting]) -> list[str]:
    parts = list(group.observation)
    if len({g.assignment for g in groups}) > 1:
        parts.append(group.assignment)
    if len({g.rounds for g in groups}) > 1:
        parts.append(str(group.rounds))
    return parts


def _members(run: SelectionRun, group: Setting) -> list[SelectionPolicy]:
    return [p for p in run.policies if p.learned and setting(p) == group]


def _return_limits(run: SelectionRun) -> tuple[float, float]:
    """Limits of one round's objective that every panel shares."""
    reference = run.train.references()
    values = [reference["random"], reference["optimum"]]
    for policy in run.policies:
        if policy.curve is not None:
            mean = t_interval(policy.curve.episode_return).value / policy.rounds
            values += [float(v) for v in mean[np.isfinite(mean)]]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin


def _curves(axes: Axes, run: SelectionRun, group: Setting) -> None:
    looks = policy_looks(run.policies)
    members = _members(run, group)
    steps = {
        int(p.curve.env_steps[-1]) / len(p.curve.env_steps) for p in members if p.curve is not None
    }
    per_iteration = steps.pop() if len(steps) == 1 else None
    for index, policy in enumerate(members):
        assert policy.curve is not None
        colour = looks[policy.name].colour
        x = policy.curve.env_steps / (per_iteration or 1)
        curves = policy.curve.episode_return
        window = max(1, curves.shape[1] // SMOOTHING)
        mean, low, high = t_interval(smooth(curves, window))
        keep = slice(None, None, 1 + len(x) // MAX_POINTS)
        axes.plot(x, t_interval(curves).value, color=colour, alpha=0.3, linewidth=0.6)
        axes.fill_between(x[keep], low[keep], high[keep], color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            x[keep],
            mean[keep],
            color=colour,
            linestyle=DASHES[index % len(DASHES)],
            label=policy.name,
        )
    axes.margins(x=0)
    if per_iteration is None:
        axes.set_xlabel("Environment steps")
        axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    else:
        axes.set_xlabel(f"Iterations of {per_iteration:,.0f} environment steps")


def _reference_lines(axes: Axes, run: SelectionRun, rounds: int) -> None:
    """Optimum, best single provider and random on the training requests, named at the right."""
    reference = run.train.references()
    lines = {
        "random": (reference["random"] * rounds, (0, (1, 2))),
        "best single": (reference["best_single"][1] * rounds, (0, (4, 2))),
        "optimum": (reference["optimum"] * rounds, "solid"),
    }
    low, high = axes.get_ylim()
    heights = _spread([value for value, _ in lines.values()], 0.065 * (high - low))
    for (name, (value, dash)), height in zip(lines.items(), heights, strict=True):
        level(axes, name, value, dash, height)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart to at least ``gap``, upwards, in their order (given ascending)."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    return placed


@dataclass(frozen=True)
class Look:
    """How a policy's bars and lines look everywhere."""

    colour: str
    alpha: float
    hatch: str


def policy_looks(policies: Sequence[SelectionPolicy]) -> dict[str, Look]:
    """Colour by learner; lightness and hatch by setting, where a run has several."""
    others = dict.fromkeys(p.learner for p in policies if p.learner not in LEARNER_COLOURS)
    colours = LEARNER_COLOURS | dict(zip(others, itertools.cycle(OTHER_COLOURS), strict=False))
    groups = settings(policies)
    fills = ((0.45, ""), (1.0, ""), (0.45, "////"), (0.45, "...."))
    looks: dict[str, Look] = {}
    for policy in policies:
        first = groups.index(setting(policy)) if policy.learned and len(groups) > 1 else 1
        # Two variants of a learner in one setting: the second takes the next free fill.
        turns = [fills[(first + i) % len(fills)] for i in range(len(fills))]
        choices = [Look(colours[policy.learner], *fill) for fill in turns]
        free = [look for look in choices if look not in looks.values()]
        looks[policy.name] = (free or choices)[0]
    return looks


def user_bars(run: SelectionRun) -> Figure:
    """Mean QoE of each user under each policy over seeds, with 95 % t intervals (Fig. 5)."""
    looks = policy_looks(run.policies)
    users = run.table.users[:MAX_USERS]
    optimum = run.test.provider_values.max(1)[: len(users)]
    figure = Figure((PAGE, 2.7))
    axes = figure.subplots()
    centres, width = np.arange(len(users)), 0.84 / len(run.policies)
    for index, policy in enumerate(run.policies):
        look = looks[policy.name]
        mean, low, high = (part[: len(users)] for part in within(t_interval(policy.qoe), 0, 1))
        x = centres + (index - (len(run.policies) - 1) / 2) * width
        axes.bar(
            x,
            mean,
            0.92 * width,
            color=look.colour,
            alpha=look.alpha,
            hatch=look.hatch or None,
            edgecolor="white" if look.hatch else "none",
            linewidth=0,
            label=policy.name,
        )
        error = np.nan_to_num(np.stack([mean - low, high - mean]))
        axes.errorbar(x, mean, error, fmt="none", ecolor=INK, elinewidth=0.7, capsize=1.2)
    axes.hlines(
        optimum,
        centres - 0.46,
        centres + 0.46,
        color=INK,
        linewidth=1.1,
        label=OPTIMUM,
    )
    axes.set_xticks(centres, _wrapped(users, (PAGE - 0.6) / len(users)))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(-0.55, len(users) - 0.45)
    axes.set_ylim(0, None)
    axes.set_ylabel("QoE (0 to 1)")
    legend(figure, legend_columns([OPTIMUM, *(p.name for p in run.policies)], PAGE))
    return figure


def choice_maps(run: SelectionRun) -> Figure:
    """Share of each provider among the choices made for each user, one map for each policy."""
    users, providers = run.table.users[:MAX_USERS], run.table.providers
    best = run.test.provider_values.argmax(1)
    panel = max(1.5, 0.29 * len(providers))
    most = max(1, min(4, int((PAGE - 0.9) // panel)))
    rows = -(-len(run.policies) // most)
    columns = -(-len(run.policies) // rows)
    slanted = max(map(len, providers)) * 0.05 > min((PAGE - 0.9) / columns, 3) / len(providers)
    height = rows * (0.3 + 0.2 * len(users)) + (1.0 if slanted else 0.35)
    figure = Figure((PAGE, height))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    numbers = (PAGE - 0.9) / columns / len(providers) > 0.22
    for position, axes in enumerate(grid.flat):
        if position >= len(run.policies):
            axes.set_visible(False)
            continue
        policy = run.policies[position]
        _choice_map(axes, policy.choices.sum((0, 2))[: len(users)], best, numbers)
        axes.set_title(policy.name)
        axes.set_yticks(range(len(users)), [_shortened(user) for user in users])
        if position + columns >= len(run.policies):
            _provider_names(axes, providers, slanted, last_row=position // columns == rows - 1)
        else:
            axes.set_xticks([])
    return figure


def _provider_names(axes: Axes, providers: Sequence[str], slanted: bool, *, last_row: bool) -> None:
    """Names below the lowest map of a column.

    Above the last row they hang into an empty place, so that they must not push the rows apart.
    """
    axes.set_xticks([])
    for index, name in enumerate(providers):
        text = axes.annotate(
            name,
            (index, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4 if not slanted else -7),
            textcoords="offset points",
            ha="right" if slanted else "center",
            va="center" if slanted else "top",
            rotation=45 if slanted else 0,
            rotation_mode="anchor",
            fontsize=7,
            annotation_clip=False,
        )
        text.set_in_layout(last_row)


def _choice_map(axes: Axes, counts: np.ndarray, best: np.ndarray, numbers: bool) -> None:
    total = counts.sum(1, keepdims=True)
    shares = counts / np.where(total > 0, total, 1)
    # Shares as opacity of one colour: it reads on white paper and in a dark scheme alike.
    for (user, provider), share in np.ndenumerate(shares):
        corner = (provider - 0.5, user - 0.5)
        if share > 0:
            axes.add_patch(
                Rectangle(corner, 1, 1, facecolor=HEAT, alpha=min(1.0, float(share)), linewidth=0)
            )
        if numbers:
            axes.text(
                provider,
                user,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if share > 0.55 else (INK if share >= 0.005 else MUTED),
            )
        if provider == best[user]:
            axes.add_patch(
                Rectangle(
                    (corner[0] + 0.04, corner[1] + 0.04),
                    0.92,
                    0.92,
                    facecolor="none",
                    edgecolor=OUTLINE,
                    linewidth=1.5,
                    zorder=3,
                )
            )
    axes.set_xlim(-0.5, shares.shape[1] - 0.5)
    axes.set_ylim(shares.shape[0] - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GRID)


def profiles(run: SelectionRun) -> Figure:
    """Big Five profile of each user: distance of each trait from the middle of the 1-5 scale."""
    traits = run.traits
    assert traits is not None
    users = run.table.users[:MAX_USERS]
    columns = min(len(users), 5 if len(users) <= 5 else 6 if len(users) > 8 else 4)
    rows = -(-len(users) // columns)
    figure = Figure((PAGE, 0.25 + 1.3 * rows))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    y = np.arange(len(TRAIT_NAMES))
    for position, axes in enumerate(grid.flat):
        if position >= len(users):
            axes.set_visible(False)
            continue
        axes.axvline(3, color=MUTED, linewidth=0.6)
        axes.hlines(y, 3, traits[position], color=BLUE, linewidth=2)
        axes.plot(traits[position], y, "o", color=BLUE, markersize=4)
        for value, height in zip(traits[position], y, strict=True):
            right = value >= 3
            axes.annotate(
                number(value),
                (value, height),
                xytext=(4.5 if right else -4.5, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=6.5,
                color=MUTED,
            )
        axes.set_title("\n".join(_wrapped([users[position]], (PAGE - 1.2) / columns)))
        axes.set_xlim(0.2, 5.8)
        axes.set_xticks([1, 3, 5])
        axes.tick_params(labelbottom=position + columns >= len(users), length=0)
        axes.set_ylim(len(y) - 0.5, -0.5)
        axes.set_yticks(y, TRAIT_NAMES)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def human_opinion(run: SelectionRun) -> Figure:
    """Mean human opinion score of the chosen pictures over seeds, with 95 % intervals."""
    human = run.human
    assert human is not None
    best = human.references
    looks = policy_looks(run.policies)
    names = [policy.name for policy in run.policies if policy.name in human.policies]
    # Padded, as the engine does not count how far the last tick label hangs over the axis.
    figure = Figure((COLUMN, 1.2 + 0.24 * len(names)), layout=ConstrainedLayoutEngine(w_pad=0.12))
    axes = figure.subplots()
    for y, name in enumerate(names):
        mean, low, high = (float(part) for part in t_interval(human.policies[name]))
        colour = looks[name].colour
        if np.isfinite(low):
            axes.hlines(y, low, high, color=colour, linewidth=1.4)
        axes.plot(mean, y, "o", color=colour, markersize=4.5)
    lines = (
        ("Random", best.random, (0, (1, 2))),
        (
            f"Best single ({best.best_single_provider})",
            best.best_single,
            (0, (4, 2)),
        ),
        ("Best for each request", best.best_per_request, "solid"),
    )
    for label, value, dash in lines:
        axes.axvline(value, color=INK, linewidth=0.9, linestyle=dash, label=label, zorder=1.5)
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.set_xlabel(f"Mean opinion score ({human.scale})")
    legend(figure, 1)
    return figure


def calibration_curve(run: SelectionRun) -> Figure:
    """Human QoE of the choices on other requests, by the number of requests with human scores."""
    assert run.calibration is not None
    points = run.calibration.curve
    figure = Figure((COLUMN, 2.4))
    axes = figure.subplots()
    with_judges = {point.requests: point.value for point in points}
    alone = {p.requests: p.without_judges for p in points if p.without_judges is not None}
    for intervals, colour, dash, label in (
        (with_judges, BLUE, DASHES[0], "Judges, calibrated by people"),
        (alone, SLATE, DASHES[1], "People's scores alone"),
    ):
        if not intervals:
            continue  # too few requests to leave any out
        x = list(intervals)
        value, low, high = zip(*intervals.values(), strict=True)
        axes.plot(x, value, color=colour, linestyle=dash, marker="o", markersize=2.5, label=label)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    sizes = list(with_judges)
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("Requests with human scores")
    axes.set_ylabel("Human QoE of the choices")
    legend(figure, 1)
    return figure


def _wrapped(names: Sequence[str], inches: float) -> list[str]:
    """Names broken into lines that fit a width in inches at 7.5 points."""
    return ["\n".join(textwrap.wrap(name, max(6, int(inches / 0.07))) or [""]) for name in names]


def _shortened(name: str, characters: int = 24) -> str:
    """A name for one line; the page's tables have it in full."""
    return name if len(name) <= characters else name[: characters - 1].rstrip() + "…"
