"""What judges share: scales, questions, answers, and the contract of a judge."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias, Union

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
        different = {label.strip().casefold() for label in self.labels}
        if len(self.labels) < 2 or len(different) < len(self.labels):
            raise InputError(
                f"scale {self.name!r}: give at least two labels, all different, capitals aside."
            )
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise InputError(
                f"scale {self.name!r}: low ({self.low}) must be a number below high ({self.high})."
            )

    def qoe(self, rating: float) -> float:
        """Map a rating linearly to quality of experience: ``low`` to 0, ``high`` to 1."""
        return (rating - self.low) / (self.high - self.low)

    def ratings(self, scores: Sequence[str]) -> np.ndarray:
        """The rating of each score as it is written: float64, NaN where it is not on the scale.

        A score is a label, capitals aside, or a number. Where the labels are numbers, a score
        between two of them lies between their ratings; else it is from ``low`` to ``high``.
        """
        spaced = np.linspace(self.low, self.high, len(self.labels))
        of_label = {
            label.casefold(): rating for label, rating in zip(self.labels, spaced, strict=True)
        }
        written = _label_numbers(self.labels)
        own_values = written is None or np.array_equal(written, spaced)
        written = spaced if written is None else written
        order = np.argsort(written)  # labels such as 6, 5, ..., 1 fall

        def rating(score: str) -> float:
            text = score.strip()
            if text.casefold() in of_label:
                return float(of_label[text.casefold()])
            try:
                number = float(text)
            except ValueError:
                return np.nan
            if own_values:
                return number if self.low <= number <= self.high else np.nan
            return float(np.interp(number, written[order], spaced[order], np.nan, np.nan))

        known: dict[str, float] = {}  # files repeat few scores many times
        for score in scores:
            if score not in known:
                known[score] = rating(score)
        return np.array([known[score] for score in scores], np.float64)

    def expected_rating(self, logits: ArrayLike) -> np.ndarray:
        """Expected rating under the softmax of ``logits`` [..., labels], worst label first.

        Weighting by probability keeps the signal that reading the likeliest word throws away
        (Wu et al. 2024, Q-Bench; Wu et al. 2024, Q-Align).
        """
        ratings = np.linspace(self.low, self.high, len(self.labels))
        expected = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1) @ ratings
        return np.clip(expected, self.low, self.high)  # probabilities sum to 1 but for rounding


def _whole_numbers(first: int, last: int) -> Scale:
    step = 1 if first < last else -1
    labels = tuple(str(i) for i in range(first, last + step, step))
    return Scale(f"{first}-{last}", labels, min(first, last), max(first, last))


SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        # The five adjectives of ITU-R BT.500, as Q-Align uses them.
        Scale("adjectives", ("bad", "poor", "fair", "good", "excellent"), 1.0, 5.0),
        _whole_numbers(1, 5),
        _whole_numbers(1, 10),
        _whole_numbers(0, 5),  # mean opinion scores of AGIQA-3K
        Scale("good-poor", ("poor", "good"), 0.0, 1.0),  # the question of Q-Bench
    )
}
"""The scales that have a name; besides them there is any ``a-b``, see :func:`scale_of`."""

_RANGE = re.compile(r"\s*(-?\d{1,6})\s*[-–]\s*(-?\d{1,6})\s*")
MAX_LABELS = 10_001


def named_scale(name: str) -> Scale:
    """The scale ``name``: one of :data:`SCALES`, or ``a-b`` for the whole numbers from a to b.

    The worst comes first: ``1-7`` is best at 7, ``6-1`` (school grades) at 1.

    Raises:
        InputError: there is no such scale, or it has one label or more than MAX_LABELS.
    """
    if name in SCALES:
        return SCALES[name]
    match = _RANGE.fullmatch(name)
    if match is None:
        raise InputError(
            f"scale {name!r} is unknown; write the two ends as whole numbers, such as 1-7, a list "
            f"of labels with the worst first, or one of {', '.join(SCALES)}."
        )
    first, last = int(match[1]), int(match[2])
    if not 1 <= abs(last - first) < MAX_LABELS:
        raise InputError(
            f"scale {name!r} has {abs(last - first) + 1} labels; give from 2 to {MAX_LABELS}."
        )
    return _whole_numbers(first, last)


def scale_of(what: str | Sequence[str]) -> Scale:
    """A scale by its name, or of one's own labels from worst to best.

    Labels are equally spaced. Numbers that rise in equal steps keep their values (0.5, 1, 1.5);
    all other labels are rated 1 to n.

    Raises:
        InputError: there is no scale of that name; or there are fewer than two labels, one is
            empty or there twice (capitals aside), or they are numbers that go up and down.
    """
    if isinstance(what, str):
        return named_scale(what)
    labels = tuple(label.strip() for label in what)
    name = "/".join(labels)
    if not all(labels) or len({label.casefold() for label in labels}) < len(labels):
        raise InputError(f"scale {name!r}: a label is empty or there twice; give different ones.")
    numbers, low, high = _label_numbers(labels), 1.0, float(len(labels))
    if numbers is not None and len(numbers) > 1:
        steps = np.diff(numbers)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(
                f"scale {name!r}: the labels are numbers that go up and down; list them from the "
                "worst to the best."
            )
        if steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6):
            low, high = float(numbers[0]), float(numbers[-1])
    return Scale(name, labels, low, high)


def _label_numbers(labels: Sequence[str]) -> np.ndarray | None:
    """The labels as float64, or None unless every one is a finite number."""
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


class Form(NamedTuple):
    """How a question is put, where it is put differently from a table's.

    ``asks`` is "picture" (how is it rated?), "statement" (does ``request``, an item of a
    questionnaire, describe the persona?), "pair" (which of two described pictures is preferred?
    see :func:`rlli_jax.judges.prompting.pair_question`) or "plan" (which goal is next? see
    :func:`rlli_jax.judges.prompting.plan_question`). ``order`` lists the labels in one of
    :data:`rlli_jax.judges.prompting.ORDERS` instead of as the judge is set. ``wording`` is "usual"
    or "paraphrase".
    """

    asks: Literal["picture", "statement", "pair", "plan"] = "picture"
    order: str | None = None
    wording: Literal["usual", "paraphrase"] = "usual"


USUAL = Form()


class Question(NamedTuple):
    """How does ``persona`` rate what ``provider`` made of ``request``?

    ``picture`` is None where the catalog has no picture for the pair. ``description`` stands in
    its place for a judge that reads. ``sample`` numbers repeated answers to one question, so that
    they are never collapsed into one. A named tuple, because tables have millions of them and it
    takes a third of a frozen dataclass's time to make.
    """

    persona: Persona
    request: str
    provider: str
    picture: Picture | None
    scale: Scale
    sample: int = 0
    description: str | None = None
    form: Form = USUAL

    @property
    def shown(self) -> str | None:
        """A digest of what there is to rate: of the description if there is one, else of the
        picture; None where there is neither. Of a statement, which shows nothing, it is empty.

        Raises :class:`InputError` if the picture cannot be read.
        """
        if self.form.asks == "statement":
            return ""
        if self.description is not None:
            return hashlib.sha256(self.description.encode()).hexdigest()
        return None if self.picture is None else self.picture.digest


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
