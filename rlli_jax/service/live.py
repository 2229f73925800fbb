"""What the service has done so far: for Prometheus, and for the page that shows it live."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from scipy import stats

from rlli_jax.service.decisions import Count

LATEST = 12  # decisions on the page
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)


class Live:
    """Counts since the log began; the Prometheus ones are since this process began."""

    def __init__(self, low: float, high: float) -> None:
        self._scale = (low, high)
        # (policy, provider) -> decisions, ratings, sum and sum of squares of the ratings
        self._cells: dict[tuple[str, str], list[float]] = {}
        self._counters: dict[tuple[str, str], Counter] = {}  # of decisions; to look up is slow
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST)
        self.registry = CollectorRegistry()
        which = ("policy", "provider")
        self._decisions = Counter("rlli_decisions", "Decisions.", which, registry=self.registry)
        self._ratings = Counter("rlli_ratings", "Ratings.", which, registry=self.registry)
        self._qoe = Counter("rlli_qoe", "Sum of ratings, 0 to 1.", which, registry=self.registry)
        self._seconds = Histogram(
            "rlli_select_seconds", "From a request to its decision, in the log.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge("rlli_waiting", "Requests that wait.", registry=self.registry)

    def begin_with(self, counts: Iterable[Count]) -> None:
        """Take over what an earlier process left in the log."""
        for count in counts:
            numbers = [count.decisions, count.ratings, count.total, count.squares]
            self._cells[count.policy, count.provider] = list(map(float, numbers))

    def decided(self, row: dict[str, Any], seconds: float) -> None:
        """Count a row of ``rlli_decisions``."""
        cell = row["policy"], row["provider"]
        self._cell(cell)[0] += 1
        counter = self._counters.get(cell)
        if counter is None:
            counter = self._counters[cell] = self._decisions.labels(*cell)
        counter.inc()
        self._seconds.observe(seconds)
        self._latest.appendleft(row)

    def rated(self, policy: str, provider: str, qoe: float) -> None:
        """Count a rating, on the scale."""
        numbers = self._cell((policy, provider))
        numbers[1] += 1
        numbers[2] += qoe
        numbers[3] += qoe**2
        low, high = self._scale
        self._ratings.labels(policy, provider).inc()
        self._qoe.labels(policy, provider).inc((qoe - low) / (high - low))

    def _cell(self, cell: tuple[str, str]) -> list[float]:
        return self._cells.setdefault(cell, [0.0, 0.0, 0.0, 0.0])

    def summary(self, providers: Sequence[str]) -> dict[str, Any]:
        """By provider and by policy: decisions, ratings, mean QoE and its 95 % interval."""
        names = [*providers, *sorted({p for _, p in self._cells} - set(providers))]
        policies = sorted({policy for policy, _ in self._cells})
        return {
            "scale": self._scale,
            "decisions": int(sum(cell[0] for cell in self._cells.values())),
            "ratings": int(sum(cell[1] for cell in self._cells.values())),
            "providers": [self._row(name, 1) for name in names],
            "policies": [self._row(name, 0) for name in policies],
            "latest": [
                {key: row[key] for key in ("time", "user", "request", "provider", "propensity")}
                for row in self._latest
            ],
        }

    def _row(self, name: str, axis: int) -> dict[str, Any]:
        cells = [numbers for cell, numbers in self._cells.items() if cell[axis] == name]
        decisions, n, total, squares = np.sum(cells, 0) if cells else np.zeros(4)
        row: dict[str, Any] = {"name": name, "decisions": int(decisions), "ratings": int(n)}
        mean = low = high = None
        if n >= 1:
            mean = float(total / n)
        if mean is not None and n >= 2:
            variance = max(squares - n * mean**2, 0.0) / (n - 1)
            half = float(stats.t.ppf(0.975, n - 1)) * (variance / n) ** 0.5
            low, high = max(mean - half, self._scale[0]), min(mean + half, self._scale[1])
        return row | {"qoe": mean, "low": low, "high": high}
