"""Judges: who rates a picture as a persona, and what an answer may be.

A judge is asked :class:`Question` s and gives one answer to each: :class:`Rated`,
:class:`Invalid` or :class:`Failed`, never a number in place of a missing answer. The judges
themselves are in modules of their own: :mod:`rlli_jax.judges.psychometric` and
:mod:`rlli_jax.judges.recorded` need no language model; :mod:`rlli_jax.judges.transformers_judge`
runs one in this process, :mod:`rlli_jax.judges.openai_judge` asks one behind a server, and
:mod:`rlli_jax.judges.batch_files` one behind a batch service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias, Union

import numpy as np
import scipy
from numpy.typing import ArrayLike

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.personas import Persona

JSON: TypeAlias = Union[bool, int, float, str, "Sequence[JSON]", "Mapping[str, JSON]", None]


@dataclass(frozen=True)
class Scale:
    """A rating scale: labels from worst to best, equally spaced from ``low`` to ``high``."""

    name: str
    labels: tuple[str, ...]
    low: float
    high: float

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise InputError(f"scale {self.name!r}: give at least two labels, all different.")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise InputError(
                f"scale {self.name!r}: low ({self.low}) must be a number below high ({self.high})."
            )

    def qoe(self, rating: float) -> float:
        """Map a rating linearly to quality of experience: ``low`` to 0, ``high`` to 1."""
        return (rating - self.low) / (self.high - self.low)

    def expected_rating(self, logits: ArrayLike) -> np.ndarray:
        """Expected rating under the softmax of ``logits`` [..., labels], worst label first.

        Weighting by probability keeps the signal that reading the likeliest word throws away
        (Wu et al. 2024, Q-Bench; Wu et al. 2024, Q-Align).
        """
        ratings = np.linspace(self.low, self.high, len(self.labels))
        expected = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1) @ ratings
        return np.clip(expected, self.low, self.high)  # probabilities sum to 1 but for rounding


def _digits(low: int, high: int) -> Scale:
    return Scale(f"{low}-{high}", tuple(str(i) for i in range(low, high + 1)), low, high)


SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        # The five adjectives of ITU-R BT.500, as Q-Align uses them.
        Scale("adjectives", ("bad", "poor", "fair", "good", "excellent"), 1.0, 5.0),
        _digits(1, 5),
        _digits(1, 10),
        _digits(0, 5),  # mean opinion scores of AGIQA-3K
        Scale("good-poor", ("poor", "good"), 0.0, 1.0),  # the question of Q-Bench
    )
}
"""The named scales: ``adjectives``, ``1-5``, ``1-10``, ``0-5``, ``good-poor``."""


def named_scale(name: str) -> Scale:
    """The scale called ``name``; :class:`InputError` lists the known ones if there is none."""
    if name not in SCALES:
        raise InputError(f"scale {name!r} is unknown; choose one of {', '.join(SCALES)}.")
    return SCALES[name]


class Question(NamedTuple):
    """How does ``persona`` rate what ``provider`` made of ``request``?

    ``picture`` is None where the catalog has no picture for the pair. ``sample`` numbers repeated
    answers to one question, so that they are never collapsed into one. A named tuple, because
    tables have millions of them and it takes a third of a frozen dataclass's time to make.
    """

    persona: Persona
    request: str
    provider: str
    picture: Picture | None
    scale: Scale
    sample: int = 0


@dataclass(frozen=True)
class Usage:
    """What a question used up; None is unknown, which is not 0."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None  # in the currency of the judge's prices
    seconds: float | None = None  # from asking to the answer


@dataclass(slots=True)
class Rated:
    """A rating on the question's scale.

    ``valid_mass`` is the probability that the judge put on the scale's labels (1 for judges that
    know nothing else), ``raw`` its answer word for word. ``usage`` is no part of what was
    answered: equal answers may have cost more or less. Not frozen, which would take four times as
    long to make, and tables have millions; do not change it all the same.
    """

    rating: float
    valid_mass: float = 1.0
    raw: str = ""
    usage: Usage | None = field(default=None, compare=False)


@dataclass(slots=True)
class Invalid:
    """There is no rating, and asking again would not give one (no picture, no recorded score,
    an answer that is not on the scale). Final: a table masks the cell out."""

    reason: str
    raw: str = ""
    usage: Usage | None = field(default=None, compare=False)


@dataclass(slots=True)
class Failed:
    """No answer came, and asking again may give one (a timeout, a refused connection)."""

    reason: str
    usage: Usage | None = field(default=None, compare=False)


Answer: TypeAlias = Rated | Invalid | Failed


@dataclass(frozen=True)
class JudgeIdentity:
    """All that can change a judge's answers; part of every cache key.

    ``stand_in`` marks a judge that takes the place of a language model without being one.
    """

    name: str
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    stand_in: bool = False

    def describe(self) -> str:
        """One line that is shown with every result of this judge."""
        name = f"{self.name} (a stand-in for a language model)" if self.stand_in else self.name
        parameters = "; ".join(
            f"{key}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"
            for key, value in sorted(self.parameters.items())
        )
        return f"{name} [{parameters}]" if parameters else name


class Judge(Protocol):
    """Rates pictures as personas. An answer depends on its question only, not on the batch."""

    @property
    def identity(self) -> JudgeIdentity:
        """All that can change an answer."""
        ...

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer to each question, in the order of the questions.

        Language models are asked at the lowest cost when all questions about one picture are in
        one call: they share the beginning of their prompts.
        """
        ...


class PaidJudge(Judge, Protocol):
    """A judge whose answers cost something: time, tokens or money. Its answers are stored."""

    def expected_usage(self, question: Question) -> Usage:
        """What the question will use up, at a guess and without asking: for plans and budgets."""
        ...
