"""Whether a log can tell of a policy: rules with thresholds, from its importance weights alone."""

from typing import NamedTuple

import numpy as np

ENOUGH_ROUNDS = 50.0  # effective sample below which a log cannot tell
ENOUGH_SHARE = 0.1  # of the rounds, above which weights need no self-normalising
SUPPORT = 0.95  # share of a policy's choices that the log must have made too
MANY = 5  # times that a provider must have been chosen to count as seen
# Crump, Hotz, Imbens & Mitnik 2009 (Biometrika 96) leave out whom one of two arms had a probability
# below .1: a fifth of what chance gives it.
RARE = 0.2
RARE_SHARE = 0.05  # of a policy's choices, above which they rest on rare ones of the log
OF_UNIFORM = 0.1  # effective sample, as a share of that of a log drawn uniformly
HEAVY = 0.1  # of all weight: more than that on one round is one person's word


class Overlap(NamedTuple):
    """How well the choices of a log cover those of a policy."""

    effective_sample: float
    """(sum w)^2 / sum w^2, in rounds (Kish 1965)."""
    of_uniform: float
    """That as a share of what as many rounds would be worth had they been drawn uniformly: 1 is as
    good, also for a policy that never hesitates and so meets few rounds of any log."""
    largest_weight: float
    mean_weight: float
    """About 1 where propensities are right and the log covers the policy."""
    largest_share: float
    """Of all weight, that of the heaviest round."""
    support: float
    """Share of the policy's choices of providers that were seen in the log."""
    rare: float
    """Share of the policy's choices that the log made with less than a fifth of the probability
    that chance gives them; estimated by the weights."""

    def warnings(self, rounds: int) -> tuple[str, ...]:
        """Why the log cannot tell, each a phrase; none where overlap is good."""
        found = []
        if self.support < SUPPORT:
            found.append(
                f"the log has seen {self.support:.0%} of this policy's choices; the rest is the "
                "model's word"
            )
        if self.effective_sample < ENOUGH_ROUNDS:
            found.append(
                f"the log is worth only {self.effective_sample:.0f} of its {rounds} rounds for "
                "this policy"
            )
        if self.rare > RARE_SHARE:
            found.append(
                f"poor overlap: {self.rare:.0%} of this policy's choices are ones that the log "
                f"made with less than {RARE:g} of the probability of chance"
            )
        if self.of_uniform < OF_UNIFORM:
            found.append(
                f"poor overlap: a uniformly random log would need {self.of_uniform:.1%} of the "
                "rounds to say as much"
            )
        if self.largest_share > HEAVY:
            found.append(f"one round carries {self.largest_share:.0%} of all weight")
        return tuple(found)


def overlap(
    probability: np.ndarray,
    action: np.ndarray,
    propensity: np.ndarray,
    offered: np.ndarray,
) -> Overlap:
    """Of one policy.

    Args:
        probability: of each provider in each round, [n, L].
        action: [n] int, what was chosen.
        propensity: [n], its probability under the log.
        offered: [n, L] bool.
    """
    rows = np.arange(len(action))
    weight = probability[rows, action] / propensity
    total, square = weight.sum(), (weight**2).sum()
    choices = offered.sum(1)
    # Under a uniform log w is L pi(a) with probability 1 / L: mean 1, mean square L sum pi^2.
    uniform = len(action) / float((choices * (probability**2).sum(1)).mean())
    effective = float(total**2 / square) if square > 0 else 0.0
    share = weight / total if total > 0 else weight
    seen = np.bincount(action, minlength=offered.shape[1]) >= MANY
    return Overlap(
        effective_sample=effective,
        of_uniform=effective / uniform,
        largest_weight=float(weight.max()),
        mean_weight=float(weight.mean()),
        largest_share=float(share.max()),
        support=float((probability * seen).sum(1).mean()),
        rare=float(share[propensity * choices < RARE].sum()),
    )


def choose_estimator(effective_sample: float, rounds: int) -> str:
    """The estimator to quote.

    Doubly robust where the effective sample is at least a tenth of the rounds; below that
    self-normalised, which a few heavy weights move less. Those that trade bias for variance
    (direct method, SWITCH-DR, DR with shrinkage) are never quoted: their intervals leave their bias
    out.
    """
    enough = effective_sample >= ENOUGH_SHARE * rounds
    return "doubly robust" if enough else "self-normalised doubly robust"
