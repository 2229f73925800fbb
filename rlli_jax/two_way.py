"""Intervals over two sources of noise: the training seeds and the episodes of evaluation.

A return measured on a few episodes is that of these episodes: other tasks give another one, however
many seeds were trained. So seeds and episodes are resampled together, each by itself, all policies
on the same draw of episodes (the pigeonhole bootstrap; Owen 2007, Annals of Applied Statistics
1(2)). One fewer than there are is drawn of either, which makes the standard error that of a small
sample (Rao and Wu 1988), and it is multiplied by Student's quantile at Satterthwaite's degrees of
freedom.

Fewer than ``MIN_RUNS`` seeds say too little of other seeds: they are then kept as they are, and the
interval is over episodes only, for the policies that were trained. With fewer than ``MIN_RUNS``
episodes there is none (NaN).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlli_jax.statistics import CONFIDENCE, MIN_RUNS, Estimate

Array = NDArray[np.float64]
RESAMPLES = 2000


def two_way_bootstrap(
    statistic: Callable[..., Array], *sums: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean over seeds of a statistic of means over episodes, with its interval.

    Args:
        statistic: takes the mean over episodes of each array of ``sums``, [B, ...], and gives [B].
        sums: each [seeds, episodes, ...]; all with the same seeds and episodes.
        resamples, seed: of the bootstrap.
    """
    arrays = [np.asarray(x, np.float64) for x in sums]

    def resampled(seeds: Array, episodes: Array) -> Array:
        return _mean(statistic, arrays, seeds, episodes)

    return _estimate(resampled, arrays[0].shape[:2], resamples, seed)


def two_way_difference(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of ``first`` [seeds, episodes] minus that of ``second``, with its interval.

    The episodes are the same; the seeds are not paired, and may differ in number.
    """
    one, other = (np.asarray(x, np.float64) for x in (first, second))

    def resampled(seeds: Array, other_seeds: Array, episodes: Array) -> Array:
        return _mean(_same, [one], seeds, episodes) - _mean(_same, [other], other_seeds, episodes)

    return _estimate(resampled, (len(one), *other.shape), resamples, seed)


def interval_over(seeds: int, count: int, what: str = "episodes") -> str | None:
    """What an interval of so many seeds and episodes (or ``what``) is over, in words; None if
    there is none."""
    if count < MIN_RUNS:
        return None
    return f"seeds and {what}" if seeds >= MIN_RUNS else what


def _same(x: Array) -> Array:
    return x


def _mean(
    statistic: Callable[..., Array], sums: Sequence[Array], seeds: Array, episodes: Array
) -> Array:
    """The statistic with weights of seeds [B, S] and episodes [B, E]; one of the two B may be 1."""
    of_seed = [
        statistic(*(np.tensordot(episodes, x[s], 1) for x in sums)) for s in range(seeds.shape[1])
    ]
    return np.asarray((seeds * np.stack(of_seed, -1)).sum(-1))


def _estimate(
    resampled: Callable[..., Array], counts: Sequence[int], resamples: int, seed: int
) -> Estimate:
    """``resampled`` takes weights [B, count] of each source of noise; the last are the episodes."""
    generator = np.random.default_rng(seed)
    even = [np.full((1, count), 1 / count) for count in counts]
    value = np.asarray(resampled(*even)[0])
    if counts[-1] < MIN_RUNS:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    drawn = [
        generator.multinomial(count - 1, weights[0], resamples) / (count - 1)
        if count >= MIN_RUNS
        else weights
        for count, weights in zip(counts, even, strict=True)
    ]
    error = resampled(*drawn).std()
    alone = np.array(
        [resampled(*even[:i], drawn[i], *even[i + 1 :]).var() for i in range(len(counts))]
    )
    freedom = alone.sum() ** 2 / max((alone**2 / np.maximum(1, np.array(counts) - 1)).sum(), 1e-300)
    half = error * stats.t.ppf((1 + CONFIDENCE) / 2, max(freedom, 1))
    return Estimate(value, value - half, value + half)
