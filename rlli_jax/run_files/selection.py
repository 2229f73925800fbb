"""Files of studies of provider selection."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from rlli_jax.run_files import Arrays, Record, dims
from rlli_jax.run_files.policies import Evaluation, Summary


class SelectionSummary(Summary):
    """Of a policy in a study of provider selection."""

    assignment: str
    observation: tuple[str, ...]
    rounds: int
    encoder: str | None = None
    """Of the observation part request_text, in words."""


class SelectionEvaluation(Evaluation):
    """Of a study of provider selection; returns are rounds x the sum over users of QoE."""

    choices: dims("seeds users requests providers")  # type: ignore[valid-type]
    """How often each provider was chosen."""
    qoe: dims("seeds users")  # type: ignore[valid-type]
    """Expected, of each user, every request weighing alike."""
    objective: dims("seeds")  # type: ignore[valid-type]
    """QoE summed over users, Eq. (2)."""
    # With held-out users also others_choices and others_qoe, as the two above.


class References(Record):
    """``references.json`` of provider selection: exact values on the evaluation requests, each the
    objective of Eq. (2) for one round."""

    optimum: float
    optimum_per_request: float
    best: tuple[str, float] = Field(alias="best_single")
    random: float
    providers: dict[str, float]

    @property
    def best_single(self) -> float:
        """What the best single provider is worth."""
        return self.best[1]

    @property
    def best_single_provider(self) -> str:
        """Its name."""
        return self.best[0]


class HumanReferences(Record):
    """What people think of simple choices."""

    random: float
    best_single: float
    best_single_provider: str
    best_per_request: float


class Human(Record):
    """``human.json``: people's scores of what each policy chose, on requests kept out of
    training."""

    scale: str
    requests: int
    references: HumanReferences
    policies: dict[str, list[float]]
    """[seeds] of each policy."""


Interval = tuple[float, float, float]  # value, and the ends of its 95 % interval; NaN for none


class Served(Record):
    """What serving held-out users in some way is worth to them."""

    qoe: Interval
    """Mean over the users, in [0, 1]."""
    of_optimum: Interval
    """Divided by that of the optimum."""


class HeldOutUsers(Record):
    """``held_out_users.json``: what policies are worth to people whom neither learners nor whatever
    was fitted had met. Intervals are over these people, and over seeds where there are enough."""

    users: int
    requests: int
    best_single_provider: str
    """The one that is best for the users of the table."""
    references: dict[str, Served]
    """optimum (one provider a user, by what the judge says of that user), best_single, random."""
    policies: dict[str, Served]
    over: str
    """What the intervals of learned policies are over."""


class PeopleFile(Record):
    """``people.json``: what ratings of people did to the judge's table."""

    log: str
    prior: Literal["judge", "none"]
    people: int
    ratings: int
    cells: int
    rest_on_people: int
    """Cells of which ratings tell at least half of how far people are from the judge."""
    trust: float | None
    """QoE of people for each of the judge's; None without it."""
    gain: tuple[float, float, float] | None
    """Squared error of predicting people who were not seen, less that with the judge, and its 95 %
    interval over people."""
    warning: str
    """Where the judge as prior hurts, or nothing."""
    providers: dict[str, tuple[int, float, float]]
    """Ratings; mean QoE of its cells by the judge, and by judge and people."""


class PeopleRatings(Arrays):
    """``people_ratings.npz``: what a table rests on; traits on the 1-5 scale, QoE from 0 to 1."""

    traits: dims("ratings traits")  # type: ignore[valid-type]
    provider: dims("ratings")  # type: ignore[valid-type]
    """Names."""
    qoe: dims("ratings")  # type: ignore[valid-type]


class CalibrationPoint(Record):
    """Human QoE of the choices, by the number of requests with human scores."""

    requests: int
    scores: float = 0.0
    """Human scores, mean over the draws."""
    value: Interval
    without_judges: Interval | None
    """None where nobody scored."""


class CalibrationFile(Record):
    """``calibration.json``: what people's scores did to the table; values as QoE in [0, 1]."""

    requests: int
    scores: int
    weights: Mapping[str, Interval]
    """Of each judge."""
    offsets: Mapping[str, Interval]
    """Of each provider."""
    curve: list[CalibrationPoint]
