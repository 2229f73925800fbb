"""What a sweep's keys do to the providers themselves: the QoE that they offer, whoever chooses, and
the denoising steps that sharing saves."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.report.labels import SPACE, conjunction, interval, number, slug
from rlli_jax.report.section import Section
from rlli_jax.report.style import COLUMN, DASHES, Drawing, legend, legend_columns
from rlli_jax.report.sweep_data import Key, SweepRun
from rlli_jax.report.sweep_figures import COLOURS, key_axis
from rlli_jax.run_files import Array
from rlli_jax.statistics import MIN_RUNS, Estimate
from rlli_jax.two_way import two_way_bootstrap

QOE_DIGITS, DIFFERENCE_DIGITS = 2, 3


class OfferedAt(NamedTuple):
    """What one provider offers at one value of a key."""

    label: str
    qoe: Estimate  # mean over people and requests
    more: Estimate | None  # than at the first value; None at that one
    saved: float  # share of denoising steps


def cells(run: SweepRun, key: Key, provider: str) -> list[Array]:
    """QoE [requests, people] at each value of a key, mean over the points that have it.

    Requests without a picture at some point are left out everywhere, so that values compare.
    """
    qoe = run.data["offered"].sel(provider=provider).transpose("point", "request", "person").values
    there = np.isfinite(qoe).all((0, 2))
    if not there.any():
        return [np.full((1, qoe.shape[2]), np.nan) for _ in key.levels]
    return [qoe[level.points][:, there].mean(0) for level in key.levels]


def concerned(run: SweepRun) -> list[Key]:
    """The keys that change what some provider offers."""
    return [
        key
        for key in run.varied
        if key.policies is None
        and any(
            not np.array_equal(part, parts[0], equal_nan=True)
            for parts in (cells(run, key, provider) for provider in providers(run))
            for part in parts
        )
    ]


def providers(run: SweepRun) -> list[str]:
    """Their names."""
    return [str(name) for name in run.data["provider"].values]


def offered(run: SweepRun, key: Key, provider: str) -> list[OfferedAt]:
    """What a provider offers at each value of a key. Intervals are over people, and over requests
    with them where there are enough; differences are of the same ones."""
    parts, saved = cells(run, key, provider), run.data["saved"].sel(provider=provider).values
    first = parts[key.levels.index(key.first)]
    return [
        OfferedAt(
            level.label,
            two_way_bootstrap(np.asarray, part),
            None if level is key.first else two_way_bootstrap(np.asarray, part - first),
            float(saved[level.points].mean()),
        )
        for level, part in zip(key.levels, parts, strict=True)
    ]


def draw(run: SweepRun, key: Key) -> Figure:
    """QoE of every provider against a key, above the share of steps that sharing saves there."""
    saves = bool(run.data["saved"].values.any())
    figure = Figure((COLUMN, 3.6 if saves else 2.5))
    rows = figure.subplots(2, sharex=True, height_ratios=(2, 1)) if saves else [figure.subplots()]
    x = np.array([level.x for level in key.levels])
    for index, provider in enumerate(providers(run)):
        found = offered(run, key, provider)
        value, low, high = (np.array(part, float) for part in zip(*(at.qoe for at in found),
                                                                    strict=True))  # fmt: skip
        looks: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index % len(DASHES)] if key.numeric else "none",
            "marker": "o",
            "markersize": 3.5,
        }
        ends = np.nan_to_num(np.stack([value - low, high - value]))
        rows[0].errorbar(x, value, ends, elinewidth=1, capsize=2, label=provider, **looks)
        if saves:
            rows[1].plot(x, [100 * at.saved for at in found], **looks)
    rows[0].set_ylabel("QoE of its pictures")
    if saves:
        rows[1].set_ylabel("Steps saved (%)")
        rows[1].set_ylim(bottom=0)
    key_axis(rows[-1], key, x)
    legend(figure, legend_columns(providers(run), COLUMN))
    return figure


def _name(key: Key) -> str:
    return slug(f"providers-{key.path}")


def _figures(run: SweepRun) -> Iterator[Drawing]:
    for key in concerned(run):
        yield _name(key), f"QoE of providers against {key.path}", draw(run, key)


def _rows(run: SweepRun, key: Key) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Every provider with its lines."""
    for provider in providers(run):
        yield (
            provider,
            [
                {
                    "label": at.label,
                    "qoe": interval(at.qoe, QOE_DIGITS),
                    "more": "–" if at.more is None else _signed(at.more),
                    "saved": f"{number(100 * at.saved, 0)}{SPACE}%",
                }
                for at in offered(run, key, provider)
            ],
        )


def _signed(estimate: Estimate) -> str:
    value, low, high = (number(float(x), DIFFERENCE_DIGITS) for x in estimate)
    return f"{value} ({low}, {high})" if np.isfinite(estimate.low) else value


def _context(run: SweepRun) -> dict[str, Any]:
    sizes = run.data["offered"].sizes
    sources = {"person": "people", "request": "requests"}
    over = [name for dim, name in sources.items() if sizes[dim] >= MIN_RUNS]
    # Without enough people there is none at all.
    return {
        "over": conjunction(over) if sizes["person"] >= MIN_RUNS else "",
        "people": sizes["person"],
        "requests": sizes["request"],
        "saves": bool(run.data["saved"].values.any()),
        "keys": [
            {"path": key.path, "figure": _name(key), "rows": list(_rows(run, key)),
             "first": key.first.label}
            for key in concerned(run)
        ],
    }  # fmt: skip


SECTION = Section(
    "sweep/providers",
    _context,
    _figures,
    lambda run: "offered" in run.data and bool(concerned(run)),
)
