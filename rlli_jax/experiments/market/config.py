"""What a study of the edge market is: a YAML file with a key ``market``, checked key by key.

The numbers of the market itself are checked by ``make_params``, which knows their ranges.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rlli_jax.envs.edge_market.observation import MarketObservationPart
from rlli_jax.experiments.catalog_block import CatalogBlock
from rlli_jax.experiments.judge_blocks import AnyJudge
from rlli_jax.experiments.policies import Learned, by_learner
from rlli_jax.experiments.sources import PopulationBlock
from rlli_jax.experiments.yaml_blocks import (
    UNKNOWN_TRAITS,
    Block,
    NumpySeed,
    Positive,
    Seed,
    TrainedBlock,
    Whole,
    beside_file,
    each_once,
    exactly_one,
)

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class FleetSample(Block):
    """Providers drawn from the ranges of AGOD."""

    seed: NumpySeed = 0
    """Of the draw."""
    providers: Positive = 20
    """Number of providers."""


class FleetBlock(Block):
    """Who serves: a file (.json or .npz), or a draw. Either is kept with the run."""

    file: Path | None = None
    """A fleet, .json or .npz."""
    sample: FleetSample | None = None
    """A draw from AGOD's ranges."""

    _paths = field_validator("file")(beside_file)

    @model_validator(mode="after")
    def _one_source(self) -> "FleetBlock":
        exactly_one(self, ("file", "sample"))
        return self


class DriftBlock(Block):
    """How tastes move; see :class:`rlli_jax.envs.edge_market.Drift`."""

    interest_rate: Share = 0.0
    """How fast interest follows what was served."""
    interest_weight: NotNegative = 0.2
    """How much interest adds to QoE."""
    satiation_weight: NotNegative = 0.0
    """How much satiation divides QoE by."""
    satiation_memory: Share = 0.7
    """Part of satiation that is left after the user's next task."""


class LinkBlock(Block):
    """The wireless leg of each task; see :class:`rlli_jax.envs.edge_market.Link`."""

    seed: NumpySeed = 0
    """Of the places of users and providers, uniform over a square."""
    side: Annotated[float, Field(gt=0)] = 1_000.0
    """Metres, of that square."""
    bandwidth: float = 1e6
    """Hz, of the channel of one task."""
    path_loss: float = 128.1
    """dB at 1 km."""
    path_loss_slope: float = 37.6
    """dB for ten times the distance."""
    user_power: float = 0.2
    """W, sent by the user."""
    provider_power: float = 1.0
    """W, sent by the provider."""
    noise_density: float = -174.0
    """dBm/Hz."""
    noise_figure: float = 9.0
    """dB."""
    prompt_bits: float = 2_464.0
    """Of what goes up: 77 tokens of 32 bits."""
    image_bits: float = 65_536.0
    """Of what comes down: 8 KiB."""
    compute_power: float = 350.0
    """W, of a provider while it runs a task."""
    energy_price: float = 0.0
    """Reward that a joule costs."""


class MarketBlock(Block):
    """The market; keys and defaults as in :func:`rlli_jax.envs.edge_market.make_params`."""

    fleet: FleetBlock
    """Who serves."""
    demands: tuple[Whole, ...] = tuple(range(100, 260, 10))
    """Denoising steps that a task may ask for, each equally likely."""
    runtime: tuple[float, float, float] = (0.06, 150.0, -840.0)
    """(a, b, c): a task of t steps runs a t^2 + b t + c seconds."""
    arrival_rate: float = 1e-3
    """Tasks per second."""
    rate_amplitude: float = 0.0
    """Swing of the rate around its average, in [0, 1)."""
    rate_period: float = 86_400.0
    """Seconds of that swing."""
    horizon: Whole = 1_000_000
    """Seconds in which tasks arrive."""
    crash_penalty: float = 2.0
    """For the dropped task, and for each killed task times what it still had to run."""
    capacity_scale: float = 900.0
    """What the observation divides capacities by."""
    patience: float | None = None
    """Seconds; endless if not given."""
    queue: Annotated[Whole, Field(ge=0)] = 0
    """Tasks that may wait at a provider."""
    link: LinkBlock | None = None
    """The wireless leg of each task; without it neither airtime nor energy counts."""
    user_mix: tuple[NotNegative, ...] | None = None
    """How often each user asks, as weights; equal if not given."""
    request_mix: tuple[NotNegative, ...] | None = None
    """How often each request is asked for, as weights; equal if not given."""
    drift: DriftBlock | None = None
    """How tastes move; they do not if not given."""

    def numbers(self) -> dict[str, Any]:
        """What ``make_params`` takes as it is."""
        others = {"fleet", "queue", "link", "user_mix", "request_mix", "drift"}
        return dict(self.model_dump(exclude=others, exclude_none=True))


class MarketBaseline(Block):
    """A policy that does not learn; ``mask`` keeps it to the providers that have room."""

    learner: Literal["random", "round_robin", "least_loaded", "greedy", "best_single"]
    """Which learner, or which policy that does not learn."""
    mask: bool = False
    """Whether providers without room are ruled out."""


class MarketLearned(Learned):
    """A policy that learns for a number of iterations (collect, update)."""

    observation: Annotated[
        tuple[MarketObservationPart, ...], Field(min_length=1), AfterValidator(each_once)
    ] = ("providers", "task")
    """Parts of the observation, in this order."""
    mask: bool = False
    """Whether providers without room are ruled out."""
    reward: Literal["paid", "regret"] = "paid"
    """What it learns from: what was paid, or that minus the most the task could pay (see
    rlli_jax.envs.edge_market.regret). It is evaluated by what was paid."""


if TYPE_CHECKING:
    AnyMarketPolicy = MarketLearned | MarketBaseline
else:
    AnyMarketPolicy = by_learner(MarketLearned, MarketBaseline)


def as_learner(block: Any, knows_traits: bool) -> Any:
    """A bandit's block in the spelling of before, ``{steps, exploration}``, as any learner's.

    It sees what bandits saw then: the load and room of each provider, the task, and the persona
    where it is known.
    """
    if not isinstance(block, dict) or block.get("learner") not in ("linucb", "thompson"):
        return block
    steps = block.get("steps", 100_000)
    if "iterations" in block or not isinstance(steps, int) or steps < 1:
        return block
    iterations = -(-steps // 1_000)
    older = {k: v for k, v in block.items() if k not in ("steps", "exploration")}
    parts = ["providers", "task", "room", *(["persona"] if knows_traits else [])]
    hyperparams = {k: block[k] for k in ("exploration",) if k in block}
    return {
        "observation": parts,
        "iterations": iterations,
        "config": {"num_steps": steps // iterations},
        "hyperparams": hyperparams,
    } | older


class MarketEvaluation(Block):
    """How policies are judged: all of them on the same episodes of tasks.

    Settings are chosen on the tuning episodes, which the test episodes share no task with.
    """

    episodes: Positive = 50
    """Of tasks, the same for all policies."""
    split: Literal["test", "tuning"] = "test"
    """Which episodes: those of the test, or those on which settings are chosen."""
    seed: Seed = 1_000_003
    """Of these tasks; not the one that training draws from."""
    optimum: bool = True
    """Whether the offline optimum of each episode is found (seconds each)."""


class MarketConfig(TrainedBlock):
    """A whole study of the edge market."""

    kind: Literal["market"] = "market"
    """Of the study."""
    seeds: Positive = 8
    """Runs of every policy, side by side."""
    checkpoint_every: Positive = 50
    """Iterations between checkpoints: at most these are lost."""
    market: MarketBlock
    """The market's numbers."""
    population: PopulationBlock | None = None
    """Personal QoE: give catalog and judge (and the population, unless scores are recorded),
    with as many providers as the fleet has. Without them a picture is worth its utility."""
    catalog: CatalogBlock | None = None
    """What they are shown."""
    judge: AnyJudge | None = None
    """Who rates a picture as a persona."""
    policies: Annotated[dict[str, AnyMarketPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained (if it learns) and evaluated."""
    evaluation: MarketEvaluation = MarketEvaluation()
    """How trained policies are judged."""

    @property
    def personal(self) -> bool:
        """Whether users have personal QoE."""
        return self.judge is not None

    @property
    def knows_traits(self) -> bool:
        """Whether the users' personalities are known; a file of scores does not tell them."""
        return self.population is not None

    @model_validator(mode="before")
    @classmethod
    def _older_bandits(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("policies"), dict):
            return content
        knows_traits = content.get("population") is not None
        policies = {k: as_learner(v, knows_traits) for k, v in content["policies"].items()}
        return content | {"policies": policies}

    @model_validator(mode="after")
    def _consistent(self) -> "MarketConfig":
        if (self.catalog is None) != (self.judge is None) or (
            self.population is not None and self.judge is None
        ):
            raise ValueError(
                "judge: personal QoE needs catalog and judge together; give both or neither"
            )
        if self.judge is not None and (self.population is None) != self.judge.own_users:
            raise ValueError(
                "population: the users of a recorded judge are those of its file; any other judge "
                "needs this key"
            )
        if self.population and self.population.sample and self.population.sample.fresh:
            raise ValueError(
                "population.sample.fresh: the market's tasks come from the users of its table; "
                "remove it, or study provider selection"
            )
        for key, what in (
            ("drift", "tastes are those of users"),
            ("user_mix", "these are weights of users"),
            ("request_mix", "these are weights of what users ask for"),
        ):
            if getattr(self.market, key) is not None and not self.personal:
                raise ValueError(f"market.{key}: {what}; give catalog and judge too")
        if self.evaluation.optimum and (self.market.drift is not None or self.market.queue):
            raise ValueError(
                "evaluation.optimum: there is none where tastes drift or tasks queue; set it to "
                "false"
            )
        for name, policy in self.policies.items():
            if isinstance(policy, MarketLearned):
                for part in {"persona", "request"} & set(policy.observation):
                    if not self.personal:
                        raise ValueError(
                            f"policies.{name}.observation: {part} is that of a user; give catalog "
                            "and judge, or remove it"
                        )
                if "persona" in policy.observation and not self.knows_traits:
                    raise ValueError(f"policies.{name}.observation: {UNKNOWN_TRAITS}")
                if "tastes" in policy.observation and self.market.drift is None:
                    raise ValueError(
                        f"policies.{name}.observation: tastes needs market.drift; give it or "
                        "remove the part"
                    )
        return self
