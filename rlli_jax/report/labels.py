"""Words for settings and numbers: one place, so that figures and page say the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlli_jax.statistics import MIN_RUNS, Estimate

if TYPE_CHECKING:
    from rlli_jax.report.data import SelectionPolicy

OBSERVED = {"action": "last action"}
PAPER_OBSERVATION = {"action", "reward"}
ASSIGNMENTS = {
    "shared": "one choice for all users",
    "sequential": "users in turn",
    "joint": "one choice for each user at once",
}
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


class Setting(NamedTuple):
    """What policies must share for their returns to be comparable in one panel."""

    assignment: str
    observation: tuple[str, ...]
    rounds: int


def setting(policy: SelectionPolicy) -> Setting:
    return Setting(policy.assignment, policy.observation, policy.rounds)


def settings(policies: Iterable[SelectionPolicy]) -> list[Setting]:
    """Settings of the learned policies, those that observe least first."""
    found = {setting(p) for p in policies if p.learned}
    return sorted(found, key=lambda s: (len(s.observation), s))


def setting_words(chosen: Setting, all_settings: Sequence[Setting]) -> str:
    """What the policies of a setting observe; assignment and rounds only where they differ."""
    seen = [OBSERVED.get(part, part) for part in chosen.observation]
    words = "Observing " + (conjunction(seen) or "nothing")
    if set(chosen.observation) == PAPER_OBSERVATION:
        words += " (as in the paper)"
    if len({s.assignment for s in all_settings}) > 1:
        words += f", {ASSIGNMENTS.get(chosen.assignment, chosen.assignment)}"
    if len({s.rounds for s in all_settings}) > 1:
        words += f", {chosen.rounds} rounds"
    return words


def slug(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def conjunction(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def number(value: float, digits: int = 1) -> str:
    """A number with a true minus sign; a dash where there is none."""
    return f"{value:,.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "–"


def percent(value: float) -> str:
    return f"{number(100 * value)}{SPACE}%"


def percent_interval(estimate: Estimate, name: str = "") -> str:
    """``99.4 % (99.2–99.6)``, the interval named if asked; no brackets where there is none."""
    low, high = 100 * float(estimate.low), 100 * float(estimate.high)
    interval = f" ({name}{number(low)}–{number(high)})" if math.isfinite(low) else ""
    return percent(float(estimate.value)) + interval


def interval(estimate: Estimate, digits: int) -> str:
    """``0.61 (0.58–0.64)``; no brackets where there is no interval."""
    value, low, high = (number(float(x), digits) for x in estimate)
    return f"{value} ({low}–{high})" if math.isfinite(float(estimate.low)) else value


def about_zero(estimate: Estimate) -> str:
    """What an interval says of zero."""
    return "excludes zero" if estimate.low * estimate.high > 0 else "does not exclude zero"


def too_few(seeds: int) -> str:
    """Why runs over so few seeds have no intervals; empty where they have."""
    if seeds >= MIN_RUNS:
        return ""
    return (
        f"{seeds} seed{'' if seeds == 1 else 's'} give{'s' if seeds == 1 else ''} no interval: "
        f"below {MIN_RUNS} seeds, too little is known of how much runs differ, so no interval is "
        "shown and no difference is called one"
    )


def points_interval(estimate: Estimate) -> str:
    """A difference of shares in percentage points: ``0.6 points (0.2 to 1.1)``."""
    value, low, high = (number(100 * float(x)) for x in estimate)
    return f"{value} points ({low} to {high})"


def plus_minus(estimate: Estimate, digits: int) -> str:
    """Mean ± half the 95 % interval."""
    half = (float(estimate.high) - float(estimate.low)) / 2
    tail = f" ± {number(half, digits)}" if math.isfinite(half) else ""
    return number(float(estimate.value), digits) + tail


def digits_for(scale: float) -> int:
    """Decimals that show four significant digits of a number as large as ``scale``."""
    return min(4, max(0, 3 - math.floor(math.log10(scale)))) if scale > 0 else 1


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{number(seconds, 1 if seconds >= 1 else 2)}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s"


def quantity(value: float | None) -> str:
    """Three significant digits with k, M or G."""
    if value is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{max(0, 2 - math.floor(math.log10(scaled)))}f}{SPACE}{unit}"
    return f"{value:.0f}"
