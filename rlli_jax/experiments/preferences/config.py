"""A study of preferences; ``configs/preferences.yaml`` shows it."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rlli_jax.experiments.sources import JudgedBlock
from rlli_jax.experiments.yaml_blocks import (
    Block,
    Positive,
    StudyBlock,
    Whole,
    beside_file,
    each_once,
)

Size = Literal["pictures", "linear", "quadratic"]
Above = Annotated[float, Field(gt=0)]


class PairsBlock(Block):
    """Who prefers what."""

    counts: Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(each_once)] = (
        30, 100, 300, 1_000, 3_000, 10_000,
    )  # fmt: skip
    """Numbers of pairs that a reward model learns from, one run each."""
    noise: Annotated[tuple[Above, ...], Field(min_length=1), AfterValidator(each_once)] = (
        0.05, 0.2,
    )  # fmt: skip
    """Temperatures of the rater, in QoE: by so much must a picture be better for odds of e to 1."""
    bias: Annotated[float, Field(ge=0)] = 0.02
    """QoE by which the picture that is shown first seems better. Each pair is rated in both orders;
    where they disagree it is a tie."""
    file: Path | None = None
    """A table of comparisons in place of the rater, in the layout of Pick-a-Pic: user_id, caption
    (the request), model_0, model_1 (the providers), label_0 (1, 0, or 0.5 for a tie). Runs draw
    counts of its rows, with replacement; noise and bias have no effect."""

    ask: Positive | Literal["all"] | None = None
    """Ask the judge itself, in place of the rater, about so many pairs of the table, drawn evenly,
    or about all: which of two described pictures does this user prefer? For language models with
    sees: description. Each pair is asked in both orders; their mean is how much of it the first
    won. judge.budget holds for them anew. Runs draw counts of them, with replacement; noise and
    bias have no effect."""

    _paths = field_validator("file")(beside_file)

    @property
    def given(self) -> bool:
        """Whether comparisons come from outside, not from the simulated rater."""
        return self.file is not None or self.ask is not None


class RewardModelBlock(Block):
    """What the proxy can be."""

    sizes: Annotated[tuple[Size, ...], Field(min_length=1), AfterValidator(each_once)] = (
        "linear", "quadratic",
    )  # fmt: skip
    """Features of the reward model, one run each. pictures: what is measured in a picture, the same
    for everybody; linear: that, and times each trait; quadratic: and times squares and products
    of traits."""
    ridge: Above = 0.01
    """Penalty of the squared coefficients, in which features have a standard deviation of 1."""


class PPOBlock(Block):
    """PPO against the reward model."""

    learning_rate: Above = 0.1
    """Of Adam."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the reference; at 0 the curve shows what any bound gives."""


class DPOBlock(Block):
    """Direct preference optimisation, without a reward model."""

    beta: Above = 0.1
    """How much of the reward a nat of divergence costs, in units of the rater's noise."""
    learning_rate: Above = 0.05
    """Of Adam."""


class OptimisationBlock(Block):
    """From a reward model, or from comparisons, to a policy."""

    reference_temperature: Above = 0.1
    """In QoE: the reference policy prefers providers by what they are worth to all."""
    iterations: Positive = 60
    """Of PPO, and of DPO."""
    betas: tuple[Above, Above] = (3.0, 0.003)
    """Largest and smallest weight of the divergence, in QoE a nat, of the exact policies."""
    points: Annotated[Positive, Field(gt=1)] = 25
    """Between these, in equal ratios."""
    ppo: PPOBlock = PPOBlock()
    """PPO against the reward model."""
    dpo: DPOBlock = DPOBlock()
    """Direct preference optimisation."""


class PreferencesStudy(JudgedBlock, StudyBlock):
    """A whole study of reinforcement learning from preferences.

    What the judge says that pictures are worth is gold; the catalog's pictures are measured.
    """

    not_swept: ClassVar[str] = (
        "a study of preferences varies pairs.counts, pairs.noise and reward_model.sizes by itself, "
        "all in one run; list values there, and run it once for each value of another key"
    )

    kind: Literal["preferences"] = "preferences"
    """Of the study."""
    seeds: Annotated[Whole, Field(gt=0)] = 20
    """Draws of the pairs and of their ratings for each of the settings."""
    pairs: PairsBlock = PairsBlock()
    """Who prefers what."""
    reward_model: RewardModelBlock = RewardModelBlock()
    """What the proxy can be."""
    optimisation: OptimisationBlock = OptimisationBlock()
    """From a reward model to a policy."""

    def asks_more(self, inquiry: Any) -> str:
        """The pairs, each in both orders."""
        if self.pairs.ask is None:
            return ""
        from rlli_jax.experiments.preferences.asked_pairs import most_pairs, wanted

        count = wanted(self, most_pairs(inquiry))
        return (
            f"after them up to {2 * count:,} questions about {count:,} pairs, within what the "
            "budget leaves"
        )

    @model_validator(mode="after")
    def _consistent(self) -> "PreferencesStudy":
        if self.population is None and set(self.reward_model.sizes) != {"pictures"}:
            raise ValueError(
                "reward_model.sizes: linear and quadratic are in the users' traits, of which "
                "recorded scores alone tell nothing; give population, or [pictures]"
            )
        if self.optimisation.betas[0] <= self.optimisation.betas[1]:
            raise ValueError("optimisation.betas: the first must be larger; exchange them")
        self._pairs()
        return self

    def _pairs(self) -> None:
        block = self.pairs
        if block.given and len(block.noise) > 1:
            has = "the judge has its own noise" if block.file is None else (
                "a file has the noise of its raters"
            )  # fmt: skip
            raise ValueError(
                f"pairs.noise: {has}; give one number, in which unit the reward model is shown"
            )
        if block.ask is None:
            return
        if block.file is not None:
            raise ValueError("pairs: file and ask exclude each other; give one")
        if not self.judge.described:
            raise ValueError(
                "pairs.ask: only a language model that reads is asked about pairs; choose a judge "
                "with sees: description, or leave ask out"
            )
        if block.ask != "all" and max(block.counts) > block.ask:
            raise ValueError(
                f"pairs.counts: {max(block.counts)} pairs are wanted, but the judge is asked about "
                f"{block.ask}; raise ask, or give smaller counts"
            )
