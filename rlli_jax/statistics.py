"""Statistics over seeds: what a study states about its runs.

Few seeds call for robust aggregates with intervals: the interquartile mean, probability of
improvement and performance profiles (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge
of the Statistical Precipice"), Student-t bands for curves and bars, and Jain's fairness index.
NumPy and SciPy only.

Every interval here is over runs: it says what other runs of the same study would give. The
percentile bootstrap, which Agarwal et al. use, covers the truth too rarely where runs are few (90 %
of the time at 5 runs and 92 % at 10, where 95 % is claimed), so intervals are made in ways that
hold their level from 5 runs on. Below ``MIN_RUNS`` they are NaN: none is given.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize, stats

CONFIDENCE = 0.95
MIN_RUNS = 5  # for an interval
RESAMPLES = 5000


class Estimate(NamedTuple):
    """A number, or an array of numbers, with the ends of its 95 % interval (same shape)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def within(estimate: Estimate, least: float, most: float) -> Estimate:
    """The estimate with its interval cut to what is possible, ``least`` to ``most``.

    An interval by a t distribution does not know that a share ends at 1: what it claims beyond is
    impossible, and cutting it loses no coverage. The value itself stays, and within its interval.
    """
    value, low, high = estimate
    return Estimate(
        value,
        np.minimum(np.clip(low, least, most), value),
        np.maximum(np.clip(high, least, most), value),
    )


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> NDArray[np.float64]:
    """Mean of the middle half of ``scores``: ``floor(n / 4)`` values are cut from each end."""
    return np.asarray(stats.trim_mean(np.asarray(scores, np.float64), 0.25, axis=axis))


def bootstrap_iqm(scores: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Interquartile mean of all scores, with its bootstrap-t interval.

    ``scores``: [runs] or [runs, tasks]. Whole runs are resampled, with what they scored in every
    task: run i may have the same seed in all of them, and what seeds share does not average out
    over tasks. The interval is symmetric: the standard error of the
    resampled means, corrected for the small number of runs (Efron and Tibshirani 1993, Section
    5.3), times Student's quantile at Welch's degrees of freedom. NaN below ``MIN_RUNS`` runs.
    """
    value = interquartile_mean(scores)
    return _t_estimate(value, [_table(scores)], resamples, np.random.default_rng(seed))


def bootstrap_difference(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Difference of two interquartile means, first minus second, with its bootstrap-t interval.

    The two sets of runs are resampled independently, each as in :func:`bootstrap_iqm`.
    """
    value = interquartile_mean(first) - interquartile_mean(second)
    tables = [_table(first), _table(second)]
    return _t_estimate(value, tables, resamples, np.random.default_rng(seed))


def probability_of_improvement(first: ArrayLike, second: ArrayLike) -> Estimate:
    """How likely a run of ``first`` beats one of ``second`` on the same task, ties counting half.

    Mann and Whitney's U over the number of pairs, averaged over tasks (Agarwal et al. 2021,
    Section 4.3), with the interval of Newcombe 2006 (method 5), which stays honest where every run
    of one side beats every run of the other. ``first``: [runs] or [runs, tasks]; ``second`` may
    have another number of runs. The interval is NaN below ``MIN_RUNS`` runs on either side.
    """
    one, other = _table(first), _table(second)
    ranks = stats.rankdata(np.concatenate([one, other]), axis=0)[: len(one)].sum(0)
    wins = ranks - len(one) * (len(one) + 1) / 2  # Mann and Whitney's U of each task
    value = float(wins.mean() / (len(one) * len(other)))
    if min(len(one), len(other)) < MIN_RUNS:
        return _without_interval(value)
    middle = (len(one) + len(other)) / 2 - 1
    scale = stats.norm.ppf((1 + CONFIDENCE) / 2) ** 2 / (len(one) * other.size)

    def beyond(p: float) -> float:
        """Below zero where ``value`` is within what ``p`` leads to expect."""
        spread = 1 + middle * ((1 - p) / (2 - p) + p / (1 + p))
        return float((value - p) ** 2 - scale * p * (1 - p) * spread)

    near = 1e-9  # at 0 and at 1 `beyond` has a second root
    low = optimize.brentq(beyond, 0, value - near) if value > near else 0.0
    high = optimize.brentq(beyond, value + near, 1) if value < 1 - near else 1.0
    return Estimate(*map(np.asarray, (value, low, high)))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Estimate:
    """Fraction of all runs whose score is above each threshold, with Wilson's interval (1927).

    The score distribution of Agarwal et al. 2021, Section 4.2. ``scores``: [runs] or
    [runs, tasks]; the estimate has the shape of ``thresholds`` [T], and its interval is one for
    each threshold, not for the whole curve. It is NaN below ``MIN_RUNS`` runs.
    """
    levels, table = np.asarray(thresholds, np.float64), _table(scores)
    value = np.stack([(table > level).mean() for level in levels])
    if len(table) < MIN_RUNS:
        return _without_interval(value)
    square = stats.norm.ppf((1 + CONFIDENCE) / 2) ** 2 / table.size
    middle = (value + square / 2) / (1 + square)
    half = np.sqrt(square * (value * (1 - value) + square / 4)) / (1 + square)
    # Exact at the ends, where rounding may leave the interval just short of the value.
    return Estimate(value, np.minimum(middle - half, value), np.maximum(middle + half, value))


def t_interval(values: ArrayLike) -> Estimate:
    """Mean over the first axis with its Student-t interval; NaN entries are left out.

    ``values``: [runs, ...]; the estimate has the remaining shape. Where no value is left the mean
    is NaN, and where fewer than ``MIN_RUNS`` are left the interval is NaN.
    """
    array = np.asarray(values, np.float64)
    count = np.isfinite(array).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(array, 0) / count
        variance = np.nansum((array - mean) ** 2, 0) / (count - 1)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(count - 1, 1))
        half = np.where(count >= MIN_RUNS, quantile * np.sqrt(variance / count), np.nan)
    return Estimate(mean, mean - half, mean + half)


def smooth(curves: ArrayLike, window: int) -> NDArray[np.float64]:
    """Centred sliding mean along the last axis; NaN entries are left out, ends use what is there.

    A window without any value gives NaN.
    """
    array = np.asarray(curves, np.float64)
    present = np.isfinite(array)

    def window_mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.uniform_filter1d(x, window, axis=-1, mode="constant"))

    total, share = window_mean(np.where(present, array, 0.0)), window_mean(present.astype(float))
    some = share > 0.5 / window  # the filter's running sums leave rounding noise near zero
    return np.where(some, total / np.where(some, share, 1.0), np.nan)


def jain_index(shares: ArrayLike) -> NDArray[np.float64]:
    """Jain's fairness index over the last axis: ``(sum x)^2 / (n sum x^2)``, in [1/n, 1].

    Jain, Chiu and Hawe 1984. It is 1 where all shares are equal, all-zero shares included.
    ``shares`` must not be negative (ValueError).
    """
    array = np.asarray(shares, np.float64)
    if np.any(array < 0):
        raise ValueError("Jain's index is defined for shares that are not negative.")
    squares = array.shape[-1] * np.sum(array**2, -1)
    return np.where(squares > 0, np.sum(array, -1) ** 2 / np.where(squares > 0, squares, 1.0), 1.0)


def _table(scores: ArrayLike) -> NDArray[np.float64]:
    """[runs, tasks]."""
    array = np.asarray(scores, np.float64)
    return array.reshape(len(array), -1)


def _resample(
    table: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """[resamples, runs * tasks]: whole runs redrawn with replacement."""
    rows = generator.integers(len(table), size=(resamples, len(table)))
    return table[rows].reshape(resamples, -1)


def _t_estimate(
    value: NDArray[np.float64],
    tables: Sequence[NDArray[np.float64]],
    resamples: int,
    generator: np.random.Generator,
) -> Estimate:
    """Of a sum or a difference of the interquartile means of independent tables."""
    if min(map(len, tables)) < MIN_RUNS:
        return _without_interval(value)
    variance = sum(
        interquartile_mean(_resample(table, resamples, generator), 1).var()
        * (len(table) / (len(table) - 1))
        for table in tables
    )
    # Welch and Satterthwaite: each table is a mean over runs with n - 1 degrees of freedom.
    parts = [(float(t.mean(1).var(ddof=1)) / len(t), len(t) - 1) for t in tables]
    total = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / squares if squares > 0 else 1.0  # without spread any will do
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance)
    return Estimate(value, value - half, value + half)


def _without_interval(value: ArrayLike) -> Estimate:
    array = np.asarray(value, np.float64)
    return Estimate(array, np.full_like(array, np.nan), np.full_like(array, np.nan))
