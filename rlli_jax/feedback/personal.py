"""Is personalising worth it? One test and one number, for a log or a table.

The test asks whether the best provider depends on the persona: provider x trait interaction by
permuting traits over people. The number says what choosing by persona adds over the best single
provider, both chosen on other people than they are valued on.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, stats

from rlli_jax.errors import InputError
from rlli_jax.feedback.evaluation import BY_CONTEXT, FOR_EACH_REQUEST, LEVEL, SINGLE, baselines
from rlli_jax.feedback.log import Log
from rlli_jax.feedback.reward_model import cross_fitted
from rlli_jax.run_files.people import Gain, Interaction

PERMUTATIONS = 999
SIMULATIONS = 200
ALPHA = 0.05
MATTERS = 0.03  # QoE in [0, 1]: the interaction that power is stated for, as ``Interaction.size``


def interaction_test(
    log: Log,
    *,
    size: float = MATTERS,
    permutations: int = PERMUTATIONS,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> Interaction:
    """Permutation test of provider x trait, with its power.

    Traits are all of the context but requests. The reward is first freed of what traits and
    providers, each for each request, explain by themselves; traits are then permuted over users,
    whole users at a time. Power: the share of ``simulations`` in which the F test finds random
    interactions of ``size``. It is stated for a size and not for a gain, because interactions of
    one size are found alike, whatever their direction and the providers' levels, while what
    choosing by them gains hangs on both.

    Args:
        log: n rounds.
        size: of the interaction that would matter, see :class:`Interaction`.
        permutations: how many the p-value rests on.
        simulations: how many the power rests on.
        seed: of both.

    Raises:
        InputError: fewer users than the test has coefficients, or nothing to test.
    """
    asked = np.zeros(len(log), str) if log.request is None else log.request
    of_user = [name not in set(asked) for name in log.context_names]
    context = _standardised(log.context[:, of_user])
    providers, action = np.unique(log.action, return_inverse=True)
    pairs = np.stack([action, np.unique(asked, return_inverse=True)[1]])
    terms = _Terms(action, np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1))
    if context.shape[1] == 0 or len(providers) < 2:
        raise InputError("the test needs at least one trait that differs and two providers.")
    _, left = terms.degrees(context)
    if log.users < 3 or left < 1 or np.bincount(action).min() < context.shape[1] + 2:
        raise InputError(
            f"the test has {len(log) - left} coefficients, but the log has {len(log)} rounds of "
            f"{log.users} users; give a longer log or fewer traits."
        )
    fitted = _fit(terms.without_interactions(context), log.reward)
    residual = log.reward - fitted
    observed = terms.f(residual, context)
    generator = np.random.default_rng(seed)
    first = np.unique(log.user, return_index=True)[1]
    of_users = context[first]
    whole_users = np.array_equal(of_users[log.user], context)
    larger = 0
    for _ in range(permutations):
        if whole_users:
            shuffled = of_users[generator.permutation(log.users)][log.user]
        else:
            shuffled = context[generator.permutation(len(log))]
        larger += terms.f(residual, shuffled) >= observed - 1e-12
    power, gain = _power(terms, fitted, residual, context, size, simulations, generator)
    return Interaction(
        f=observed,
        p=(1 + larger) / (1 + permutations),
        power=power,
        size=size,
        gain=gain,
        users=log.users,
    )


def gain_of_personalising(log: Log, q: np.ndarray | None = None) -> Gain:
    """Doubly robust value of choosing by context less that of a policy that knows no user.

    That is the best single provider or, in a log of several requests, the best for each, so that
    a gain is one of knowing the persona and not of knowing the request. Both are chosen on other
    folds of users than they are valued on; the difference is taken round by round, so that noise
    common to both cancels; the interval is over users (normal, clustered).

    Args:
        log: n rounds.
        q: expected reward of each provider in each round, [n, L], from models that did not see
            the round; cross-fitted ridge regression if not given.
    """
    q = cross_fitted(log) if q is None else q
    policies = baselines(log, q)
    rows = np.arange(len(log))

    def terms(probability: np.ndarray) -> np.ndarray:
        weight = probability[rows, log.action] / log.propensity
        return (probability * q).sum(1) + weight * (log.reward - q[rows, log.action])

    over = FOR_EACH_REQUEST if FOR_EACH_REQUEST in policies else SINGLE
    personal, single = terms(policies[BY_CONTEXT]), terms(policies[over])
    value, low, high = _clustered(personal - single, log.user)
    return Gain(value, low, high, float(personal.mean()), float(single.mean()), log.users, over)


def _clustered(terms: np.ndarray, user: np.ndarray) -> tuple[float, float, float]:
    """Mean of ``terms`` [n] with a t interval over users."""
    mean = float(terms.mean())
    sums = np.bincount(user, terms - mean)
    users = len(np.unique(user))
    error = np.sqrt((sums**2).sum() * users / (users - 1)) / len(terms)
    t = stats.t.ppf((1 + LEVEL) / 2, users - 1)
    return mean, mean - float(t * error), mean + float(t * error)


def _standardised(context: np.ndarray) -> np.ndarray:
    spread = context.std(0)
    return (context[:, spread > 0] - context[:, spread > 0].mean(0)) / spread[spread > 0]


def _fit(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The normal equations: thousands of small fits. A hair of ridge lets columns that say the
    # same stand side by side.
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] *= 1 + 1e-9
    return np.asarray(design @ linalg.solve(gram, design.T @ y, assume_a="pos"))


class _Terms(NamedTuple):
    """The regression of the reward on provider, request and traits."""

    action: np.ndarray  # [n] int, which provider
    cell: np.ndarray  # [n] int, which pair of provider and request

    def without_interactions(self, context: np.ndarray) -> np.ndarray:
        """A level for each provider and request, and a slope for each trait: [n, cells + d]."""
        return np.hstack([np.eye(self.cell.max() + 1)[self.cell], context])

    def f(self, y: np.ndarray, context: np.ndarray) -> float:
        """F of provider x trait.

        With these interactions, every provider has a regression of its own.
        """
        base = self.without_interactions(context)
        small = ((y - _fit(base, y)) ** 2).sum()
        large = 0.0
        for provider in range(self.action.max() + 1):
            rows = self.action == provider
            own = base[rows][:, base[rows].any(0)]  # without the levels of other providers
            large += ((y[rows] - _fit(own, y[rows])) ** 2).sum()
        extra, left = self.degrees(context)
        return float((small - large) / extra / max(large / left, 1e-300))

    def degrees(self, context: np.ndarray) -> tuple[int, int]:
        """Degrees of freedom of that F: of the interactions, and of the noise."""
        traits, providers = context.shape[1], int(self.action.max()) + 1
        cells = int(self.cell.max()) + 1
        return (providers - 1) * traits, len(self.action) - cells - providers * traits


def _power(
    terms: _Terms,
    fitted: np.ndarray,
    residual: np.ndarray,
    context: np.ndarray,
    size: float,
    simulations: int,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Share of logs with an interaction of that size in which the F test rejects; their gain."""
    if simulations < 1:
        return float("nan"), float("nan")
    critical = stats.f.ppf(1 - ALPHA, *terms.degrees(context))
    action = terms.action
    level = np.bincount(action, fitted) / np.bincount(action)  # of each provider
    found, gained = 0, 0.0
    for _ in range(simulations):
        effect = random_interaction(context, len(level), size, generator)
        y = fitted + effect[np.arange(len(action)), action]
        found += terms.f(y + generator.permutation(residual), context) > critical
        value = level + effect
        gained += value.max(1).mean() - value.mean(0).max()
    return float(found / simulations), float(gained / simulations)


def random_interaction(
    context: np.ndarray, providers: int, size: float, generator: np.random.Generator
) -> np.ndarray:
    """Of provider x context, in a random direction, with this standard deviation: [n, providers].

    Args:
        context: [n, d], columns of mean 0.
    """
    slopes = generator.standard_normal((context.shape[1], providers))
    effect = context @ (slopes - slopes.mean(1, keepdims=True))
    return np.asarray(effect * size / effect.std())
