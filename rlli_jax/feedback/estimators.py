"""Off-policy evaluation: the value of a policy from a log that another policy made.

A log has n rounds: a context x, an action a drawn with propensity p = pi_0(a | x), and its reward
r. A policy pi is valued through its importance weights w = pi(a | x) / p and a model q of the
reward, with q(x, pi) = sum_a pi(a | x) q(x, a). Every estimator is a function of :class:`Rounds`
and of how often each round counts, so that a bootstrap draw is the same function of other counts,
and all are vmapped over policies and draws.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

SWITCH_QUANTILES = (0.9, 0.95, 0.99, 1.0)  # of the weights, as thresholds of SWITCH-DR
SHRINKAGE = tuple(float(x) for x in np.logspace(0, 4, 9))  # lambda of DR with shrinkage


class Rounds(NamedTuple):
    """What estimators see of n rounds of a log, for one policy."""

    reward: jax.Array  # [n]
    weight: jax.Array  # [n], pi(a | x) / p
    q_action: jax.Array  # [n], q(x, a) of the action taken
    q_policy: jax.Array  # [n], q(x, pi)


Estimator = Callable[[Rounds, jax.Array], jax.Array]  # rounds, counts [n] -> value []


def direct_method(rounds: Rounds, count: jax.Array) -> jax.Array:
    """mean q(x, pi) (Beygelzimer & Langford 2009): as right as the model."""
    return _mean(rounds.q_policy, count)


def ips(rounds: Rounds, count: jax.Array) -> jax.Array:
    """mean w r: inverse propensity scoring (Horvitz & Thompson 1952; Strehl et al. 2010)."""
    return _mean(rounds.weight * rounds.reward, count)


def self_normalised_ips(rounds: Rounds, count: jax.Array) -> jax.Array:
    """sum w r / sum w (Swaminathan & Joachims 2015)."""
    return _ratio(rounds.weight * rounds.reward, rounds.weight, count)


def doubly_robust(rounds: Rounds, count: jax.Array) -> jax.Array:
    """mean q(x, pi) + w (r - q(x, a)) (Dudik, Langford & Li 2011)."""
    return _corrected(rounds, rounds.weight, count)


def self_normalised_doubly_robust(rounds: Rounds, count: jax.Array) -> jax.Array:
    """mean q(x, pi) + sum w (r - q(x, a)) / sum w (Thomas & Brunskill 2016)."""
    error = rounds.weight * (rounds.reward - rounds.q_action)
    return _mean(rounds.q_policy, count) + _ratio(error, rounds.weight, count)


def switch_doubly_robust(threshold: float | jax.Array) -> Estimator:
    """SWITCH-DR: doubly robust, with the model alone where w > threshold (Wang et al. 2017)."""

    def estimate(rounds: Rounds, count: jax.Array) -> jax.Array:
        trusted = jnp.where(rounds.weight <= threshold, rounds.weight, 0)
        return _corrected(rounds, trusted, count)

    return estimate


def shrunk_doubly_robust(shrinkage: float | jax.Array) -> Estimator:
    """DRos: doubly robust with lambda w / (w^2 + lambda) for w (Su et al. 2020)."""

    def estimate(rounds: Rounds, count: jax.Array) -> jax.Array:
        weight = shrinkage * rounds.weight / (rounds.weight**2 + shrinkage)
        return _corrected(rounds, weight, count)

    return estimate


ESTIMATORS: Mapping[str, Estimator] = {
    "direct method": direct_method,
    "IPS": ips,
    "self-normalised IPS": self_normalised_ips,
    "doubly robust": doubly_robust,
    "self-normalised doubly robust": self_normalised_doubly_robust,
}
"""The estimators without a setting of their own."""


def tuned(
    family: Callable[[jax.Array], Estimator], settings: jax.Array, rounds: Rounds
) -> jax.Array:
    """The setting of a family of estimators by SLOPE (Su, Srinath & Krishnamurthy 2020).

    ``settings`` [s] run from the least biased to the least variable. Of those whose intervals,
    value ± 2 standard errors, all meet, it is the last: where bias shows, intervals part.
    """
    count = jnp.ones_like(rounds.reward)
    values = jax.vmap(lambda x: family(x)(rounds, count))(settings)
    errors = jax.vmap(lambda x: standard_error(family(x), rounds))(settings)
    low = jax.lax.cummax(values - 2 * errors)
    high = jax.lax.cummin(values + 2 * errors)
    meet = jnp.cumprod(low <= high)
    return settings[meet.sum() - 1]


def standard_error(estimator: Estimator, rounds: Rounds) -> jax.Array:
    """By the infinitesimal jackknife: how the value moves with the count of each round, []."""
    n = rounds.reward.shape[0]
    influence = n * jax.grad(estimator, argnums=1)(rounds, jnp.ones_like(rounds.reward))
    return jnp.sqrt((influence**2).sum()) / n


def bootstrap(
    estimators: Mapping[str, Estimator],
    rounds: Rounds,
    groups: jax.Array,
    key: jax.Array,
    draws: int,
) -> dict[str, jax.Array]:
    """Values of every estimator under draws with replacement, each [draws].

    Whole groups are drawn, so that several rounds of one person count as one piece of evidence.

    Args:
        rounds: of one policy; vmap over policies.
        groups: [n] int32 from 0, who a round is about; all different where rounds are independent.
    """
    number = groups.shape[0]  # at least the number of groups; empty ones count nothing
    present = jnp.zeros(number).at[groups].set(1.0)
    order = jnp.argsort(-present)  # the groups there are come first
    size = present.sum()

    def one(key: jax.Array) -> dict[str, jax.Array]:
        uniform = jax.random.uniform(key, (number,))
        drawn = order[jnp.minimum((uniform * size).astype(jnp.int32), number - 1)]
        times = jnp.zeros(number).at[drawn].add(jnp.where(jnp.arange(number) < size, 1.0, 0.0))
        count = times[groups].astype(rounds.reward.dtype)
        return {name: estimator(rounds, count) for name, estimator in estimators.items()}

    return jax.lax.map(one, jax.random.split(key, draws), batch_size=16)


def empirical_bernstein(
    terms: np.ndarray, bound: float, level: float = 0.95
) -> tuple[float, float]:
    """An interval of the mean of independent ``terms`` [n] in [0, bound] that needs no normality.

    mean ± sqrt(2 V ln(2/d) / n) + 7 bound ln(2/d) / (3 (n - 1)), each side with d = (1 - level) / 2
    (Maurer & Pontil 2009, Theorem 4). Wide, and valid at every n.
    """
    n = len(terms)
    log = float(np.log(4 / (1 - level)))
    margin = np.sqrt(2 * terms.var(ddof=1) * log / n) + 7 * bound * log / (3 * (n - 1))
    return float(terms.mean() - margin), float(terms.mean() + margin)


def normal_interval(value: float, error: float, level: float = 0.95) -> tuple[float, float]:
    """value ± z standard errors."""
    z = float(stats.norm.ppf((1 + level) / 2))
    return value - z * error, value + z * error


def _mean(x: jax.Array, count: jax.Array) -> jax.Array:
    return (count * x).sum() / count.sum()


def _ratio(x: jax.Array, weight: jax.Array, count: jax.Array) -> jax.Array:
    total = (count * weight).sum()
    return jnp.where(total > 0, (count * x).sum() / jnp.where(total > 0, total, 1), 0)


def _corrected(rounds: Rounds, weight: jax.Array, count: jax.Array) -> jax.Array:
    return _mean(rounds.q_policy + weight * (rounds.reward - rounds.q_action), count)


SWITCH = partial(tuned, switch_doubly_robust)
SHRUNK = partial(tuned, shrunk_doubly_robust)
