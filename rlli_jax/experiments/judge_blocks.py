"""Who rates: one block for each kind of judge, which builds it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from rlli_jax.catalog import Catalog
from rlli_jax.experiments.asking import AskBlock
from rlli_jax.experiments.judge_base import JudgeBlock
from rlli_jax.experiments.yaml_blocks import Block, Positive, Whole, beside_file
from rlli_jax.judges import Judge, PaidJudge, scale_of
from rlli_jax.judges.examination import Check
from rlli_jax.judges.prompting import Sees
from rlli_jax.qoe import OnMissing

if TYPE_CHECKING:  # slow to import
    from rich.console import Console

    from rlli_jax.judges.recorded import RecordedJudge
    from rlli_jax.oracle import Asker, Budget
    from rlli_jax.personas import Population

SHARED = {
    "model", "revision", "both_orders", "longest_side", "min_valid_mass", "sees", "prefill",
}  # fmt: skip
MOST_LABELS = 101  # of a language model's scale, which every prompt lists: 0-100


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
    ask: AskBlock | None = None
    """Ask part of the questions, and predict the others; all are asked if absent."""

    @property
    def times(self) -> int:
        """How often each question is asked."""
        return self.samples

    def asked(self, judge: Judge) -> int:
        """As often as the file says."""
        return self.times

    def examined(self, kept: bool) -> bool:
        """Where the findings are kept: nothing is required of it."""
        return kept

    def examining(self) -> dict[str, Any]:
        """With repeats, if its answers differ."""
        return {"in_words": False, "draws": self.noise > 0}

    def make(self, catalog: Catalog) -> Judge:
        """The judge of these pictures."""
        from rlli_jax.judges.psychometric import PsychometricJudge  # and with it image features

        return PsychometricJudge(
            catalog, preset=self.preset, strength=self.strength, noise=self.noise, seed=self.seed
        )


class RecordedScores(JudgeBlock):
    """Scores from a table (CSV, TSV, Parquet, Excel), with as many samples as that has."""

    own_users: ClassVar[bool] = True

    kind: Literal["recorded"]
    """Which form of this block it is."""
    path: Path
    """Of the scores: CSV, Parquet or Excel."""
    columns: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Which columns hold what, where their names differ."""
    user: str | None = None
    """If all scores are one user's."""

    _paths = field_validator("path")(beside_file)

    def users(self, judge: Judge) -> "Population | None":
        """Those of the file."""
        return cast("RecordedJudge", judge).population()

    def asked(self, judge: Judge) -> int:
        """As often as the file has scores of one."""
        return cast("RecordedJudge", judge).samples

    def make(self, catalog: Catalog) -> "RecordedJudge":
        """The judge of these pictures. Raises InputError for a mistake in the file."""
        from rlli_jax.judges.recorded import RecordedJudge

        return RecordedJudge.from_file(
            self.path,
            catalog,
            scale=scale_of(self.scale),
            columns=self.columns or None,
            user=self.user,
        )


class Recorded(RecordedScores):
    """The judge that replays such scores."""

    on_missing: OnMissing = "mask"
    """What a picture without a score does; masked by default, as people rate some, not all."""
    ask: AskBlock | None = None
    """Ask part of the questions, and predict the others; all are asked if absent."""


class BudgetBlock(Block):
    """The most that one command may use up of a language model; what is left is asked later."""

    questions: Annotated[int, Field(ge=0)] | None = None
    """Questions asked."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens of prompts and answers."""
    money: Annotated[float, Field(ge=0)] | None = None
    """In the currency of the prices."""


class ExaminationBlock(Block):
    """How many questions a judge is examined by: 40 a picture for steering and wording, 50 a
    persona for the questionnaire. They are stored like all others."""

    pictures: Annotated[Whole, Field(ge=3)] = 6
    """Compared, of one to three requests; with each request a blank one."""
    personas: Annotated[Whole, Field(ge=0)] = 12
    """Drawn from published norms, each of whom answers the 50 IPIP markers; 0: none do."""
    people: Annotated[Whole, Field(ge=0)] = 12
    """Of population.questionnaire, of whom half of the answers is told and half asked; 0: none."""


class LanguageModelJudge(JudgeBlock):
    """What the language models share. Their answers are kept in a store and never paid twice."""

    paid: ClassVar[bool] = True
    meant_nulls: ClassVar[tuple[str, ...]] = ("examination",)

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
    sees: Sees = "picture"
    """picture; or description, for models that only read: a manifest's captions, or the pictures'
    measured features in words."""
    prefill: str = ""
    """How the answer begins, such as "Rating: "; the labels are scored behind it. Of a server it is
    found out whether it goes on from there."""
    require: tuple[Check, ...] = ("sight", "scale")
    """Checks that the judge must not fail before its table is asked; none: ask whatever it does."""
    examination: ExaminationBlock | None = ExaminationBlock()
    """How thoroughly it is examined before the table is asked; null: not at all."""
    min_valid_mass: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least probability on the labels; an answer with less is invalid."""
    store: str | None = None
    """A file, or postgresql://user@host/database; else the user's folder."""
    budget: BudgetBlock = BudgetBlock()
    """The most that one command may use up."""
    on_missing: OnMissing = "raise"
    """What a question without an answer does: raise an error, mask the choice out, or impute."""
    ask: AskBlock | None = None
    """Ask part of the questions, and predict the others; all are asked if absent."""

    @model_serializer(mode="wrap")
    def _with_nulls(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Keep the nulls that mean something, which a dump without nulls would turn into the
        defaults."""
        meant = [name for name in self.meant_nulls if getattr(self, name) is None]
        return handler(self) | (dict.fromkeys(meant) if info.exclude_none else {})

    @model_validator(mode="after")
    def _examined(self) -> Self:
        if self.examination is None and self.require:
            raise ValueError(
                f"require: {self.require[0]} is required, but examination is null; set require to "
                "[] as well"
            )
        return self

    @property
    def draws(self) -> bool:
        """Whether repeated answers to one question are independent draws."""
        raise NotImplementedError

    @property
    def times(self) -> int:
        """How often each question is asked: once, if the answers would be equal."""
        return self.samples if self.draws else 1

    @property
    def described(self) -> bool:
        """As ``sees`` says."""
        return self.sees == "description"

    @property
    def required(self) -> tuple[Check, ...]:
        """As ``require`` says."""
        return self.require

    @property
    def note(self) -> str:
        """Why it is asked fewer times than ``samples`` says."""
        if self.times == self.samples:
            return ""
        return (
            f"judge.samples is {self.samples}, but this judge does not draw and its repeats would "
            "be equal: each question is asked once"
        )

    def asked(self, judge: Judge) -> int:
        """See ``times``."""
        return self.times

    def examined(self, kept: bool) -> bool:
        """Unless the file says no."""
        return self.examination is not None

    def examining(self) -> dict[str, Any]:
        """As thoroughly as the file says, in the way that it will be asked."""
        block = self.examination or ExaminationBlock()
        shared = self.model_dump(include={"sees", "both_orders", "prefill", "min_valid_mass"})
        return shared | {
            "in_words": True, "draws": self.draws, "pictures": block.pictures,
            "personas": block.personas,
        }  # fmt: skip

    @property
    def people(self) -> int:
        """As the examination says."""
        return (self.examination or ExaminationBlock()).people

    @contextmanager
    def asker(
        self, judge: Judge, console: "Console", left: "Budget | None" = None
    ) -> "Iterator[Asker]":
        """With the store, which says on ``console`` what it waits for, and the budget."""
        from rlli_jax.oracle import Asker, Budget, open_store

        tell = partial(console.print, highlight=False, markup=False)
        with closing(open_store(self.store, message=tell)) as store:
            budget = Budget(**self.budget.model_dump())
            yield Asker(cast(PaidJudge, judge), store, budget, console, left)

    def make(self, catalog: Catalog) -> PaidJudge:
        """The judge; nothing is loaded or connected before it is asked."""
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


class Transformers(LanguageModelJudge):
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

    def make(self, catalog: Catalog) -> PaidJudge:
        """The judge; nothing is loaded before it is asked."""
        from rlli_jax.judges.transformers import TransformersJudge

        own = {"device", "dtype", "batch_size"}
        return TransformersJudge(**self.model_dump(include=SHARED | own))


class OpenAI(LanguageModelJudge):
    """A model behind an OpenAI-compatible server; the key comes from the environment."""

    meant_nulls = ("examination", "temperature", "max_tokens")

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
    extra: dict[str, Any] = Field(default_factory=dict)
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

    @property
    def draws(self) -> bool:
        """Not at temperature 0."""
        return bool(self.extra.get("temperature", self.temperature) != 0)

    def make(self, catalog: Catalog) -> PaidJudge:
        """The judge; nothing is connected before it is asked."""
        from rlli_jax.judges.completions import Completions
        from rlli_jax.judges.openai import Limits, OpenAIJudge

        def of(kind: type) -> Any:
            return kind(**self.model_dump(include={field.name for field in fields(kind)}))

        own = {"base_url", "key_variable", "image_tokens"}
        return OpenAIJudge(of(Completions), limits=of(Limits), **self.model_dump(include=own))


AnyJudge = Annotated[Psychometric | Recorded | Transformers | OpenAI, Field(discriminator="kind")]
