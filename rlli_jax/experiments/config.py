"""What a study is: a YAML file, checked key by key.

Every class here is one block of the file; ``configs/paper.yaml`` shows them all. A mistake gives
one sentence with the path of the key.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
)

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from rlli_jax.checking import one_sentence
from rlli_jax.errors import InputError
from rlli_jax.judges import scale_of
from rlli_jax.learners import LEARNERS, learner_kind
from rlli_jax.learners.core import Env, Learner
from rlli_jax.names import Assignment, ObservationPart, OnMissing
from rlli_jax.personas import Wording
from rlli_jax.personas.population import trait_range


def _whole(value: Any) -> Any:
    """5e6 is a float in YAML, but a whole number all the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]  # not true, not "3"
Positive = Annotated[Whole, Field(gt=0)]
Seed = Annotated[Whole, Field(ge=-(2**63), lt=2**63)]  # of JAX's keys, which hold 64 bits
NumpySeed = Annotated[Whole, Field(ge=0)]
MOST_LABELS = 101  # of a language model's scale, which every prompt lists: 0-100
NAMED = ("policies", "methods", "cases")  # blocks whose keys are names that the user chose


class Block(BaseModel):
    """A block of the file: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


AnyBlock = TypeVar("AnyBlock", bound=Block)


def exactly_one(block: BaseModel, names: Sequence[str]) -> None:
    """Raise ValueError unless one of the fields ``names`` has a value that is not empty."""
    given = [name for name in names if getattr(block, name)]
    if len(given) != 1:
        raise ValueError(
            f"give exactly one of {', '.join(names)}; "
            f"here {'none is' if not given else ' and '.join(given) + ' are'} given"
        )


def require_file_name(key: str, name: str, what: str) -> None:
    """Raise ValueError unless a ``what``, a file or a folder, can have this name."""
    if not name.strip() or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ValueError(f"{key}: {name!r} cannot be the name of a {what}; choose another name")


def beside_file(path: Path | None, info: ValidationInfo) -> Path | None:
    """Paths in a file are meant relative to the folder of that file."""
    folder = (info.context or {}).get("folder")
    return path if path is None or folder is None else (folder / path).resolve()


class Sample(Block):
    """Personas drawn from published norms."""

    size: Positive
    """Number of users."""
    group: str = "women 21-40"
    """Sex and age of the norms."""
    correlations: str = "davies_2015_r_observed"
    """Between the traits."""
    seed: Whole = 0
    """Of the draw."""


class PopulationBlock(Block):
    """Who the users are. With a recorded judge leave it out: the users are those of the file,
    whose personalities are then unknown; or give it, and users are joined by name."""

    sample: Sample | None = None
    """Users drawn from published norms."""
    csv: Path | None = None
    """A table: name, O, C, E, A, N."""
    range: str = "1-5"
    """Of the traits in csv: a-b, or T for T-scores."""
    questionnaire: Path | None = None
    """A table of answers to the 50 IPIP markers."""
    max_missing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of a trait's items that may be missing."""
    bigfive_test: Path | None = None
    """Results of a Big Five test as JSON."""
    wording: Wording = "full"
    """Of the personas, for language models: 52 adjectives; "brief": 5."""

    _paths = field_validator("csv", "questionnaire", "bigfive_test")(beside_file)

    @field_validator("range")
    @classmethod
    def _ends(cls, scale: str) -> str:
        try:
            trait_range(scale)
        except InputError as error:
            raise ValueError(str(error)) from None
        return scale

    @model_validator(mode="after")
    def _one_source(self) -> "PopulationBlock":
        exactly_one(self, ("sample", "csv", "questionnaire", "bigfive_test"))
        return self


class CatalogBlock(Block):
    """Where the pictures are."""

    studio: bool = False
    """Six photographs in four styles, rendered without any file."""
    folder: Path | None = None
    """Of pictures, provider/request.png."""
    manifest: Path | None = None
    """A table of provider, request and image."""
    pictures: bool = True
    """False: the manifest only names images that are not there."""

    _paths = field_validator("folder", "manifest")(beside_file)

    @model_validator(mode="after")
    def _one_source(self) -> "CatalogBlock":
        exactly_one(self, ("studio", "folder", "manifest"))
        return self


class JudgeBlock(Block):
    """What every judge has."""

    scale: str | tuple[str, ...] = "adjectives"
    """A name, a-b, or labels from worst to best."""

    @field_validator("scale", mode="before")
    @classmethod
    def _texts(cls, scale: Any) -> Any:
        if isinstance(scale, str):
            return scale
        if not isinstance(scale, list | tuple):
            raise ValueError("write a name, two ends such as 1-7, or a list of labels")
        for label in scale:
            if isinstance(label, bool) or not isinstance(label, str | int | float):
                raise ValueError(
                    f"the label {str(label).lower()} is no text; put it into quotes "
                    "(YAML reads yes, no, on and off as true and false)"
                )
        return tuple(str(label) for label in scale)

    @field_validator("scale")
    @classmethod
    def _known(cls, scale: str | tuple[str, ...]) -> str | tuple[str, ...]:
        try:
            return scale_of(scale).name if isinstance(scale, str) else scale_of(scale).labels
        except InputError as error:
            raise ValueError(str(error)) from None


class Psychometric(JudgeBlock):
    """The embedded linear model: a stand-in for a language model."""

    kind: Literal["psychometric"]
    """Which form of this block it is."""
    samples: Positive = 1
    """How often it is asked the same."""
    preset: str = "replicated"
    """Which published correlations it rests on."""
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Factor of those correlations."""
    noise: Annotated[float, Field(ge=0)] = 0.3
    """Standard deviation of an answer, in units of the scores' own."""
    seed: Whole = 0
    """Of that noise."""
    on_missing: OnMissing = "raise"
    """What a picture without a rating does: raise an error, mask the choice out, or impute."""


class RecordedScores(JudgeBlock):
    """Scores from a table (CSV, TSV, Parquet, Excel), with as many samples as that has."""

    kind: Literal["recorded"]
    """Which form of this block it is."""
    path: Path
    """Of the scores: CSV, Parquet or Excel."""
    columns: dict[str, str | tuple[str, ...]] = {}
    """Which columns hold what, where their names differ."""
    user: str | None = None
    """If all scores are one user's."""

    _paths = field_validator("path")(beside_file)


class Recorded(RecordedScores):
    """The judge that replays such scores."""

    on_missing: OnMissing = "mask"
    """What a picture without a score does; masked by default, as people rate some, not all."""


class BudgetBlock(Block):
    """The most that one command may use up of a language model; what is left is asked later."""

    questions: Annotated[int, Field(ge=0)] | None = None
    """Questions asked."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens of prompts and answers."""
    money: Annotated[float, Field(ge=0)] | None = None
    """In the currency of the prices."""


class LanguageModel(JudgeBlock):
    """What the language models share. Their answers are kept in a store and never paid twice."""

    model: str
    """Name or folder of the model."""
    revision: str | None = None
    """Of the model; part of the key of every answer."""
    samples: Positive = 1
    """How often it is asked the same."""
    both_orders: bool = False
    """Average over labels from worst to best and from best to worst."""
    longest_side: Positive | None = None
    """Pixels; larger pictures are scaled down to it."""
    min_valid_mass: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least probability on the labels; an answer with less is invalid."""
    store: str | None = None
    """A file, or postgresql://user@host/database; else the user's folder."""
    budget: BudgetBlock = BudgetBlock()
    """The most that one command may use up."""
    on_missing: OnMissing = "raise"
    """What a question without an answer does: raise an error, mask the choice out, or impute."""

    @property
    def draws(self) -> bool:
        """Whether repeated answers to one question are independent draws."""
        raise NotImplementedError

    @field_validator("scale")
    @classmethod
    def _not_too_long(cls, scale: str | tuple[str, ...]) -> str | tuple[str, ...]:
        labels = scale_of(scale).labels
        if len(labels) > MOST_LABELS:
            raise ValueError(
                f"a language model chooses one of the labels, of which this scale has "
                f"{len(labels):,}; give at most {MOST_LABELS}"
            )
        return scale

    @field_validator("store")
    @classmethod
    def _file_beside(cls, store: str | None, info: ValidationInfo) -> str | None:
        if store is None or "://" in store:
            return store
        return str(beside_file(Path(store).expanduser(), info))


class Transformers(LanguageModel):
    """A vision-language model in this process, by name or folder; needs the extra ``llm``."""

    kind: Literal["transformers"]
    """Which form of this block it is."""
    device: str = "auto"
    """Where the model runs; auto: a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights."""
    batch_size: Positive = 16
    """Personas that are scored together."""

    @property
    def draws(self) -> bool:
        """Never: a rating is computed from the probabilities of all labels."""
        return False


class OpenAI(LanguageModel):
    """A model behind an OpenAI-compatible server; the key comes from the environment."""

    kind: Literal["openai"]
    """Which form of this block it is."""
    base_url: str | None = None
    """Of the server, with /v1; OpenAI's own if not given."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    scoring: Literal["auto", "logprobs", "text"] = "auto"
    """Whether a rating is the expectation over the labels' log-probabilities or the label that
    was written; auto: what the server can do."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """At which the answer is drawn."""
    max_tokens: Positive | None = 16
    """Null: not sent, as for servers that want another name."""
    top_logprobs: Annotated[int, Field(ge=1, le=20)] = 20
    """Log-probabilities asked for at the first token."""
    seed: Whole | None = None
    """Sent with every question, for servers that know it."""
    extra: dict[str, Any] = {}
    """Further fields of a request."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Per million tokens."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Per million tokens of answers."""
    image_tokens: Positive = 576
    """Of a picture, for plans."""
    concurrency: Positive = 16
    """Questions under way together."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """The most that the server allows."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """The most that the server allows."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds."""
    retries: Annotated[int, Field(ge=0)] = 6
    """Further tries after a failure that may pass."""

    @model_serializer(mode="wrap")
    def _with_nulls(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Keep the nulls that mean something, which a dump without nulls would turn into the
        defaults."""
        meant = [name for name in ("temperature", "max_tokens") if getattr(self, name) is None]
        return handler(self) | (dict.fromkeys(meant) if info.exclude_none else {})

    @property
    def draws(self) -> bool:
        """Not at temperature 0."""
        return bool(self.extra.get("temperature", self.temperature) != 0)


AnyJudge = Psychometric | Recorded | Transformers | OpenAI
JUDGES = get_args(AnyJudge)


class CalibrateBlock(Block):
    """A few people's scores, by which judges are weighed and providers corrected."""

    human: RecordedScores
    """People's scores."""
    requests: Annotated[int, Field(ge=2)] | None = None
    """Of the requests that learners see, so many drawn at random by split_seed; None: all."""


class TableBlock(Block):
    """What is done to the table before anything learns from it."""

    standardise: bool = False
    """Remove every user's level and spread."""
    shrink: bool = False
    """Pull noisy cells toward provider and user means."""
    calibrate: CalibrateBlock | None = None
    """Judges become one user: what people are to like."""
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


class PolicyBlock(Block):
    """What the policies share."""

    observation: Annotated[tuple[ObservationPart, ...], Field(min_length=1)] = ("action", "reward")
    """Parts of the observation, in this order."""

    @field_validator("observation")
    @classmethod
    def _each_once(cls, parts: tuple[ObservationPart, ...]) -> tuple[ObservationPart, ...]:
        for part in parts:
            if parts.count(part) > 1:
                raise ValueError(f"{part} is there twice; name each part once")
        return parts


class Reference(PolicyBlock):
    """A policy that does not learn."""

    learner: Literal["random", "round_robin", "best_single", "optimal", "greedy"]
    """Which learner, or which policy that does not learn."""


class Learned(PolicyBlock):
    """A policy that learns for a number of iterations (collect, update).

    The keys of ``config`` and ``hyperparams`` are those of the learner, see :func:`learned`.
    """

    iterations: Positive
    """How often the learner collects steps and updates."""
    config: Any = None
    """What decides shapes; a change compiles anew."""
    hyperparams: Any = None
    """What a sweep may vary within one compilation."""
    learner: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """Which learner: a name, or the import path package.module:attribute of a
    rlli_jax.learners.Kind."""

    @model_validator(mode="before")
    @classmethod
    def _schedules_span_the_training(cls, block: Any) -> Any:
        if not isinstance(block, dict) or "learner" not in block:
            return block
        if not isinstance(block.get("hyperparams", {}), dict):
            return block
        kind, total = learner_kind(block["learner"]), block.get("iterations")
        schedules = {"total_iterations": total, "anneal": kind.anneal}
        known = [field.name for field in fields(kind.hyperparams)]
        hyperparams = {name: schedules[name] for name in schedules if name in known}
        hyperparams |= block.get("hyperparams", {})
        if hyperparams.get("total_iterations", total) != total:
            raise ValueError("hyperparams.total_iterations follows from iterations; remove it")
        return block | {"hyperparams": hyperparams}

    @classmethod
    def for_content(cls, content: Any) -> "type[Learned] | None":
        """The block whose keys ``content`` may have; None if it names no learner by a path."""
        if cls.model_fields["learner"].annotation is not str:
            return cls
        learner = content.get("learner") if isinstance(content, dict) else None
        return learned(cls, learner) if isinstance(learner, str) and ":" in learner else None

    def __reduce__(self) -> Any:
        # The class of a learner's blocks is made when it is asked for, so pickle cannot find it.
        return _learned_block, (type(self).__base__, dict(self))

    def make(self, env: Env) -> Learner:
        """The learner on an environment."""
        return learner_kind(self.learner).make(env, self.config)


AnyLearned = TypeVar("AnyLearned", bound=Learned)


@cache
def learned(base: type[AnyLearned], learner: str) -> type[AnyLearned]:
    """The block of one learner: ``base`` with the keys of its config and its hyperparameters.

    Raises InputError as :func:`rlli_jax.learners.learner_kind` does.
    """
    kind = learner_kind(learner)

    def key(name: str, annotation: Any, **default: Any) -> Any:
        return annotation, Field(description=base.model_fields[name].description, **default)

    return create_model(
        base.__name__.removesuffix("Learned") + kind.config.__name__.removesuffix("Config"),
        __base__=base,
        __doc__=f"A policy that learns by {learner}; keys as in {kind.make.__module__}.",
        config=key("config", kind.config, default=kind.config()),
        hyperparams=key("hyperparams", kind.hyperparams, default=kind.hyperparams()),
        learner=key("learner", Literal[learner]),
    )


def _learned_block(base: type[AnyLearned], values: dict[str, Any]) -> AnyLearned:
    return learned(base, values["learner"]).model_construct(**values)


OWN = "own"  # tag of learners that are named by their import path


def by_learner(base: type[Learned], *others: type[Block]) -> Any:
    """The type of a policy block, which ``learner`` tells: that of a learner, or one of ``others``.

    Learners are those of :data:`rlli_jax.learners.LEARNERS`, and any other by its import path.
    """
    names = {name: [name] for name in LEARNERS}
    names |= {b.__name__: list(get_args(b.model_fields["learner"].annotation)) for b in others}
    tags = {name: tag for tag, known in names.items() for name in known}

    def tag(block: Any) -> str | None:
        learner = (
            block.get("learner") if isinstance(block, dict) else getattr(block, "learner", None)
        )
        if not isinstance(learner, str):
            return None
        return OWN if ":" in learner else tags.get(learner)

    def own(block: Any, handler: Any, info: ValidationInfo) -> Any:
        kind = base.for_content(block)
        return handler(block) if kind is None else kind.model_validate(block, context=info.context)

    return Annotated[
        Union[
            *(Annotated[learned(base, name), Tag(name)] for name in LEARNERS),
            *(Annotated[block, Tag(block.__name__)] for block in others),
            Annotated[base, WrapValidator(own), Tag(OWN)],
        ],
        Discriminator(
            tag,
            custom_error_type="unknown_learner",
            custom_error_message=f"learner must be one of {', '.join(tags)}, or the import path "
            "package.module:attribute of another",
        ),
    ]


if TYPE_CHECKING:
    AnyPolicy = Learned | Reference
else:
    AnyPolicy = by_learner(Learned, Reference)


class EvaluationBlock(Block):
    """How trained policies are judged."""

    episodes: Positive = 256
    """Played with each trained policy."""
    human: RecordedScores | None = None
    """A second table of scores, in which the choices are looked up afterwards: human opinion."""


UNKNOWN_TRAITS = (
    "persona is the users' personality, of which recorded scores alone tell nothing; remove it"
)


class StudyConfig(Block):
    """A whole study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the study; its run directory is runs/<name> if none is given."""
    description: str = ""
    """One or two sentences that the report shows."""
    seed: Seed = 0
    """All random numbers of the study follow from it."""
    seeds: Positive = 10
    """Runs of every policy, side by side."""
    checkpoint_every: Positive = 25
    """Iterations between checkpoints: at most these are lost."""
    population: PopulationBlock | None = None
    """Who the users are."""
    catalog: CatalogBlock
    """What they are shown."""
    judge: Annotated[AnyJudge, Field(discriminator="kind")]
    """Who rates a picture as a persona."""
    table: TableBlock = TableBlock()
    """What is done to the scores before anything learns from them."""
    environment: EnvironmentBlock = EnvironmentBlock()
    """How the table is played."""
    policies: Annotated[dict[str, AnyPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained (if it learns) and evaluated."""
    evaluation: EvaluationBlock = EvaluationBlock()
    """How trained policies are judged."""

    @property
    def knows_traits(self) -> bool:
        """Whether the users' personalities are known.

        A file of scores does not tell them, and a calibrated judge is nobody in particular.
        """
        return self.population is not None and self.table.calibrate is None

    @model_validator(mode="after")
    def _consistent(self) -> "StudyConfig":
        if self.judge.kind != "recorded" and self.population is None:
            raise ValueError(
                f"population: this key is missing; a {self.judge.kind} judge needs users"
            )
        if self.judge.kind == "recorded" and self.population and self.population.sample:
            raise ValueError(
                "population.sample: people who are drawn have recorded no scores; give the "
                "personalities of those who did (csv, questionnaire, bigfive_test), or remove it"
            )
        if self.table.calibrate is not None:
            if self.judge.kind != "recorded":
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
            require_file_name("policies", name, "folder")
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
                    "of the held-out ones; remove it, or set table.held_out_requests to 0"
                )
        return self

    def dump(self) -> dict[str, Any]:
        """The resolved config as plain values, as ``config.yaml`` holds it."""
        return self.model_dump(mode="json", exclude_none=True)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently drop one.

    Reads 1e-3 and 5e6 as the numbers that they are in YAML 1.2 and everywhere else; PyYAML speaks
    YAML 1.1, where a number with an exponent needs a point and a sign, and all else is text.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for i, key in enumerate(keys):
            if key.value in names[:i]:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark
                )
        return node


class _Dumper(yaml.SafeDumper):
    """Writes text that looks like such a number in quotes, or it would be read as a number."""


_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def from_yaml(text: str) -> Any:
    """Plain values. Raises yaml.YAMLError."""
    return _unshared(yaml.load(text, _Loader))


def _unshared(tree: Any) -> Any:
    """A copy without shared parts: YAML's anchors would change several places at once."""
    if isinstance(tree, Mapping):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def to_yaml(content: Any) -> str:
    """What :func:`from_yaml` reads as ``content`` again."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def kind_of(content: Mapping[str, Any]) -> Literal["selection", "market", "teaching", "sweep"]:
    """Which kind of study a file holds, by the block that only that kind has."""
    if "sweep" in content:
        return "sweep"
    return "teaching" if "methods" in content else "market" if "market" in content else "selection"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study from YAML, with overrides ``key.path=value`` on top.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    path = Path(path)
    content = read_yaml(path, overrides)
    return parse_config(content, source=str(path), folder=path.resolve().parent)


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of a config file, with overrides on top. Raises InputError as above."""
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such config file.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a config, a YAML file.") from None
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
        apply_override(content, override)
    return content


def parse_config(content: dict[str, Any], *, source: str, folder: Path | None) -> StudyConfig:
    """Check plain values; paths are relative to ``folder``. Raises InputError as above."""
    return parse_as(StudyConfig, content, source=source, folder=folder)


def parse_as(
    kind: type[AnyBlock],
    content: Any,
    *,
    source: str,
    folder: Path | None,
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> AnyBlock:
    """Check plain values of a study of any kind; ``kinds`` as for :func:`one_sentence`."""
    try:
        return kind.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        raise InputError(
            f"{source}: {one_sentence(error, content, kind, kinds, _judges())}"
        ) from None


def _judges() -> list[str]:
    return [get_args(judge.model_fields["kind"].annotation)[0] for judge in JUDGES]


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in place; the value is read as YAML."""
    path, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in path.split(".")):
        raise InputError(f"override '{override}': write key.path=value, such as seeds=3.")
    try:
        value = from_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"override '{override}': the value is malformed YAML.") from None
    set_key(content, path, value, f"override '{override}'")


def set_key(content: dict[str, Any], path: str, value: Any, source: str) -> None:
    """Set the key ``a.b.c`` in place; missing blocks on the way are made.

    Raises:
        InputError: the path leads through a value, through a key that is there in another
            spelling (capitals), or into a policy (a method, a case) that is not there.
    """
    parts, outer = path.split("."), ""
    while True:
        # A key (the name of a policy) may hold dots: the longest one that is there is meant.
        lengths = range(len(parts), 0, -1)
        length = next((n for n in lengths if ".".join(parts[:n]) in content), 1)
        key, parts = ".".join(parts[:length]), parts[length:]
        where = f"{outer}.{key}".lstrip(".")
        if key not in content:
            _refuse_misspelt(content, key, outer, parts, source)
        if not parts:
            content[key] = value
            return
        inner = content.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"{source}: {where} is a value, not a block of keys.")
        content, outer = inner, where


def _refuse_misspelt(
    content: dict[str, Any], key: str, outer: str, parts: Sequence[str], source: str
) -> None:
    """InputError if ``outer.key``, which is not there, is most likely meant to be one that is."""
    names = {str(name).casefold(): str(name) for name in content}
    inside = outer in NAMED and parts and parts[0] != "learner"
    if not inside and key.casefold() not in names:
        return
    prefix = f"{outer}." if outer else ""
    missing = f"{source}: there is no {prefix}{key}"
    if not inside:
        raise InputError(f"{missing}; write {prefix}{names[key.casefold()]}.")
    close = difflib.get_close_matches(key.casefold(), names, 1)
    meant = f", did you mean {prefix}{names[close[0]]}? T" if close else "; t"
    listed = ", ".join(f"'{name}'" for name in names.values())
    raise InputError(
        f"{missing}{meant}he {outer} are {listed}; a new one needs its whole block, "
        f"{prefix}{key}={{...}}."
    )
