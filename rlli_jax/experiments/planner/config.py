"""A study of planners; ``configs/planner.yaml`` and ``configs/planner_market.yaml`` show it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rlli_jax.envs.edge_market.observation import MarketObservationPart
from rlli_jax.envs.go_to.parts import GoToObservationPart
from rlli_jax.experiments.market.config import MarketBlock
from rlli_jax.experiments.plan_blocks import (
    GivenPlan,
    JudgePlan,
    ModelPlan,
    RulePlan,
    TinyPlan,
)
from rlli_jax.experiments.policies import Learned, by_learner, learned
from rlli_jax.experiments.sources import JudgedBlock
from rlli_jax.experiments.yaml_blocks import (
    Block,
    NumpySeed,
    Positive,
    TrainedBlock,
    each_once,
)
from rlli_jax.learners import Kind
from rlli_jax.learners.options import SMDPConfig, SMDPHyperparams, TwoLevels, smdp_q

LOW_LEVEL = "low_level"  # the name of its checkpoints, which no policy may have
Parts = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(each_once)]


class GoToWorld(Block):
    """A room with things, and instructions such as "go to the red key, then go to the blue box"."""

    kind: Literal["go_to"]
    """Which environment."""
    objects: Positive = 8
    """Things in a room."""
    instructions: str | tuple[str, ...] = "then"
    """A set by its name, or texts, of one goal or two each."""
    encoder: str = "hashing"
    """Of the instructions: hashing (a stand-in), minilm, a folder or a name on the hub."""
    observation: Annotated[
        tuple[GoToObservationPart, ...], Field(min_length=1), AfterValidator(each_once)
    ] = ("blocked", "likeness")
    """What the low level sees; flat policies also see which goals are reached."""
    limit: Positive = 32
    """Steps after which a planner chooses anew anyway."""
    seed: NumpySeed = 0
    """Of the rooms; policies are judged in others."""


class MarketWorld(JudgedBlock):
    """An edge market in which a planner names a goal for the next tasks."""

    kind: Literal["market"]
    """Which environment."""
    market: MarketBlock
    """The market's numbers."""
    vips: Positive = 1
    """The first so many users are VIPs."""
    vip_weight: Annotated[float, Field(ge=1)] = 2.0
    """How many times what is paid for a VIP's task counts."""
    period: Positive = 20
    """Tasks for which a goal holds."""
    mask: bool = True
    """Whether providers without room are ruled out."""
    observation: Annotated[
        tuple[MarketObservationPart, ...], Field(min_length=1), AfterValidator(each_once)
    ] = ("providers", "task", "room", "utility")
    """What policies see of the market; beside it whether the task is a VIP's, and the hour."""
    samples: Positive = 200_000
    """Environment steps, of each seed, from which the process of the planner is estimated."""

    @property
    def personal(self) -> bool:
        """Whether users have personal QoE."""
        return True


class PlannerLearned(Learned):
    """A planner that learns for a number of iterations (carry options out, update)."""

    @classmethod
    def kind_of(cls, learner: str) -> Kind:
        """Q-learning over options."""
        return PLANNER_KIND


def _over_options(env: Any, config: Any) -> Any:
    return smdp_q(env, env.hierarchy, config)


PLANNER_KIND = Kind(_over_options, SMDPConfig, SMDPHyperparams)


class PlannedEnv(TwoLevels):
    """An environment with its hierarchy, as learners of :data:`PLANNER_KIND` take it."""

    def __init__(self, env: Any, hierarchy: Any) -> None:
        super().__init__(env)
        self.hierarchy = hierarchy


class FlatLearned(Learned):
    """A policy without levels, beside the planners."""

    observation: Parts | None = None
    """Parts of the observation; those of the environment if not given."""


class LowLearned(Learned):
    """What follows goals."""


if TYPE_CHECKING:
    AnyPlanner = FlatLearned | PlannerLearned | GivenPlan | RulePlan | ModelPlan | JudgePlan
    LowLevelBlock = LowLearned
else:
    LowLevelBlock = learned(LowLearned, "ppo")
    AnyPlanner = by_learner(
        FlatLearned,
        learned(PlannerLearned, "smdp_q"),
        GivenPlan,
        RulePlan,
        ModelPlan,
        TinyPlan,
        JudgePlan,
    )


class EpisodesBlock(Block):
    """How policies are judged."""

    episodes: Positive = 256
    """Played with each policy, of each seed."""


class PlannerStudy(TrainedBlock):
    """A whole study of planners."""

    kind: Literal["planner"] = "planner"
    """Of the study."""
    seeds: Positive = 5
    """Runs of the low level and of whatever learns, side by side."""
    environment: Annotated[GoToWorld | MarketWorld, Field(discriminator="kind")]
    """In which there is something to plan."""
    low_level: LowLevelBlock
    """The policy that follows goals; it is trained once, on all of them, for all planners."""
    policies: Annotated[dict[str, AnyPlanner], Field(min_length=1)]
    """Every planner, and every flat policy, by a name of your own."""
    evaluation: EpisodesBlock = EpisodesBlock()
    """How policies are judged."""

    @model_validator(mode="after")
    def _consistent(self) -> "PlannerStudy":
        if LOW_LEVEL in self.policies:
            raise ValueError(f"policies: {LOW_LEVEL!r} is the low level's; choose another name")
        if all(isinstance(block, FlatLearned) for block in self.policies.values()):
            raise ValueError(
                "policies: none of them is a planner; give one whose learner is oracle, random, "
                "best_constant, rule, language_model, tiny_model, judge or smdp_q"
            )
        if getattr(self.low_level.config, "memory", 0):
            raise ValueError(
                "low_level.config.memory: goals change within an episode, and what follows them "
                "has no memory; set it to 0"
            )
        return self
