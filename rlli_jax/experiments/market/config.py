"""What a study of the edge market is: a YAML file with a key ``market``, checked key by key.

The numbers of the market itself are checked by ``make_params``, which knows their ranges.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rlli_jax.experiments.judge_blocks import AnyJudge
from rlli_jax.experiments.policies import Learned, by_learner, each_once
from rlli_jax.experiments.selection.config import StudyConfig, parse_config
from rlli_jax.experiments.sources import CatalogBlock, PopulationBlock
from rlli_jax.experiments.yaml_blocks import (
    UNKNOWN_TRAITS,
    Block,
    NumpySeed,
    Positive,
    Seed,
    StudyBlock,
    Whole,
    beside_file,
    exactly_one,
    parse_as,
    read_yaml,
    require_file_name,
)
from rlli_jax.names import MarketObservationPart

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
    drift: DriftBlock | None = None
    """How tastes move; they do not if not given."""

    def numbers(self) -> dict[str, Any]:
        """What ``make_params`` takes as it is."""
        numbers = self.model_dump(exclude={"fleet", "queue", "drift"}, exclude_none=True)
        return dict(numbers)


class Rule(Block):
    """A policy that does not learn; ``mask`` keeps it to the providers that have room."""

    learner: Literal["random", "round_robin", "least_loaded", "greedy", "best_single"]
    """Which learner, or which policy that does not learn."""
    mask: bool = False
    """Whether providers without room are ruled out."""


class Bandit(Block):
    """A linear bandit, which learns while it serves ``steps`` tasks and is then evaluated."""

    learner: Literal["linucb", "thompson"]
    """Which learner, or which policy that does not learn."""
    mask: bool = False
    """Whether providers without room are ruled out."""
    steps: Positive = 100_000
    """Tasks served while it learns."""
    exploration: NotNegative = 1.0
    """Alpha of LinUCB, scale of Thompson sampling."""


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
    AnyMarketPolicy = MarketLearned | Bandit | Rule
else:
    AnyMarketPolicy = by_learner(MarketLearned, Bandit, Rule)


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


class MarketConfig(StudyBlock):
    """A whole study of the edge market."""

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

    @model_validator(mode="after")
    def _consistent(self) -> "MarketConfig":
        if (self.catalog is None) != (self.judge is None) or (
            self.population is not None and self.judge is None
        ):
            raise ValueError(
                "judge: personal QoE needs catalog and judge together; give both or neither"
            )
        if self.judge is not None and (self.population is None) != (self.judge.kind == "recorded"):
            raise ValueError(
                "population: the users of a recorded judge are those of its file; any other judge "
                "needs this key"
            )
        if self.market.drift is not None and not self.personal:
            raise ValueError("market.drift: tastes are those of users; give catalog and judge too")
        if self.evaluation.optimum and (self.market.drift is not None or self.market.queue):
            raise ValueError(
                "evaluation.optimum: there is none where tastes drift or tasks queue; set it to "
                "false"
            )
        for name, policy in self.policies.items():
            require_file_name("policies", name, "folder")
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


def load_market_config(path: str | Path, overrides: Sequence[str] = ()) -> MarketConfig:
    """Read a study from YAML, with overrides ``key.path=value`` on top.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    path = Path(path)
    return parse_market_config(
        read_yaml(path, overrides), source=str(path), folder=path.resolve().parent
    )


def parse_study(content: Any, *, source: str, folder: Path | None) -> StudyConfig | MarketConfig:
    """Check plain values of a study of either kind. Raises InputError as above."""
    of_a_market = isinstance(content, dict) and "market" in content
    parse = parse_market_config if of_a_market else parse_config
    return parse(content, source=source, folder=folder)


def parse_market_config(
    content: dict[str, Any], *, source: str, folder: Path | None
) -> MarketConfig:
    """Check plain values; paths are relative to ``folder``. Raises InputError as above."""
    return parse_as(MarketConfig, content, source=source, folder=folder)
