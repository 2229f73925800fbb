"""How verdicts on what a judge should be able to do are reached: correlations and thresholds."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rlli_jax.run_files.examination import Check, Finding, Outcome

CHECKS: tuple[Check, ...] = get_args(Check)

CONFIDENCE = 0.95


def not_applicable(check: Check, why: str) -> Finding:
    """The check cannot be made of this judge or study."""
    return Finding(check, "not applicable", why)


class Correlation:
    """A correlation with its 95 % interval by Fisher's z (Fisher 1921).

    ``freedom`` is how many pairs were free, as if they were independent pairs: n for n pairs. Of
    ``several`` correlations, each with this many pairs, z is averaged. Where one side does not
    vary, the correlation is 0 and the interval is that of no relation.
    """

    def __init__(self, r: ArrayLike, pairs: float) -> None:
        several = np.atleast_1d(np.asarray(r, np.float64))
        z = np.arctanh(np.clip(np.nan_to_num(several), -0.999999, 0.999999))
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) / np.sqrt(max(pairs - 3, 1) * len(z))
        self.value = float(np.tanh(z.mean()))
        self.low, self.high = (float(np.tanh(z.mean() + side * half)) for side in (-1, 1))

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, freedom: float | None = None) -> Correlation:
        """Of two arrays of one shape; ``freedom`` if fewer than all pairs are free."""
        return cls(correlation(a, b), a.size if freedom is None else freedom)

    def outcome(self, passes: float) -> Outcome:
        """Pass from ``passes`` on, weak where only the interval lies above 0."""
        if not self.low > 0:
            return "fail"
        return "pass" if self.value >= passes else "weak"


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two arrays of one shape; 0 where one of them does not vary."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size > 1e-12 else 0.0


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of the values with Student's 95 % interval; NaN ends for fewer than two."""
    mean = float(values.mean())
    if values.size < 2:
        return mean, float("nan"), float("nan")
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1)
    half = float(quantile * values.std(ddof=1) / np.sqrt(values.size))
    return mean, mean - half, mean + half


def graded(value: float, passes: float, weak: float) -> Outcome:
    """Pass from ``passes`` on, weak from ``weak`` on."""
    return "pass" if value >= passes else "weak" if value >= weak else "fail"


ORDER: tuple[Outcome, ...] = ("not applicable", "pass", "weak", "fail")


def worst(*outcomes: Outcome) -> Outcome:
    """The worst of several outcomes."""
    return max(outcomes, key=ORDER.index)
