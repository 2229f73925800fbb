"""Answers to many questions, kept as columns.

A table whose answers are stored has no use for a million objects: it takes the columns. Whoever
reads a single answer gets it as an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from rlli_jax.judges import Answer, Rated


@dataclass(frozen=True, eq=False)
class Answers(Sequence[Answer]):
    """One answer to each of n questions; equal to any sequence of equal answers."""

    rated: np.ndarray  # [n] bool: whether there is a rating
    rating: np.ndarray  # [n] float64; 0 where there is none
    valid_mass: np.ndarray  # [n] float64; likewise
    raw: np.ndarray  # [n] object: the texts of ratings
    others: dict[int, Answer] = field(default_factory=dict)  # by place: all but plain ratings

    @classmethod
    def empty(cls, size: int) -> Answers:
        """Room for ``size`` answers, none of them known."""
        return cls(np.zeros(size, bool), np.zeros(size), np.zeros(size), np.full(size, None))

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Answers:
        """The same answers as columns."""
        if isinstance(answers, Answers):
            return answers
        size, rated = len(answers), [a if isinstance(a, Rated) else _NONE for a in answers]
        return cls(
            np.fromiter((a is not _NONE for a in rated), bool, size),
            np.fromiter((a.rating for a in rated), float, size),
            np.fromiter((a.valid_mass for a in rated), float, size),
            np.full(size, None),
            dict(enumerate(answers)),
        )

    def put(self, place: int, answer: Answer) -> None:
        """Take one answer, with all that is known of it."""
        self.rated[place] = isinstance(answer, Rated)
        rated = answer if isinstance(answer, Rated) else _NONE
        self.rating[place], self.valid_mass[place] = rated.rating, rated.valid_mass
        self.others[place] = answer

    def put_ratings(
        self, places: np.ndarray, rating: np.ndarray, valid_mass: np.ndarray, raw: np.ndarray
    ) -> None:
        """Take many plain ratings: places, ratings, masses and texts, each [m]."""
        self.rated[places] = True
        self.rating[places], self.valid_mass[places], self.raw[places] = rating, valid_mass, raw

    @property
    def unknown(self) -> np.ndarray:
        """[n] bool: the places that no answer was put in."""
        unknown = ~self.rated
        unknown[list(self.others)] = False
        return unknown

    def take(self, places: Sequence[int]) -> Answers:
        """The answers at these places, in their order."""
        where = np.array(places, np.intp)
        others = {i: self.others[p] for i, p in enumerate(places) if p in self.others}
        return Answers(
            self.rated[where], self.rating[where], self.valid_mass[where], self.raw[where], others
        )

    def __len__(self) -> int:
        return len(self.rating)

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...

    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        place = range(len(self))[index]
        if place in self.others:
            return self.others[place]
        return Rated(float(self.rating[place]), float(self.valid_mass[place]), self.raw[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes


_NONE = Rated(0.0, 0.0)  # never read as a rating
