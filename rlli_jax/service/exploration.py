"""Rules of exploration: from what a policy prefers to the probability of each provider, exactly.

A log can value other policies only where every provider that was offered had some probability, and
only if that probability is known. So a rule gives probabilities, and the choice is drawn from them.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from rlli_jax.errors import InputError

MOST_DRAWS = 10_000


class Preferred(NamedTuple):
    """What a policy and its model of QoE say of b wishes."""

    choice: np.ndarray
    """[b] int, of the policy, among those offered."""
    predicted: np.ndarray
    """[b, L], QoE that the model expects."""
    covariance: np.ndarray | None = None
    """[b, L, L], of what the model believes; for rules ``by_belief`` alone."""


@dataclass(frozen=True)
class Epsilon:
    """The policy's choice, but with a small probability any of those offered, all alike."""

    share: float
    """In [0, 1], of the decisions that are drawn uniformly."""
    by_prediction = by_belief = False

    def probabilities(self, preferred: Preferred, offered: np.ndarray) -> np.ndarray:
        """(1 - share) for the choice, and share / (number offered) for each one offered.

        Args:
            preferred: its predictions are not looked at.
            offered: [b, L] bool.

        Returns:
            [b, L], rows sum to 1.
        """
        choice = preferred.choice
        result = offered * (self.share / offered.sum(1, keepdims=True))
        result[np.arange(len(choice)), choice] += 1 - self.share
        return np.asarray(result)

    def __str__(self) -> str:
        return f"epsilon={self.share:g}"


@dataclass(frozen=True)
class Softmax:
    """In proportion to exp(expected QoE / temperature), by the model of QoE of the policy's run."""

    temperature: float
    """In QoE from 0 to 1: a provider expected to be better by this much is e times as likely."""
    by_prediction, by_belief = True, False

    def probabilities(self, preferred: Preferred, offered: np.ndarray) -> np.ndarray:
        """As :meth:`Epsilon.probabilities`; the policy's choice is not looked at."""
        score = np.where(offered, preferred.predicted, -np.inf) / self.temperature
        likely = np.exp(score - score.max(1, keepdims=True))
        return np.asarray(likely / likely.sum(1, keepdims=True))

    def __str__(self) -> str:
        return f"softmax={self.temperature:g}"


@dataclass(frozen=True)
class Thompson:
    """Thompson sampling (Thompson 1933) with a known probability of every choice.

    What the model of QoE believes of a person is normal, N(m, C) over the providers. A fixed number
    of standard normal vectors z is drawn once and for all, the same in every process; for a person
    each becomes m + C^(1/2) z, a draw from that belief, and gives its vote to the best provider
    among those offered. Each one offered has one vote more, so that a log can value any policy:

        probability = (votes + 1) / (draws + number offered)

    The choice is drawn from these, so they are exact, whatever the belief. With many draws they are
    Thompson sampling's own, up to the vote more.
    """

    draws: int
    by_prediction = by_belief = True

    def probabilities(self, preferred: Preferred, offered: np.ndarray) -> np.ndarray:
        """As :meth:`Epsilon.probabilities`; the policy's choice is not looked at."""
        assert preferred.covariance is not None
        providers = offered.shape[1]
        moved = _standard_normal(self.draws, providers) @ _roots(preferred.covariance)
        score = np.where(offered[:, None], preferred.predicted[:, None] + moved, -np.inf)
        best = (
            score.argmax(2) + providers * np.arange(len(offered))[:, None]
        )  # of equals, the first
        votes = np.bincount(best.ravel(), minlength=offered.size).reshape(offered.shape)
        return np.asarray((votes + 1) * offered / (self.draws + offered.sum(1, keepdims=True)))

    def __str__(self) -> str:
        return f"thompson={self.draws}"


@cache
def _standard_normal(draws: int, providers: int) -> np.ndarray:
    """[draws, L], the same in every process; half of them the others turned round."""
    half = np.random.default_rng(0).standard_normal(((draws + 1) // 2, providers))
    return np.concatenate([half, -half])[:draws].astype(np.float32)


def _roots(covariance: np.ndarray) -> np.ndarray:
    """Symmetric roots of [b, L, L]; a covariance of nothing uncertain has the root 0."""
    values, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(values, 0))[:, None]
    return np.asarray(scaled @ vectors.swapaxes(1, 2), np.float32)


Rule: TypeAlias = Epsilon | Softmax | Thompson


def parse_rule(text: str) -> Rule:
    """``epsilon=0.1``, ``softmax=0.05``, ``thompson=1000``. Raises InputError for anything else."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if name == "epsilon" and 0 <= number <= 1:
        return Epsilon(number)
    if name == "softmax" and 0.001 <= number < float("inf"):
        return Softmax(number)
    if name == "thompson" and 2 <= number <= MOST_DRAWS and number == int(number):
        return Thompson(int(number))
    raise InputError(
        f"--explore {text}: write epsilon=SHARE with a share from 0 to 1, softmax=TEMPERATURE "
        "with a temperature of at least 0.001 QoE, or thompson=DRAWS with a number of draws from 2 "
        f"to {MOST_DRAWS}, such as epsilon=0.1, softmax=0.05 or thompson=1000."
    )
