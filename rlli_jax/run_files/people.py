"""What people say of policies and of personalising, by a log or by a table.

QoE is from 0 to 1 throughout; intervals are 95 % intervals over users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field

from rlli_jax.run_files import Record
from rlli_jax.statistics import Estimate, within


@dataclass(frozen=True)
class Interaction:
    """Does the best provider depend on the context?"""

    f: float
    """F of provider x context over provider + context."""
    p: float
    """Share of permutations of the contexts over users with an F at least as large."""
    power: float
    """Chance to find, at level .05, an interaction of ``size``."""
    gain: float
    """What choosing by such an interaction adds to the best single provider: mean over random ones,
    with the providers' levels as they were found. Where one is far better than the others it is
    little."""
    users: int
    size: float | None = None
    """Standard deviation over users and providers of what the user's context adds to the QoE of one
    provider rather than another. None in files of earlier versions, whose power is the chance to
    find any interaction by which choosing gains ``gain``."""


@dataclass(frozen=True)
class Gain:
    """What choosing by context adds over a policy that does not know the user, in [0, 1] QoE."""

    value: float
    low: float
    high: float
    personal: float
    """Value of choosing by context."""
    single: float
    """Value of the other policy."""
    users: int
    over: str = "best single provider"
    """Which that is: in a log of several requests, the best provider for each request."""

    @property
    def advice(self) -> str:
        """One sentence."""
        if self.low > 0:
            return f"Choosing by persona pays: it adds to the {self.over}."
        if self.high < 0:
            return f"Choosing by persona loses to the {self.over}; use that."
        return f"No gain from choosing by persona is shown; the {self.over} is the simpler choice."


class Personalising(Record):
    """``personalising.json``: is choosing by persona worth it, by the run's own table?"""

    users: int
    """That were looked at."""
    of: int
    """Users of the table."""
    gain: Gain | None = None
    """None where there are too few users."""
    advice: str = ""
    interaction: Interaction | None = None
    """None where there are too few users for the test."""
    why: str = ""
    """Why one of these is None."""


class WithInterval(Record):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Of an estimate of one number."""
        value, low, high = map(float, estimate)
        return cls(value=value, low=low, high=high)

    def cut(self) -> Self:
        """The same with an interval that ends where QoE does, at 0 and 1."""
        found = Estimate(*map(np.asarray, (self.value, self.low, self.high)))
        return self.of(within(found, 0, 1))


class ValuedPolicy(Record):
    """What a log tells of a policy."""

    name: str
    estimates: Mapping[str, WithInterval]
    """By each estimator."""
    safe: WithInterval
    """By inverse propensities, with an interval that is valid at every size of a log."""
    best: WithInterval
    """The one to quote."""
    chosen: str
    """By which estimator that is."""
    warning: str
    """Why the log cannot tell, or nothing."""
    effective_sample: float
    """How well the log covers the policy, like all that follows; see
    :class:`rlli_jax.feedback.overlap.Overlap`."""
    of_uniform: float | None = None
    largest_weight: float
    mean_weight: float | None = None
    largest_share: float | None = None
    support: float | None = None
    rare: float | None = None


class PoweredProvider(Record):
    """What one provider would be worth to everybody."""

    with_judge: WithInterval
    """By people and judge, a prediction-powered estimate."""
    people_alone: WithInterval
    trust: float
    """How far the judge's predictions count; 0 is not at all."""
    worth: float
    """How many times as many ratings would have given people alone that interval."""


class RatingsPoint(Record):
    """What the ratings of so many people buy: QoE of choices for people who were not asked."""

    people: int
    with_judge: WithInterval
    without: WithInterval


class JudgeBesidePeople(Record):
    """What the judge of a run is worth beside the people of a log."""

    judge: str
    """What the run was trained on; a stand-in is named as one."""
    providers: Mapping[str, PoweredProvider]
    prior_gain: WithInterval
    """Squared error of predicting people who were not seen, less that with the judge as prior."""
    warning: str
    """Where the judge hurts, or nothing."""
    curve: tuple[RatingsPoint, ...]


class LogFindings(Record):
    """The file of ``rlli evaluate``: what a log of people says."""

    rounds: int
    users: int
    propensities: str
    """Where the probabilities of the log's choices come from."""
    notes: tuple[str, ...] = ()
    logging_policy: float
    """What the log's own choices were worth."""
    policies: tuple[ValuedPolicy, ...]
    interaction: Interaction | None
    gain_of_personalising: Gain | None
    """None, like the test above, where the log tells nothing of its users, or too little."""
    left_out: Mapping[str, str] = Field(default_factory=dict)
    """Policies of the run that cannot be valued, and why."""
    advice: str = ""
    """Whether to choose by persona."""
    scale: tuple[float, float] = (0.0, 1.0)
    """On which the log's QoE was given."""
    of_run: tuple[str, ...] = ()
    """Which of the policies are the run's."""
    judge: JudgeBesidePeople | None = None
    """None without a run, or where none of its policies can be valued."""
