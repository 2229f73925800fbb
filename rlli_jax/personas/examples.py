"""What people said of other pictures, told to a language model that is to answer as them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike

from rlli_jax.errors import InputError, listed
from rlli_jax.personas.population import Population

MOST = 20  # examples of one person, each of which every question about that person repeats


def with_examples(population: Population, path: str | PathLike[str]) -> Population:
    """The same people, each with the ratings of a table: name (or user), picture, rating.

    ``picture`` says in words what was rated, and ``rating`` what the person said, best in the
    judge's own labels. Who has no row has no example. People who are not of the population are
    left out, so that one file serves several.

    Raises:
        InputError: the file cannot be read, lacks a column, has an empty cell, holds more than MOST
            rows of one person, or nobody of the population.
    """
    from rlli_jax.tabular import read_table  # and with it pandas

    table = read_table(path, "a rating")
    advice = "name them name, picture, rating"
    names, pictures, ratings = (
        table.names(table.require(*column, advice=advice))
        for column in (("name", "user"), ("picture", "description"), ("rating",))
    )
    rated: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, picture, rating in zip(names, pictures, ratings, strict=True):
        rated[name].append((" ".join(picture.split()), rating))
    if not set(rated) & set(population.names):
        table.fail(
            f"nobody of the population is in it; it has {listed(list(rated))}, and the population "
            f"{listed(population.names)}"
        )
    for name, row in rated.items():
        if name in population.names and len(row) > MOST:
            table.fail(
                f"{name!r} has {len(row)} rows, and {MOST} are the most; keep the telling ones"
            )
    return Population(
        tuple(replace(one, rated=tuple(rated.get(one.name, ()))) for one in population.personas)
    )


def refuse_known(population: Population, descriptions: Iterable[str]) -> None:
    """Nobody is told their rating of a picture that they are asked about.

    Raises:
        InputError: an example describes a picture just as one of ``descriptions`` does.
    """
    known = {" ".join(text.split()) for text in descriptions}
    for persona in population.personas:
        for picture, _ in persona.rated:
            if picture in known:
                raise InputError(
                    f"population.examples tells how {persona.name!r} rated {picture!r}, which is a "
                    "picture of the catalog; an example must be of another picture."
                )
