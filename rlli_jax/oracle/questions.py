"""What there is to ask a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import Question, Scale
from rlli_jax.personas import Persona, Population


@dataclass(frozen=True)
class Questions(Sequence[Question]):
    """Every question of a table [K users, R requests, L providers, S samples], in C order.

    Each is made when it is read. A table whose answers are stored has no use for a million
    objects, which take longer to make than the keys of the questions.
    """

    personas: tuple[Persona, ...]  # K
    cells: tuple[tuple[str, str, Picture | None], ...]  # R * L: request, provider, picture
    scale: Scale
    samples: int
    descriptions: tuple[str | None, ...] = ()  # R * L, for a judge that reads; else none

    def __repr__(self) -> str:
        return (
            f"Questions({len(self.personas)} users x {len(self.cells)} pairs of request and "
            f"provider x {self.samples} samples, scale={self.scale.name!r})"
        )

    def __len__(self) -> int:
        return len(self.personas) * len(self.cells) * self.samples

    @overload
    def __getitem__(self, index: int) -> Question: ...

    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...

    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        place, sample = divmod(range(len(self))[index], self.samples)
        user, cell = divmod(place, len(self.cells))
        described = self.descriptions[cell] if self.descriptions else None
        return Question(self.personas[user], *self.cells[cell], self.scale, sample, described)

    def __iter__(self) -> Iterator[Question]:
        descriptions = self.descriptions or (None,) * len(self.cells)
        for persona in self.personas:
            for cell, description in zip(self.cells, descriptions, strict=True):
                for sample in range(self.samples):
                    yield Question(persona, *cell, self.scale, sample, description)


def build_questions(
    population: Population,
    catalog: Catalog,
    scale: Scale,
    samples: int = 1,
    *,
    described: bool = False,
) -> Questions:
    """Every question of a table, in the order of its cells [K, R, L, samples].

    A pair without a picture is there too, with ``picture=None``: the judge says whether it has an
    answer.

    Args:
        population: K users.
        catalog: R requests, L providers and their pictures.
        scale: on which the judge rates.
        samples: how often each question is asked.
        described: pictures are put into words, for a judge that only reads.

    Raises:
        InputError: ``samples`` is below 1; or there is nothing to describe, no picture and no
            caption.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; ask for at least one answer to each question.")
    cells = tuple(
        (request, provider, catalog.picture(r, p))
        for r, request in enumerate(catalog.requests)
        for p, provider in enumerate(catalog.providers)
    )
    if not described:
        return Questions(population.personas, cells, scale, samples)
    places = [(r, p) for r in range(len(catalog.requests)) for p in range(len(catalog.providers))]
    descriptions = tuple(catalog.description(r, p) for r, p in places)
    if not any(descriptions):
        raise InputError(
            "the judge reads descriptions, but the catalog has neither pictures nor captions; add "
            "a column caption to the manifest, or pictures."
        )
    return Questions(population.personas, cells, scale, samples, descriptions)
