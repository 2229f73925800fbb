"""A study of sessions; ``configs/session.yaml`` shows it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rlli_jax.envs.session.parts import SessionObservationPart
from rlli_jax.experiments.plan_blocks import JudgePlan, ModelPlan, TinyPlan
from rlli_jax.experiments.policies import Learned, by_learner
from rlli_jax.experiments.sources import JudgedBlock
from rlli_jax.experiments.yaml_blocks import (
    UNKNOWN_TRAITS,
    Block,
    NumpySeed,
    Positive,
    TrainedBlock,
    each_once,
)

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Observation = Annotated[
    tuple[SessionObservationPart, ...], Field(min_length=1), AfterValidator(each_once)
]


class TasteBlock(Block):
    """How a taste of the moment, an AR(1) of each provider, moves from turn to turn."""

    spread: NotNegative = 0.1
    """Its standard deviation, in QoE."""
    memory: Share = 0.9
    """Correlation from one turn to the next; 1: it stays for the session."""


class SatiationBlock(Block):
    """How weary a person becomes of a provider that was seen lately."""

    weight: NotNegative = 0.1
    """QoE that a provider loses if it was seen in the turn before."""
    memory: Share = 0.7
    """Part of that which is left after each further turn."""
    turns: Positive = 3
    """After so many turns it is forgotten."""


class SessionBlock(Block):
    """What a session is; see :class:`rlli_jax.envs.session.Session`."""

    turns: Positive = 20
    """How often the person asks."""
    taste: TasteBlock = TasteBlock()
    """How tastes drift."""
    satiation: SatiationBlock = SatiationBlock()
    """How what was seen lately satiates."""
    held_out_users: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Part of the people who come in evaluation; policies and beliefs learn from the others."""
    split_seed: NumpySeed = 0
    """Of the draw of held-out people."""

    def numbers(self) -> dict[str, Any]:
        """What ``make_params`` takes."""
        return {
            "taste_spread": self.taste.spread,
            "taste_memory": self.taste.memory,
            "satiation_weight": self.satiation.weight,
            "satiation_memory": self.satiation.memory,
        }


class SessionBaseline(Block):
    """A policy that does not learn."""

    learner: Literal["random", "round_robin", "best_fixed", "belief_greedy", "belief_sampling"]
    """random; round_robin; best_fixed: the best that ignores what is felt, by the people of
    training; belief_greedy: the provider of which the belief about the person expects most now;
    belief_sampling: Thompson sampling by that belief."""


class SessionTold(Block):
    """Who names a provider is told the last turns in words, and asked once for each history and
    request."""

    remembered: Positive = 1
    """How many of the last turns are told."""


class SessionModel(SessionTold, ModelPlan):
    """A language model in this process, told the last turns in words."""


class SessionTiny(SessionTold, TinyPlan):
    """A tiny language model with random weights, told the last turns in words: a stand-in."""


class SessionJudge(SessionTold, JudgePlan):
    """A language model behind a server, or of transformers, told the last turns in words; its
    answers are kept in the store of judges."""


class SessionLearned(Learned):
    """A policy that learns for a number of iterations (collect, update)."""

    observation: Observation = ("action", "reward", "turn", "request")
    """Parts of the observation, in this order."""


if TYPE_CHECKING:
    AnySessionPolicy = SessionLearned | SessionBaseline | SessionTold
else:
    AnySessionPolicy = by_learner(
        SessionLearned, SessionBaseline, SessionModel, SessionTiny, SessionJudge
    )


class EpisodesBlock(Block):
    """How policies are judged."""

    episodes: Positive = 1_024
    """Sessions played with each policy, and from which hindsight is worked out."""


class SessionStudy(JudgedBlock, TrainedBlock):
    """A whole study of sessions."""

    kind: Literal["session"] = "session"
    """Of the study."""
    session: SessionBlock = SessionBlock()
    """What a session is."""
    policies: Annotated[dict[str, AnySessionPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained (if it learns) and evaluated."""
    evaluation: EpisodesBlock = EpisodesBlock()
    """How policies are judged."""

    @model_validator(mode="after")
    def _consistent(self) -> "SessionStudy":
        for name, policy in self.policies.items():
            seen: Any = getattr(policy, "observation", ())
            if "persona" in seen and self.population is None:
                raise ValueError(f"policies.{name}.observation: {UNKNOWN_TRAITS}")
        return self
