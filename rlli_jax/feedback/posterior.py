"""The judge's word as prior, people's ratings as evidence: a posterior of everybody's QoE.

    QoE(x, a) = s f(x, a) + u_a + v_a . x + noise

with f the judge's prediction for persona x and provider a; s ~ N(1, 1/4), u_a and v_a ~ N(0, .),
all independent. The variances of u, v and the noise are those that make the ratings likeliest
(empirical Bayes; MacKay 1992), so that people decide how far the judge is corrected; that of s,
which is one number, cannot be told from it. Without a judge f is left out, and u_a varies around a
common level.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from rlli_jax.errors import InputError
from rlli_jax.feedback.estimators import normal_interval
from rlli_jax.feedback.log import Log
from rlli_jax.feedback.reward_model import folds
from rlli_jax.statistics import Estimate

SPREAD = (1e-5, 1.0)  # of each prior standard deviation, in QoE from 0 to 1
DOUBT = 0.5  # prior standard deviation of s
SLOPE = 3.0  # traits are divided by it: from 1-5 around 3 to about unit size
# Many fits of three numbers each: to share their small matrices among threads takes longer.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@dataclass(frozen=True)
class Posterior:
    """Of the coefficients s, u_a, v_a."""

    mean: np.ndarray
    """[p]"""
    covariance: np.ndarray
    """[p, p]"""
    prior: np.ndarray
    """[p], variances before any rating."""
    noise: float
    """Standard deviation of one rating."""
    level: float
    """The common level, without a judge; else 0."""
    providers: int
    judged: bool
    """Whether there is a judge."""
    ratings: int

    def predict(
        self, traits: np.ndarray, predictions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the QoE of each provider for each persona, [K, L] each.

        Args:
            traits: [K, 5] on the 1-5 scale.
            predictions: f [K, L]; None without a judge.
        """
        design = _designs(traits, predictions if self.judged else None, self.providers)
        mean = self.level + design @ self.mean
        variance = np.einsum("klp,pq,klq->kl", design, self.covariance, design)
        return mean.clip(0, 1), np.sqrt(np.maximum(variance, 0))

    def learned(self, traits: np.ndarray) -> np.ndarray:
        """What ratings tell of how far people are from the judge's word about a provider, [K, L].

        Share of the variance of u_a + v_a . x that they removed: 0 for a provider that nobody
        rated, and where all that people say is explained by the judge.

        Args:
            traits: [K, 5] on the 1-5 scale.
        """
        own = slice(int(self.judged), None)
        design = _designs(traits, None, self.providers)
        before = np.einsum("klp,p->kl", design**2, self.prior[own])
        after = np.einsum("klp,pq,klq->kl", design, self.covariance[own, own], design)
        return np.asarray(1 - after / before).clip(0, 1)

    @property
    def trust(self) -> float:
        """s: QoE of people for each of the judge's; NaN without a judge."""
        return float(self.mean[0]) if self.judged else float("nan")


def _designs(traits: np.ndarray, predictions: np.ndarray | None, providers: int) -> np.ndarray:
    """[K, L, p]."""
    people = len(traits)
    scaled = (traits - 3) / SLOPE
    own = np.eye(providers)
    offsets = np.broadcast_to(own, (people, providers, providers))
    slopes = np.einsum("kd,lm->klmd", scaled, own).reshape(people, providers, -1)
    parts = [offsets, slopes] if predictions is None else [predictions[..., None], offsets, slopes]
    return np.concatenate(parts, -1)


def fit_posterior(
    traits: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    providers: int,
    predictions: np.ndarray | None = None,
) -> Posterior:
    """From n ratings.

    Args:
        traits: [n, 5] of those who rated, on the 1-5 scale.
        action: [n] int, what they rated.
        reward: [n] in [0, 1].
        providers: L.
        predictions: f [n, L] of a judge that did not see the ratings; None: without one.

    Raises:
        InputError: fewer than 2 ratings.
    """
    n = len(reward)
    if n < 2:
        raise InputError(f"a posterior needs at least 2 ratings, not {n}.")
    judged = predictions is not None
    design = _designs(traits, predictions, providers)[np.arange(n), action]
    start = np.zeros(design.shape[1])
    start[0] = float(judged)
    level = 0.0 if judged else float(reward.mean())
    y = reward - level - design @ start
    kinds = np.repeat([0, 1, 2], [int(judged), providers, providers * traits.shape[1]])
    gram, right, square = design.T @ design, design.T @ y, float(y @ y)

    def variances(logs: np.ndarray) -> np.ndarray:
        return np.array([DOUBT**2, *np.exp(2 * logs[:2])])[kinds]

    def at(logs: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Minus twice the log evidence, mean and covariance."""
        noise, prior = np.exp(2 * logs[2]), variances(logs)
        precision = gram / noise
        precision[np.diag_indices_from(precision)] += 1 / prior
        factor = cho_factor(precision, lower=True)
        mean = cho_solve(factor, right / noise)
        volume = 2 * np.log(np.diag(factor[0])).sum() + np.log(prior).sum() + n * np.log(noise)
        return volume + square / noise - right @ mean / noise, mean, factor[0]

    low, high = map(float, np.log(SPREAD))
    first = np.log([0.1, 0.03, max(float(y.std()), 0.02)])

    def unlikely(logs: np.ndarray) -> float:
        return float(at(logs)[0])

    logs = minimize(unlikely, first, bounds=[(low, high)] * 3, method="L-BFGS-B").x
    _, mean, lower = at(logs)
    covariance = cho_solve((lower, True), np.eye(len(mean)))
    noise = float(np.exp(logs[2]))
    prior = variances(logs)
    return Posterior(start + mean, covariance, prior, noise, level, providers, judged, n)


class Comparison(NamedTuple):
    """Whether a judge as prior helps to predict people who were not seen."""

    gain: Estimate
    """Squared error without the judge less that with it; positive where it helps. Over users."""
    trust: float

    @property
    def warning(self) -> str:
        """One sentence where the prior hurts, or nothing."""
        if self.gain.high < 0:
            return (
                "The judge misleads: people are predicted better without it, so do not train on it."
            )
        return ""


@one_thread
def does_the_prior_help(log: Log, predictions: np.ndarray, traits: np.ndarray) -> Comparison:
    """Predict the ratings of each fold of users from the others', with and without the judge.

    Args:
        log: n rounds.
        predictions: f [n, L], made without the ratings of the log.
        traits: [n, 5] on the 1-5 scale.
    """
    fold, rows = folds(log), np.arange(len(log))
    error = np.zeros((2, len(log)))
    for i in range(fold.max() + 1):
        train, test = fold != i, fold == i
        for k, f in enumerate((None, predictions)):
            known = None if f is None else f[train]
            fitted = fit_posterior(
                traits[train], log.action[train], log.reward[train], len(log.providers), known
            )
            mean, _ = fitted.predict(traits[test], None if f is None else f[test])
            error[k, test] = (log.reward[test] - mean[rows[: test.sum()], log.action[test]]) ** 2
    gain = np.bincount(log.user, error[0] - error[1]) * log.users / len(log)
    spread = float(gain.std(ddof=1) / np.sqrt(log.users))
    value = float(gain.mean())
    everything = fit_posterior(traits, log.action, log.reward, len(log.providers), predictions)
    interval = Estimate(*np.array([value, *normal_interval(value, spread)]))
    return Comparison(interval, everything.trust)


class Bought(NamedTuple):
    """What the ratings of so many people buy: QoE of choices for people who were not asked."""

    people: int
    with_judge: Estimate
    without: Estimate


@one_thread
def curve(
    log: Log,
    predictions: np.ndarray,
    traits: np.ndarray,
    sizes: tuple[int, ...],
    draws: int = 20,
    seed: int = 0,
) -> list[Bought]:
    """The value of choosing by the posterior of n people's ratings, for each n.

    n users are drawn, the provider with the highest posterior mean is chosen for each of the
    others, and that policy is valued by self-normalised weights on the others' ratings. Intervals:
    the middle 95 % of the draws, so they are over who is asked and who is left.

    Args:
        log: n rounds.
        predictions: f [n, L], made without the ratings of the log.
        traits: [n, 5] on the 1-5 scale.
        sizes: numbers of people, 0 too: then the judge alone chooses (without one, chance).
        draws: of those who are asked.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    providers = len(log.providers)
    result = []
    for size in sizes:
        if size > log.users - 2:
            raise InputError(f"{size} people of {log.users} leave nobody to value choices on.")
        values = np.zeros((2, draws))
        for draw in range(draws):
            asked = np.isin(log.user, rng.permutation(log.users)[:size])
            for k, f in enumerate((predictions, None)):
                if size < 2:
                    score = np.zeros((int((~asked).sum()), providers)) if f is None else f[~asked]
                else:
                    known = None if f is None else f[asked]
                    fitted = fit_posterior(
                        traits[asked], log.action[asked], log.reward[asked], providers, known
                    )
                    score, _ = fitted.predict(traits[~asked], None if f is None else f[~asked])
                score = np.where(log.offered[~asked], score, -np.inf)
                best = score == score.max(1, keepdims=True)
                chosen = log.action[~asked]
                weight = (best / best.sum(1, keepdims=True))[np.arange(len(chosen)), chosen]
                weight = weight / log.propensity[~asked]
                values[k, draw] = weight @ log.reward[~asked] / max(weight.sum(), 1e-12)
        middle = [np.array([x.mean(), *np.percentile(x, [2.5, 97.5])]) for x in values]
        result.append(Bought(size, Estimate(*middle[0]), Estimate(*middle[1])))
    return result
