"""What a study is: a YAML file, checked key by key.

Every class here is one block of the file; ``configs/paper.yaml`` shows them all. A mistake gives
one sentence with the path of the key.
"""

import difflib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rlli_jax.envs.provider_selection import Assignment, ObservationPart
from rlli_jax.errors import InputError
from rlli_jax.judges import SCALES
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams

Positive = Annotated[int, Field(gt=0)]


class Block(BaseModel):
    """A block of the file: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _exactly_one(block: BaseModel, names: Sequence[str]) -> None:
    given = [name for name in names if getattr(block, name)]
    if len(given) != 1:
        raise ValueError(
            f"give exactly one of {', '.join(names)}; "
            f"here {'none is' if not given else ' and '.join(given) + ' are'} given"
        )


def _beside_file(path: Path | None, info: ValidationInfo) -> Path | None:
    """Paths in a file are meant relative to the folder of that file."""
    folder = (info.context or {}).get("folder")
    return path if path is None or folder is None else (folder / path).resolve()


class Sample(Block):
    """Personas drawn from published norms."""

    size: Positive
    group: str = "women 21-40"
    correlations: str = "davies_2015_r_observed"
    seed: int = 0


class PopulationBlock(Block):
    """Who the users are. With a recorded judge leave it out: the users are those of the file."""

    sample: Sample | None = None
    csv: Path | None = None
    bigfive_test: Path | None = None

    _paths = field_validator("csv", "bigfive_test")(_beside_file)

    @model_validator(mode="after")
    def _one_source(self) -> "PopulationBlock":
        _exactly_one(self, ("sample", "csv", "bigfive_test"))
        return self


class CatalogBlock(Block):
    """Where the pictures are."""

    studio: bool = False  # the built-in one
    folder: Path | None = None  # provider/request.png
    manifest: Path | None = None  # CSV: provider, request, image
    pictures: bool = True  # false: the manifest only names images that are not there

    _paths = field_validator("folder", "manifest")(_beside_file)

    @model_validator(mode="after")
    def _one_source(self) -> "CatalogBlock":
        _exactly_one(self, ("studio", "folder", "manifest"))
        return self


class JudgeBlock(Block):
    """What every judge has: a scale, and how often it is asked the same."""

    scale: str = "adjectives"
    samples: Positive = 1

    @field_validator("scale")
    @classmethod
    def _known(cls, scale: str) -> str:
        if scale not in SCALES:
            raise ValueError(f"unknown scale {scale!r}; choose one of {', '.join(SCALES)}")
        return scale


class Psychometric(JudgeBlock):
    """The embedded linear model: a stand-in for a language model."""

    kind: Literal["psychometric"]
    preset: str = "replicated"
    strength: Annotated[float, Field(ge=0)] = 1.0
    noise: Annotated[float, Field(ge=0)] = 0.3
    seed: int = 0


class Recorded(JudgeBlock):
    """Scores from a CSV or Parquet file."""

    kind: Literal["recorded"]
    path: Path
    columns: dict[str, str | tuple[str, ...]] = {}
    user: str | None = None  # if all scores are one user's

    _paths = field_validator("path")(_beside_file)


class TableBlock(Block):
    """What is done to the table before anything learns from it."""

    standardise: bool = False  # remove every user's level and spread
    held_out_requests: Annotated[float, Field(ge=0, lt=1)] = 0.0  # part kept for evaluation
    split_seed: int = 0


class EnvironmentBlock(Block):
    """How the table is played."""

    assignment: Assignment = "sequential"
    rounds: Positive = 1


class PolicyBlock(Block):
    """What the policies share."""

    observation: tuple[ObservationPart, ...] = ("action", "reward")


class Reference(PolicyBlock):
    """A policy that does not learn."""

    learner: Literal["random", "round_robin", "best_single", "optimal", "greedy"]


class Learned(PolicyBlock):
    """A policy that learns for a number of iterations (collect, update)."""

    iterations: Positive
    config: Any
    hyperparams: Any

    @model_validator(mode="before")
    @classmethod
    def _schedules_span_the_training(cls, block: Any) -> Any:
        if not isinstance(block, dict) or not isinstance(block.get("hyperparams", {}), dict):
            return block
        total = block.get("iterations")
        hyperparams = {"total_iterations": total} | block.get("hyperparams", {})
        if hyperparams["total_iterations"] != total:
            raise ValueError("hyperparams.total_iterations follows from iterations; remove it")
        return block | {"hyperparams": hyperparams}


class PPO(Learned):
    """Proximal policy optimisation; keys as in :mod:`rlli_jax.learners.ppo`."""

    learner: Literal["ppo"]
    config: PPOConfig = PPOConfig()
    hyperparams: PPOHyperparams = PPOHyperparams()


class DQN(Learned):
    """Deep Q-learning; keys as in :mod:`rlli_jax.learners.dqn`."""

    learner: Literal["dqn"]
    config: DQNConfig = DQNConfig()
    hyperparams: DQNHyperparams = DQNHyperparams()


REFERENCES = get_args(Reference.model_fields["learner"].annotation)


def _policy_tag(block: Any) -> str | None:
    """Which class a policy block belongs to; None if its learner is unknown or missing."""
    learner = block.get("learner") if isinstance(block, dict) else getattr(block, "learner", None)
    if learner in ("ppo", "dqn"):
        return str(learner)
    return "reference" if learner in REFERENCES else None


AnyPolicy = Annotated[
    Annotated[PPO, Tag("ppo")]
    | Annotated[DQN, Tag("dqn")]
    | Annotated[Reference, Tag("reference")],
    Discriminator(
        _policy_tag,
        custom_error_type="unknown_learner",
        custom_error_message=f"learner must be one of ppo, dqn, {', '.join(REFERENCES)}",
    ),
]


class EvaluationBlock(Block):
    """How trained policies are judged."""

    episodes: Positive = 256
    # A second table of scores, in which the choices are looked up afterwards: human opinion.
    human: Recorded | None = None


class StudyConfig(Block):
    """A whole study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: int = 0
    seeds: Positive = 10  # runs of every policy, side by side
    checkpoint_every: Positive = 25  # iterations between checkpoints: at most these are lost
    population: PopulationBlock | None = None
    catalog: CatalogBlock
    judge: Annotated[Psychometric | Recorded, Field(discriminator="kind")]
    table: TableBlock = TableBlock()
    environment: EnvironmentBlock = EnvironmentBlock()
    policies: Annotated[dict[str, AnyPolicy], Field(min_length=1)]
    evaluation: EvaluationBlock = EvaluationBlock()

    @model_validator(mode="after")
    def _consistent(self) -> "StudyConfig":
        if self.judge.kind == "psychometric" and self.population is None:
            raise ValueError("population is missing; a psychometric judge needs to know the users")
        if self.judge.kind == "recorded" and self.population is not None:
            raise ValueError(
                "population is given, but the users of a recorded judge are those of its file; "
                "remove it"
            )
        for name in self.policies:
            if not name.strip() or set(name) & set('/\\:*?"<>|') or name.startswith("."):
                raise ValueError(
                    f"policies: {name!r} cannot be the name of a folder; choose another name"
                )
        return self

    def dump(self) -> dict[str, Any]:
        """The resolved config as plain values, as ``config.yaml`` holds it."""
        return self.model_dump(mode="json", exclude_none=True)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study from YAML, with overrides ``key.path=value`` on top.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such config file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{where}: malformed YAML, {problem}.") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: a config is a mapping of keys to values; see configs/paper.yaml."
        )
    for override in overrides:
        _override(content, override)
    return parse_config(content, source=str(path), folder=path.resolve().parent)


def parse_config(content: dict[str, Any], *, source: str, folder: Path | None) -> StudyConfig:
    """Check plain values; paths are relative to ``folder``. Raises InputError as above."""
    try:
        return StudyConfig.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        raise InputError(f"{source}: {_sentence(error, content)}") from None


def _override(content: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in place; the value is read as YAML."""
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(key.strip() for key in keys):
        raise InputError(f"override {override!r}: write key.path=value, such as seeds=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: the value is malformed YAML.") from None
    for i, key in enumerate(keys[:-1]):
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise InputError(
                f"override {override!r}: {'.'.join(keys[: i + 1])} is a value, not a block of keys."
            )
    content[keys[-1]] = value


def _sentence(error: ValidationError, content: dict[str, Any]) -> str:
    """The first problem as one sentence with the path of the key in the file."""
    problems = error.errors()
    # An unknown key is the likeliest cause of whatever else is wrong with its block.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    keys: list[str] = []
    here: Any = content
    for part in problem["loc"]:
        if isinstance(here, dict) and part not in here and problem["type"] != "missing":
            continue  # pydantic's name of an alternative, not a key of the file
        keys.append(str(part))
        here = here.get(part) if isinstance(here, dict) else None
    where = ".".join(keys) or "config"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key{_suggestion(keys)}; remove or correct it."
    if problem["type"] == "missing":
        return f"{where}: this key is missing; add it."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    given = problem["input"]
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    return f"{where}: {message[0].lower() + message[1:]}{shown}."


def _suggestion(keys: list[str]) -> str:
    """``, did you mean ...?`` for a misspelt key."""
    known = {name for block in _blocks(Block) for name in block.model_fields} | {
        field.name
        for block in (PPOConfig, PPOHyperparams, DQNConfig, DQNHyperparams)
        for field in fields(block)
    }
    close = difflib.get_close_matches(keys[-1], known, 1)
    return f", did you mean {close[0]}?" if close else ""


def _blocks(block: type[Block]) -> list[type[Block]]:
    children: list[type[Block]] = block.__subclasses__()
    return [block, *(leaf for child in children for leaf in _blocks(child))]
