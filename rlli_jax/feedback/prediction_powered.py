"""Simulated and real together: a judge's predictions of everybody, and what some people said.

A prediction-powered estimate (Angelopoulos et al. 2023, Science 382; PPI++: Angelopoulos, Duchi and
Zrnic 2023, arXiv 2311.01453) is as valid as one from people alone, whatever the judge's error, and
as much narrower as the judge is right.
"""

from typing import NamedTuple

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.feedback.estimators import normal_interval
from rlli_jax.feedback.evaluation import LEVEL
from rlli_jax.feedback.log import Log
from rlli_jax.statistics import Estimate


class Powered(NamedTuple):
    """A mean by people and a judge, and by people alone; 95 % intervals."""

    estimate: Estimate
    trust: float
    """lambda: how far the judge's predictions count; 0 is not at all."""
    classical: Estimate

    @property
    def worth(self) -> float:
        """How many times as many ratings would have given the classical one this interval."""
        width = float(self.estimate.high - self.estimate.low)
        classical = float(self.classical.high - self.classical.low)
        return 1.0 if width == classical else (classical / width) ** 2  # both 0: all said the same


def prediction_powered_mean(
    ratings: np.ndarray,
    predictions: np.ndarray,
    predictions_of_others: np.ndarray,
    *,
    trust: float | None = None,
    level: float = LEVEL,
) -> Powered:
    """theta = lambda mean f(others) + mean(y - lambda f), as ``ppi_mean_ci`` of ppi-python.

    Args:
        ratings: y [n] of people who were asked.
        predictions: f [n] of the same by the judge.
        predictions_of_others: f [N] of people who were not asked.
        trust: lambda; tuned if absent: cov(y, f) / ((1 + n / N) var f), within [0, 1].
        level: of the interval.

    Raises:
        InputError: fewer than 2 people on either side.
    """
    given = ratings, predictions, predictions_of_others
    y, f, others = (np.asarray(x, np.float64) for x in given)
    n, size = len(y), len(others)
    if n < 2 or size < 2 or len(f) != n:
        raise InputError(
            f"{n} ratings, {len(f)} predictions of them and {size} of others; at least 2 people on "
            "either side are needed, and a prediction for each rating."
        )
    if trust is None:
        spread = float(np.concatenate([f, others]).var(ddof=1))
        together = float(((y - y.mean()) * (f - f.mean())).mean())
        trust = min(max(together / ((1 + n / size) * spread), 0.0), 1.0) if spread > 0 else 0.0
    value = trust * others.mean() + (y - trust * f).mean()
    error = np.sqrt((y - trust * f).var() / n + trust**2 * others.var() / size)
    own = y.std() / np.sqrt(n)
    return Powered(
        _estimate(float(value), float(error), level),
        float(trust),
        _estimate(float(y.mean()), float(own), level),
    )


def provider_values(log: Log, predictions: np.ndarray, level: float = LEVEL) -> dict[str, Powered]:
    """What each provider alone would have been worth to all users of a log.

    With g = 1{provider chosen} / propensity, m a provider's self-normalised mean rating and f its
    predictions less their mean: m + mean of lambda f + g (y - m - lambda f), a doubly robust
    estimate with m + lambda f as its model, so that propensities need not be equal. lambda is the
    same for every provider; that which makes the sum of their variances least. Intervals are
    over users.

    Args:
        log: n rounds.
        predictions: f [n, L], QoE that the judge expects of each provider in each round; made
            without the ratings of the log.
        level: of the intervals.

    Raises:
        InputError: predictions of another shape; or the log is of too few users.
    """
    log.require_users()
    if predictions.shape != log.offered.shape:
        raise InputError(
            f"predictions have shape {predictions.shape}; give one of each of "
            f"{len(log.providers)} providers in each of {len(log)} rounds."
        )
    chosen = np.eye(len(log.providers))[log.action] / log.propensity[:, None]  # [n, L]
    # Means by people alone are self-normalised; constants of a judge must not look like knowledge.
    mean = (chosen * log.reward[:, None]).sum(0) / np.maximum(chosen.sum(0), 1e-12)
    people = mean + chosen * (log.reward[:, None] - mean)
    differs = predictions - predictions.mean(0)
    judge = differs * (1 - chosen)  # mean 0, whatever the predictions are
    # Sums over a user's rounds, so that they count as one piece of evidence.
    people, judge = (_by_user(x, log) for x in (people, judge))
    variance = judge.var(0).sum()
    together = ((people - people.mean(0)) * (judge - judge.mean(0))).mean(0).sum()
    trust = float(np.clip(-together / variance, 0, 1)) if variance > 0 else 0.0
    result = {}
    for place, name in enumerate(log.providers):
        both = people[:, place] + trust * judge[:, place]
        result[name] = Powered(_of_mean(both, level), trust, _of_mean(people[:, place], level))
    return result


def _by_user(x: np.ndarray, log: Log) -> np.ndarray:
    """[n, L] -> [users, L], whose mean is that of ``x``."""
    total = np.zeros((log.users, x.shape[1]))
    np.add.at(total, log.user, x)
    return total * log.users / len(log)


def _of_mean(x: np.ndarray, level: float) -> Estimate:
    return _estimate(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))), level)


def _estimate(value: float, error: float, level: float) -> Estimate:
    return Estimate(*np.array([value, *normal_interval(value, error, level)]))
