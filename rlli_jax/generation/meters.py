"""What making pictures takes: time, and energy where a counter of the machine can be read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

COUNTERS = Path("/sys/class/powercap")  # of Linux: RAPL, which counts what processors use


class Spent(NamedTuple):
    """What something took."""

    seconds: float
    joules: float | None
    """Of the whole processor, whatever else it did; None: no counter."""

    def part(self, of: int) -> Spent:
        """One of so many equal parts."""
        return Spent(self.seconds / of, None if self.joules is None else self.joules / of)

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        known = None not in (self.joules, other.joules)
        joules = (self.joules or 0.0) + (other.joules or 0.0) if known else None
        return Spent(self.seconds + other.seconds, joules)


NOTHING = Spent(0.0, 0.0)


class Meter:
    """Begins to count when it is made."""

    def __init__(self) -> None:
        self._joules, self._started = energy(), time.monotonic()

    def read(self) -> Spent:
        """What was spent since."""
        seconds, now = time.monotonic() - self._started, energy()
        known = now is not None and self._joules is not None and now >= self._joules  # runs over
        return Spent(seconds, now - self._joules if known else None)  # type: ignore[operator]


def energy() -> float | None:
    """Joules that this machine's processors have used, by RAPL; None where it cannot be read."""
    total = 0.0
    try:
        packages = sorted(COUNTERS.glob("intel-rapl:?"))
        for package in packages:
            total += int((package / "energy_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None
    return total if packages else None
