"""What policies are worth by a log: every estimator, its interval, and whether the log can tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from rlli_jax.errors import InputError
from rlli_jax.feedback.estimators import (
    ESTIMATORS,
    SHRINKAGE,
    SWITCH_QUANTILES,
    Estimator,
    Rounds,
    bootstrap,
    empirical_bernstein,
    shrunk_doubly_robust,
    switch_doubly_robust,
    tuned,
)
from rlli_jax.feedback.log import Log
from rlli_jax.feedback.overlap import Overlap, choose_estimator, overlap
from rlli_jax.feedback.reward_model import cross_fitted, folds
from rlli_jax.statistics import Estimate

DRAWS = 1_000
LEVEL = 0.95
# Names of policies that a log alone suggests.
SINGLE, BY_CONTEXT = "best single provider", "chosen by context"
FOR_EACH_REQUEST = "best provider for each request"


@dataclass(frozen=True)
class Valued:
    """What a log tells of a policy."""

    name: str
    estimates: Mapping[str, Estimate]
    """Of every estimator, in [0, 1] QoE; intervals are over users of the log."""
    safe: Estimate
    """IPS with an empirical Bernstein interval, users weighing alike: wide, and valid at every
    size of a log."""
    overlap: Overlap
    chosen: str
    """The estimator to quote, by the rules of :func:`choose_estimator`."""
    warning: str
    """Why the log cannot tell, by the rules of :meth:`Overlap.warnings`, or nothing."""

    @property
    def best(self) -> Estimate:
        """The estimate to quote."""
        return self.estimates[self.chosen]


def value_policies(
    log: Log,
    policies: Mapping[str, np.ndarray],
    *,
    q: np.ndarray | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Valued]:
    """Value policies from a log that another policy made.

    Args:
        log: n rounds.
        policies: name -> probability of each provider in each round, [n, L]. A policy that was
            fitted on this log must have been fitted on other folds than the round's.
        q: expected reward of each provider in each round, [n, L], from models that did not see
            the round; cross-fitted ridge regression if not given.
        draws: of the bootstrap over users.

    Raises:
        InputError: probabilities have another shape, do not sum to 1, or use a provider that was
            not offered; or the log is of too few users.
    """
    log.require_users()
    q = cross_fitted(log) if q is None else q
    rows = np.arange(len(log))
    for name, probability in policies.items():
        if probability.shape != log.offered.shape or not np.allclose(probability.sum(1), 1):
            raise InputError(
                f"policy {name!r}: give the probability of each of {len(log.providers)} providers "
                f"in each of {len(log)} rounds, summing to 1; not shape {probability.shape}."
            )
        if (probability[~log.offered] > 0).any():
            raise InputError(f"policy {name!r} chooses a provider that was not offered.")
    probabilities = np.stack(list(policies.values()))  # [P, n, L]
    weight = probabilities[:, rows, log.action] / log.propensity
    q_policy = (probabilities * q).sum(-1)
    # Sums of a log's heavy weights lose digits in single precision.
    with jax.enable_x64(True):
        values, samples = _estimate(
            jnp.asarray(log.reward),
            jnp.asarray(weight),
            jnp.asarray(q[rows, log.action]),
            jnp.asarray(q_policy),
            jnp.asarray(log.user),
            jax.random.key(seed),
            draws,
        )
        values, samples = jax.device_get((values, samples))
    result = []
    for i, name in enumerate(policies):
        estimates = {
            key: _interval(float(values[key][i]), samples[key][i], log.users)
            for key in sorted(values)
        }
        terms = np.bincount(log.user, weight[i] * log.reward) / np.bincount(log.user)
        bound = float(probabilities[i].max() / log.propensity.min())
        low, high = empirical_bernstein(terms, bound, LEVEL)
        told = overlap(probabilities[i], log.action, log.propensity, log.offered)
        result.append(
            Valued(
                name=name,
                estimates=estimates,
                safe=Estimate(*np.array([terms.mean(), max(low, 0.0), min(high, 1.0)])),
                overlap=told,
                chosen=choose_estimator(told.effective_sample, len(log)),
                warning="; ".join(told.warnings(len(log))),
            )
        )
    return result


@partial(jax.jit, static_argnames="draws")
def _estimate(
    reward: jax.Array,
    weight: jax.Array,
    q_action: jax.Array,
    q_policy: jax.Array,
    user: jax.Array,
    key: jax.Array,
    draws: int,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Of each of P policies: values [P], bootstrap draws [P, draws]."""

    def one(weight: jax.Array, q_policy: jax.Array) -> tuple:
        rounds = Rounds(reward, weight, q_action, q_policy)
        # From the least biased to the least variable, as SLOPE wants it.
        thresholds = jnp.quantile(weight, jnp.asarray(SWITCH_QUANTILES[::-1]))
        shrinkage = jnp.asarray(SHRINKAGE[::-1])
        estimators: dict[str, Estimator] = {
            **ESTIMATORS,
            "SWITCH-DR": switch_doubly_robust(tuned(switch_doubly_robust, thresholds, rounds)),
            "DR with shrinkage": shrunk_doubly_robust(
                tuned(shrunk_doubly_robust, shrinkage, rounds)
            ),
        }
        count = jnp.ones_like(reward)
        values = {name: estimator(rounds, count) for name, estimator in estimators.items()}
        return values, bootstrap(estimators, rounds, user, key, draws)

    return jax.vmap(one)(weight, q_policy)


def _interval(value: float, samples: np.ndarray, users: int) -> Estimate:
    """value ± t standard deviations of the bootstrap draws.

    Their percentiles, which this replaces, cover too rarely: measured in ``docs/measured.md``.
    """
    half = stats.t.ppf((1 + LEVEL) / 2, users - 1) * samples.std(ddof=1)
    return Estimate(*np.array([value, value - half, value + half]))


def baselines(log: Log, q: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Policies that a log alone suggests: probabilities [n, L] by name.

    All but the random one are chosen on other folds than they are valued on. In a log of several
    requests the best provider for each request is among them.
    """
    q = cross_fitted(log) if q is None else q
    everything = np.zeros(len(log), int)
    policies = {
        "random": log.offered / log.offered.sum(1, keepdims=True),
        SINGLE: _best_of_others(log, everything),
        BY_CONTEXT: greedy(q, log.offered),
    }
    if log.request is not None:
        asked = np.unique(log.request, return_inverse=True)[1]
        if asked.any():  # more than one
            policies[FOR_EACH_REQUEST] = _best_of_others(log, asked)
    return policies


def _best_of_others(log: Log, group: np.ndarray) -> np.ndarray:
    """The provider that did best in a round's group [n] on the other folds, as [n, L].

    By self-normalised means; a provider that the others never met in the group is not chosen.
    """
    fold = folds(log)
    shape = (group.max() + 1, len(log.providers))
    chosen = np.zeros(log.offered.shape)
    for i in range(fold.max() + 1):
        weight = (fold != i) / log.propensity
        total, share = np.zeros(shape), np.zeros(shape)
        np.add.at(total, (group, log.action), weight * log.reward)
        np.add.at(share, (group, log.action), weight)
        mean = np.where(share > 0, total / np.where(share > 0, share, 1), -np.inf)
        chosen[fold == i] = greedy(mean[group], log.offered)[fold == i]
    return chosen


def greedy(score: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """Probability 1 for the offered provider with the highest score [n, L]; ties share it."""
    best = np.where(offered, score, -np.inf)
    winners = best == best.max(1, keepdims=True)
    return winners / winners.sum(1, keepdims=True)
