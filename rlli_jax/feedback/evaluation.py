"""What policies are worth by a log: every estimator, its interval, and whether the log can tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.feedback.estimators import (
    ESTIMATORS,
    SHRINKAGE,
    SWITCH_QUANTILES,
    Diagnostics,
    Estimator,
    Rounds,
    bootstrap,
    diagnostics,
    empirical_bernstein,
    shrunk_doubly_robust,
    switch_doubly_robust,
    tuned,
)
from rlli_jax.feedback.log import Log
from rlli_jax.feedback.reward_model import cross_fitted, folds
from rlli_jax.statistics import Estimate

DRAWS = 1_000
LEVEL = 0.95
ENOUGH_ROUNDS = 50.0  # effective sample below which a log cannot tell
ENOUGH_SHARE = 0.1  # of the rounds, above which weights need no shrinking
SUPPORT = 0.95  # share of a policy's choices that the log must have made too
# Names of policies that a log alone suggests.
SINGLE, BY_CONTEXT = "best single provider", "chosen by context"
FOR_EACH_REQUEST = "best provider for each request"
MANY = 5  # times that a provider must have been chosen to count as seen


@dataclass(frozen=True)
class Valued:
    """What a log tells of a policy."""

    name: str
    estimates: Mapping[str, Estimate]
    """Of every estimator, in [0, 1] QoE; intervals are over users of the log."""
    safe: Estimate
    """IPS with an empirical Bernstein interval, users weighing alike: wide, and valid at every
    size of a log."""
    effective_sample: float
    largest_weight: float
    mean_weight: float
    support: float
    """Share of the policy's choices of providers that were seen in the log."""
    chosen: str
    """The estimator to quote, by the rules of :func:`choose_estimator`."""
    warning: str
    """Why the log cannot tell, or nothing."""

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
        values, samples, told = _estimate(
            jnp.asarray(log.reward),
            jnp.asarray(weight),
            jnp.asarray(q[rows, log.action]),
            jnp.asarray(q_policy),
            jnp.asarray(log.user),
            jax.random.key(seed),
            draws,
        )
        values, samples, told = jax.device_get((values, samples, told))
    seen = log.counts >= MANY
    result = []
    for i, name in enumerate(policies):
        estimates = {
            key: _interval(float(values[key][i]), samples[key][i]) for key in sorted(values)
        }
        terms = np.bincount(log.user, weight[i] * log.reward) / np.bincount(log.user)
        bound = float(probabilities[i].max() / log.propensity.min())
        low, high = empirical_bernstein(terms, bound, LEVEL)
        support = float((probabilities[i] * seen).sum(1).mean())
        chosen, warning = choose_estimator(told.effective_sample[i], support, len(log))
        result.append(
            Valued(
                name=name,
                estimates=estimates,
                safe=Estimate(*np.array([terms.mean(), max(low, 0.0), min(high, 1.0)])),
                effective_sample=float(told.effective_sample[i]),
                largest_weight=float(told.largest_weight[i]),
                mean_weight=float(told.mean_weight[i]),
                support=support,
                chosen=chosen,
                warning=warning,
            )
        )
    return result


def choose_estimator(effective_sample: float, support: float, rounds: int) -> tuple[str, str]:
    """The estimator to quote and, where the log cannot tell, why.

    Doubly robust where the effective sample is at least a tenth of the rounds; below that
    self-normalised, which a few heavy weights move less. Those that trade bias for variance
    (direct method, SWITCH-DR, DR with shrinkage) are never quoted: their intervals leave their bias
    out. Nothing should be decided where the effective sample is below 50 rounds or the log has
    seen less than 95 % of the policy's choices.
    """
    enough = effective_sample >= ENOUGH_SHARE * rounds
    chosen = "doubly robust" if enough else "self-normalised doubly robust"
    if support < SUPPORT:
        return chosen, (
            f"the log has seen {support:.0%} of this policy's choices; the rest is the model's word"
        )
    if effective_sample < ENOUGH_ROUNDS:
        return chosen, (
            f"the log is worth only {effective_sample:.0f} of its {rounds} rounds for this policy"
        )
    return chosen, ""


@partial(jax.jit, static_argnames="draws")
def _estimate(
    reward: jax.Array,
    weight: jax.Array,
    q_action: jax.Array,
    q_policy: jax.Array,
    user: jax.Array,
    key: jax.Array,
    draws: int,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], Diagnostics]:
    """Of each of P policies: values [P], bootstrap draws [P, draws], diagnostics [P]."""

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
        return values, bootstrap(estimators, rounds, user, key, draws), diagnostics(weight)

    return jax.vmap(one)(weight, q_policy)


def _interval(value: float, samples: np.ndarray) -> Estimate:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Estimate(*np.array([value, low, high]))


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
