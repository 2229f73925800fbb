"""Rules of exploration: from what a policy prefers to the probability of each provider, exactly.

A log can value other policies only where every provider that was offered had some probability, and
only if that probability is known. So a rule gives probabilities, and the choice is drawn from them.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rlli_jax.errors import InputError


@dataclass(frozen=True)
class Epsilon:
    """The policy's choice, but with a small probability any of those offered, all alike."""

    share: float
    """In [0, 1], of the decisions that are drawn uniformly."""
    by_prediction = False

    def probabilities(
        self, choice: np.ndarray, predicted: np.ndarray, offered: np.ndarray
    ) -> np.ndarray:
        """(1 - share) for the choice, and share / (number offered) for each one offered.

        Args:
            choice: [b] int, of the policy, among those offered.
            predicted: [b, L], QoE that a model of QoE expects; not looked at.
            offered: [b, L] bool.

        Returns:
            [b, L], rows sum to 1.
        """
        del predicted
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
    by_prediction = True

    def probabilities(
        self, choice: np.ndarray, predicted: np.ndarray, offered: np.ndarray
    ) -> np.ndarray:
        """As :meth:`Epsilon.probabilities`; the policy's choice is not looked at."""
        del choice
        score = np.where(offered, predicted, -np.inf) / self.temperature
        likely = np.exp(score - score.max(1, keepdims=True))
        return np.asarray(likely / likely.sum(1, keepdims=True))

    def __str__(self) -> str:
        return f"softmax={self.temperature:g}"


Rule: TypeAlias = Epsilon | Softmax


def parse_rule(text: str) -> Rule:
    """``epsilon=0.1`` or ``softmax=0.05``. Raises InputError for anything else."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if name == "epsilon" and 0 <= number <= 1:
        return Epsilon(number)
    if name == "softmax" and 0.001 <= number < float("inf"):
        return Softmax(number)
    raise InputError(
        f"--explore {text}: write epsilon=SHARE with a share from 0 to 1, or softmax=TEMPERATURE "
        "with a temperature of at least 0.001 QoE, such as epsilon=0.1 or softmax=0.05."
    )
