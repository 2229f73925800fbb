"""Readings of the algorithm of bi-directional feedback, and the settings of a study of them."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.errors import InputError
from rlli_jax.learners.core import check_minibatches
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.ppo import PPOHyperparams

Positive = Annotated[int, Field(gt=0)]
Feedback = Literal["nothing", "prompt", "policy_gradient", "pairs"]
Comparison = Literal["previous", "same_state", "expected"]
Signal = Literal["sign", "difference"]
Estimate = Literal["td_error", "gae"]
Credit = Literal["said", "taken"]
Verdicts = Literal["true", "random", "shuffled", "constant"]
Adapt = Literal["full", "lora"]


@checked
@dataclass(frozen=True)
class Method:
    """One reading of the algorithm, or one of its controls. The defaults are the paper's."""

    teacher: bool = True
    """False: the student alone."""
    feedback: Feedback = "policy_gradient"
    """How the teacher hears of it. nothing: not at all. prompt: a sentence before its next
    prompt. policy_gradient: a step on log M(x | s), weighted by the signal. pairs: a logistic
    loss on the difference of log M between the token and the one it is compared with."""
    comparison: Comparison = "previous"
    """The last token: of the step before (the paper), or the last one said about the same text.
    expected: no token, but what the critic expects of the text, an advantage of 0."""
    signal: Signal = "sign"
    """Of policy_gradient: better or worse, or by how much."""
    advantage: Estimate = "td_error"
    """What estimates the advantage: the TD error (the paper), or generalised advantage
    estimation, which looks further ahead than one step; only where the comparison is with the
    expected."""
    credit: Credit = "said"
    """Which token the verdict is about: the one said (the paper), or the one that would have
    advised the action that the student took, whatever was said."""
    verdicts: Verdicts = "true"
    """Controls: a coin instead of the verdict, the verdict that another environment earned, or
    "better" whatever happened: the teacher is asked for more of every credited token, which with
    credit: taken is to copy its student."""
    adapt: Adapt = "full"
    """All weights of the teacher, or LoRA on q and v."""

    def __post_init__(self) -> None:
        if self.advantage == "gae" and self.comparison != "expected":
            raise InputError(
                f"advantage: gae is known only after the last step of an iteration, so it cannot "
                f"be compared with {self.comparison}; set comparison: expected"
            )
        if self.feedback == "pairs" and self.comparison == "expected":
            raise InputError(
                "feedback: pairs needs a token to compare with; set comparison: previous or "
                "same_state"
            )
        if self.feedback == "prompt" and self.advantage == "gae":
            raise InputError(
                "advantage: gae comes too late for the next prompt; set advantage: td_error"
            )

    @property
    def trains(self) -> Adapt | None:
        """How the teacher's weights change; None if they do not."""
        learns = self.teacher and self.feedback in ("policy_gradient", "pairs")
        return self.adapt if learns else None

    @property
    def choices(self) -> "Choices":
        """What of the method is traced."""
        return Choices(
            teacher=jnp.asarray(self.teacher),
            prompt=jnp.asarray(self.teacher and self.feedback == "prompt"),
            pairs=jnp.asarray(self.feedback == "pairs"),
            same_state=jnp.asarray(self.comparison == "same_state"),
            expected=jnp.asarray(self.comparison == "expected"),
            difference=jnp.asarray(self.signal == "difference"),
            gae=jnp.asarray(self.advantage == "gae"),
            taken=jnp.asarray(self.credit == "taken"),
            random=jnp.asarray(self.verdicts == "random"),
            shuffled=jnp.asarray(self.verdicts == "shuffled"),
            constant=jnp.asarray(self.verdicts == "constant"),
        )


class Choices(NamedTuple):
    """A ``Method`` as traced switches, so that all readings share one compilation; bool []."""

    teacher: jax.Array
    prompt: jax.Array
    pairs: jax.Array
    same_state: jax.Array
    expected: jax.Array
    difference: jax.Array
    gae: jax.Array
    taken: jax.Array
    random: jax.Array
    shuffled: jax.Array
    constant: jax.Array


@checked
@dataclass(frozen=True)
class TeachingConfig:
    """What decides shapes."""

    num_envs: Positive = 32
    """Environments side by side."""
    num_steps: Positive = 8
    """An iteration is num_envs x num_steps steps and one student update."""
    num_minibatches: Positive = 1
    """Parts that a collected batch is cut into for each epoch."""
    num_epochs: Positive = 4
    """Passes over a collected batch."""
    teacher_steps: Positive = 6
    """Gradient steps of the teacher after a round of iterations."""
    teacher_texts: Positive = 128
    """In each of them, drawn by how often they were met."""
    lora_rank: Positive = 4
    """Of the adapters, where a method adapts by LoRA."""

    def __post_init__(self) -> None:
        check_minibatches(self.num_envs, self.num_steps, self.num_minibatches)


DEFAULTS = TeachingConfig()


class TeachingHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    student: PPOHyperparams = PPOHyperparams(
        learning_rate=2e-2, anneal=0.0, gae_lambda=0.95, entropy_coefficient=1e-3
    )
    """At a constant rate: anneal and total_iterations have no effect."""
    trust: Annotated[float, Field(ge=0)] = 4.0
    """Logit by which the student prefers, at first, the action it is advised; 0 is a student
    that does not know what the advice means."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """At which the teacher's tokens are drawn; one that always says the same cannot be compared."""
    teacher_learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Of Adam, constant."""
    teacher_max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""
    teacher_kl: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence from the teacher before the round: noise shall not carry it away."""
