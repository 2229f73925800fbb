"""Statistics over seeds: what a study states about its runs.

Few seeds call for robust aggregates with intervals: the interquartile mean with a stratified
bootstrap, probability of improvement and performance profiles (Agarwal et al. 2021, "Deep
Reinforcement Learning at the Edge of the Statistical Precipice"), Student-t bands for curves and
bars, and Jain's fairness index. NumPy and SciPy only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats

CONFIDENCE = 0.95
RESAMPLES = 5000


class Estimate(NamedTuple):
    """A number, or an array of numbers, with the ends of its 95 % interval (same shape)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> NDArray[np.float64]:
    """Mean of the middle half of ``scores``: ``floor(n / 4)`` values are cut from each end."""
    return np.asarray(stats.trim_mean(np.asarray(scores, np.float64), 0.25, axis=axis))


def stratified_bootstrap(
    scores: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Interquartile mean of all scores, with its percentile bootstrap interval.

    ``scores``: [runs] or [runs, strata]. Each stratum (a task) is resampled over its own runs,
    independently of the other strata. A single run has no spread to resample: its interval is NaN.
    """
    samples = _resample(scores, resamples, np.random.default_rng(seed))
    return _percentile_estimate(interquartile_mean(scores), interquartile_mean(samples, 1), scores)


def bootstrap_difference(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Difference of two interquartile means, first minus second, with its bootstrap interval.

    The two sets of runs are resampled independently, each as in :func:`stratified_bootstrap`.
    """
    generator = np.random.default_rng(seed)
    samples = interquartile_mean(_resample(first, resamples, generator), 1) - interquartile_mean(
        _resample(second, resamples, generator), 1
    )
    value = interquartile_mean(first) - interquartile_mean(second)
    return _percentile_estimate(value, samples, first, second)


def probability_of_improvement(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """How likely a run of ``first`` beats one of ``second`` on the same task, ties counting half.

    Mann and Whitney's U over the number of pairs, averaged over tasks (Agarwal et al. 2021,
    Section 4.3), with its interval by a stratified bootstrap of both. ``first``: [runs] or
    [runs, tasks]; ``second`` may have another number of runs.
    """
    one, other = (_table(scores) for scores in (first, second))

    def probability(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """[..., runs, tasks], twice -> [...]."""
        ascending = np.sort(y, -2)
        ranks = np.empty(x.shape)
        for task in np.ndindex(*x.shape[:-2], x.shape[-1]):
            place = (*task[:-1], slice(None), task[-1])
            below = np.searchsorted(ascending[place], x[place], "left")
            up_to = np.searchsorted(ascending[place], x[place], "right")
            ranks[place] = (below + up_to) / 2
        return ranks.mean((-2, -1)) / y.shape[-2]

    generator = np.random.default_rng(seed)
    samples = [
        _resample(scores, resamples, generator).reshape(resamples, *scores.shape)
        for scores in (one, other)
    ]
    return _percentile_estimate(probability(one, other), probability(*samples), one, other)


def performance_profile(
    scores: ArrayLike, thresholds: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Fraction of all runs whose score is above each threshold, with its bootstrap interval.

    The score distribution of Agarwal et al. 2021, Section 4.2. ``scores``: [runs] or
    [runs, tasks], each task resampled over its own runs; the estimate has the shape of
    ``thresholds`` [T], and its interval is one for each threshold, not for the whole curve.
    """
    levels = np.asarray(thresholds, np.float64)

    def above(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[..., all runs] -> [..., T]."""
        return np.stack([(values > level).mean(-1) for level in levels], -1)

    table = _table(scores)
    value = above(table.reshape(-1))
    if len(table) < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    samples = above(_resample(table, resamples, np.random.default_rng(seed)))
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return Estimate(value, low, high)


def t_interval(values: ArrayLike) -> Estimate:
    """Mean over the first axis with its Student-t interval; NaN entries are left out.

    ``values``: [runs, ...]; the estimate has the remaining shape. Where no value is left the mean
    is NaN, and where fewer than two are left the interval is NaN.
    """
    array = np.asarray(values, np.float64)
    count = np.isfinite(array).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(array, 0) / count
        variance = np.nansum((array - mean) ** 2, 0) / (count - 1)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(count - 1, 1))
        half = np.where(count > 1, quantile * np.sqrt(variance / count), np.nan)
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
    scores: ArrayLike, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """[resamples, runs * strata]: every stratum redrawn with replacement over its runs."""
    table = _table(scores)
    rows = generator.integers(len(table), size=(resamples, *table.shape))
    return table[rows, np.arange(table.shape[1])].reshape(resamples, -1)


def _percentile_estimate(
    value: NDArray[np.float64], samples: NDArray[np.float64], *runs: ArrayLike
) -> Estimate:
    if min(len(np.asarray(r)) for r in runs) < 2:
        return Estimate(value, np.asarray(np.nan), np.asarray(np.nan))
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, low, high)
