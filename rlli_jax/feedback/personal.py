"""Is personalising worth it? One test and one number, for a log or a table.

The test asks whether the best provider depends on the persona: provider x trait interaction by
permuting traits over people. The number says what choosing by persona adds over the best single
provider, both chosen on other people than they are valued on.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from rlli_jax.errors import InputError
from rlli_jax.feedback.evaluation import LEVEL, baselines
from rlli_jax.feedback.log import Log
from rlli_jax.feedback.reward_model import cross_fitted

PERMUTATIONS = 999
SIMULATIONS = 200
ALPHA = 0.05
MATTERS = 0.02  # QoE in [0, 1]: the smallest gain that power is stated for


@dataclass(frozen=True)
class Interaction:
    """Does the best provider depend on the context?"""

    f: float
    """F of provider x context over provider + context."""
    p: float
    """Share of permutations of the contexts over users with an F at least as large."""
    power: float
    """Chance to find it at level .05 where choosing by context gained ``gain``."""
    gain: float
    users: int


@dataclass(frozen=True)
class Gain:
    """What choosing by context adds over the best single provider, in [0, 1] QoE."""

    value: float
    low: float
    high: float
    personal: float
    """Value of choosing by context."""
    single: float
    """Value of the best single provider."""
    users: int

    @property
    def advice(self) -> str:
        """One sentence."""
        if self.low > 0:
            return "Choosing by persona pays: it adds to the best single provider."
        if self.high < 0:
            return "Choosing by persona loses to the best single provider; use that."
        return (
            "No gain from choosing by persona is shown; the best single provider is the simpler "
            "choice."
        )


def interaction_test(
    log: Log,
    *,
    gain: float = MATTERS,
    permutations: int = PERMUTATIONS,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> Interaction:
    """Permutation test of provider x context, with its power.

    The reward is first freed of what providers and contexts explain by themselves; contexts are
    then permuted over users, whole users at a time. Power: the share of ``simulations`` in which
    the F test finds random interactions by which choosing gains ``gain``.

    Args:
        log: n rounds.
        gain: in QoE, the smallest that would matter.
        permutations: how many the p-value rests on.
        simulations: how many the power rests on.
        seed: of both.

    Raises:
        InputError: fewer users than the test has coefficients, or nothing to test.
    """
    context = _standardised(log.context)
    providers, action = np.unique(log.action, return_inverse=True)
    first, place = np.unique(log.user, return_index=True, return_inverse=True)[1:]
    users = len(first)
    if context.shape[1] == 0 or len(providers) < 2:
        raise InputError("the test needs at least one trait that differs and two providers.")
    coefficients = len(providers) * (1 + context.shape[1])
    if users < 3 or np.bincount(action).min() < context.shape[1] + 2:
        raise InputError(
            f"the test has {coefficients} coefficients, but the log has {len(log)} rounds of "
            f"{users} users; give a longer log or fewer traits."
        )
    fitted = _fit(_main_effects(context, action), log.reward)
    residual = log.reward - fitted
    observed = _f(residual, context, action)
    generator = np.random.default_rng(seed)
    whole_users = np.array_equal(context[first][place], context)
    larger = 0
    for _ in range(permutations):
        if whole_users:
            shuffled = context[first][generator.permutation(users)][place]
        else:
            shuffled = context[generator.permutation(len(log))]
        larger += _f(residual, shuffled, action) >= observed - 1e-12
    return Interaction(
        f=observed,
        p=(1 + larger) / (1 + permutations),
        power=_power(fitted, residual, context, action, gain, simulations, generator),
        gain=gain,
        users=users,
    )


def gain_of_personalising(log: Log, q: np.ndarray | None = None) -> Gain:
    """Doubly robust value of choosing by context less that of the best single provider.

    Both are chosen on other folds of users than they are valued on; the difference is taken round
    by round, so that noise common to both cancels; the interval is over users (normal, clustered).

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

    personal, single = terms(policies["chosen by context"]), terms(policies["best single provider"])
    value, low, high = _clustered(personal - single, log.user)
    return Gain(
        value, low, high, float(personal.mean()), float(single.mean()), len(np.unique(log.user))
    )


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


def _main_effects(context: np.ndarray, action: np.ndarray) -> np.ndarray:
    """A level for each provider and a slope for each trait, [n, L + d]."""
    return np.hstack([np.eye(action.max() + 1)[action], context])


def _fit(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The normal equations: thousands of small fits. A hair of ridge lets columns that say the
    # same stand side by side.
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] *= 1 + 1e-9
    return np.asarray(design @ linalg.solve(gram, design.T @ y, assume_a="pos"))


def _f(y: np.ndarray, context: np.ndarray, action: np.ndarray) -> float:
    """F of provider x context over provider + context.

    With all interactions, every provider has a regression of its own.
    """
    base = _main_effects(context, action)
    small = ((y - _fit(base, y)) ** 2).sum()
    own = np.hstack([np.ones((len(y), 1)), context])
    rows = [action == provider for provider in range(action.max() + 1)]
    large = sum(((y[r] - _fit(own[r], y[r])) ** 2).sum() for r in rows)
    extra, left = _degrees(context, action)
    return float((small - large) / extra / max(large / left, 1e-300))


def _degrees(context: np.ndarray, action: np.ndarray) -> tuple[int, int]:
    """Degrees of freedom of that F: of the interactions, and of the noise."""
    traits, providers = context.shape[1], int(action.max()) + 1
    return (providers - 1) * traits, len(action) - providers * (1 + traits)


def _power(
    fitted: np.ndarray,
    residual: np.ndarray,
    context: np.ndarray,
    action: np.ndarray,
    gain: float,
    simulations: int,
    generator: np.random.Generator,
) -> float:
    """Share of simulated logs with that gain in which the F test rejects at level .05."""
    if simulations < 1:
        return float("nan")
    critical = stats.f.ppf(1 - ALPHA, *_degrees(context, action))
    found = 0
    for _ in range(simulations):
        slopes = generator.standard_normal((context.shape[1], action.max() + 1))
        effect = context @ (slopes - slopes.mean(1, keepdims=True))  # [n, L]
        scale = gain / (effect.max(1).mean() - effect.mean(0).max())
        y = fitted + scale * effect[np.arange(len(action)), action]
        found += _f(y + generator.permutation(residual), context, action) > critical
    return float(found / simulations)
