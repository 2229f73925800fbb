"""One user's Big Five vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from rlli_jax.errors import InputError

TRAITS = ("O", "C", "E", "A", "N")
TRAIT_NAMES = (
    "Openness",
    "Conscientiousness",
    "Extraversion",
    "Agreeableness",
    "Neuroticism",
)
Wording: TypeAlias = Literal["full", "brief", "biography", "answers"]

LOW, HIGH = 1.0, 5.0  # ends of the scale of every trait
MISSING = 0.2  # the share of a trait's items that may be unanswered


@dataclass(frozen=True)
class Persona:
    """One user's Big Five vector u_k = [o, c, e, a, n] (Eq. 1), each trait on the 1-5 scale.

    ``traits`` is None for a user whose personality nobody has measured. ``wording`` is how
    language models are told of it: ``full`` by 52 graded adjectives, ``brief`` by one for each
    trait, at a fifth of the tokens, ``biography`` by what such a person does, in five sentences,
    ``answers`` by the person's own answers to a questionnaire, in place of the traits.

    Raises:
        InputError: the name is empty, there are not five traits, one is not from 1 to 5, there
            is no such wording, or it is "answers" and there are none.
    """

    name: str
    traits: tuple[float, float, float, float, float] | None = None
    wording: Wording = "full"
    answers: tuple[tuple[str, int], ...] = ()
    """(statement, 1 = disagrees to 5 = agrees): what the person said of themselves."""
    rated: tuple[tuple[str, str], ...] = ()
    """(picture in words, rating): what the person said of other pictures; in every wording."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"A persona has the name {self.name!r}; give one that is not empty.")
        object.__setattr__(self, "name", self.name.strip())
        if self.traits is not None:
            if len(self.traits) != len(TRAITS):
                raise InputError(
                    f"Persona {self.name!r} has {len(self.traits)} traits; give the five "
                    f"{' '.join(TRAITS)}, in this order."
                )
            checked = (
                trait_value(value, f"Persona {self.name!r}, trait {trait!r}")
                for trait, value in zip(TRAITS, self.traits, strict=True)
            )
            object.__setattr__(self, "traits", tuple(checked))
        if self.wording not in get_args(Wording):
            raise InputError(
                f"Persona {self.name!r} has the wording {self.wording!r}; choose one of "
                f"{', '.join(get_args(Wording))}."
            )
        if self.wording == "answers" and not self.answers:
            raise InputError(
                f"Persona {self.name!r} is to be told by answers to a questionnaire, of which "
                "there are none; choose another wording, or read people from a questionnaire."
            )

    @property
    def known_traits(self) -> tuple[float, float, float, float, float]:
        """The traits. Raises :class:`InputError` if nobody has measured them."""
        if self.traits is None:
            raise InputError(
                f"The personality of {self.name!r} is unknown, but is asked for; give the five "
                f"traits {' '.join(TRAITS)} of every user."
            )
        return self.traits


def trait_value(value: Any, where: str) -> float:
    """Return a trait as a float, or raise an ``InputError`` that begins with ``where``."""
    try:
        # float() would take a truth value for 0 or 1.
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not LOW <= number <= HIGH:  # also refuses NaN
        given = "nothing" if value is None or value == "" else repr(value)
        raise InputError(f"{where}: got {given}; give a number from {LOW:g} to {HIGH:g}.")
    return number


def default_names(size: int) -> list[str]:
    """Of people without a name: "User 1" and so on."""
    return [f"User {place}" for place in range(1, size + 1)]
