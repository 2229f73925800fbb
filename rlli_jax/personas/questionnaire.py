"""Personas from answers to a questionnaire: the 50 IPIP Big Five markers.

The items (Goldberg 1992, *Psychological Assessment* 4, 26-42; ipip.ori.org) are in the public
domain. Their key is ``data/ipip50_items.json``; columns are called as openpsychometrics.org
publishes its raw data: E1 ... O10, 1 = disagree to 5 = agree, 0 or blank = no answer.
"""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import numpy as np

from rlli_jax.errors import InputError, listed
from rlli_jax.personas.norms import load_data
from rlli_jax.personas.persona import HIGH, LOW, MISSING, TRAITS, Persona
from rlli_jax.personas.population import Population


class Key(NamedTuple):
    """What the items of a questionnaire measure."""

    items: tuple[str, ...]  # their columns
    traits: np.ndarray  # int [items]: place in TRAITS
    reverse: np.ndarray  # bool [items]: agreeing speaks against the trait


def ipip50() -> Key:
    """The key of the 50 IPIP markers."""
    items = load_data("ipip50_items")["items"]
    return Key(
        tuple(item["item"] for item in items),
        np.array([TRAITS.index(item["trait"]) for item in items]),
        np.array([item["keyed"] == "-" for item in items]),
    )


def score(answers: np.ndarray, key: Key, max_missing: float = MISSING) -> np.ndarray:
    """Traits [K, 5] of answers [K, items] from 1 to 5, NaN where there is none.

    A trait is the mean of its items, the reversed ones turned (6 - answer). It is NaN where more
    than the share ``max_missing`` of its items has no answer.
    """
    turned = np.where(key.reverse, LOW + HIGH - answers, answers)
    traits = np.full((len(answers), len(TRAITS)), np.nan)
    for place in range(len(TRAITS)):
        items = turned[:, key.traits == place]
        there = ~np.isnan(items)
        enough = (~there).mean(1) <= max_missing
        enough &= there.any(1)
        traits[enough, place] = np.nansum(items[enough], 1) / there[enough].sum(1)
    return traits


def told(answers: np.ndarray, key: Key) -> tuple[tuple[tuple[str, int], ...], ...]:
    """What each of K people said of themselves: (statement, 1 to 5) of every item answered.

    ``answers`` is [K, items], NaN where there is none; the result is what
    :class:`~rlli_jax.personas.Persona` takes as ``answers``.
    """
    texts = {item["item"]: item["text"] for item in load_data("ipip50_items")["items"]}
    return tuple(
        tuple(
            (texts[item], int(answer))
            for item, answer in zip(key.items, row, strict=True)
            if not np.isnan(answer)
        )
        for row in answers
    )


def expected_answers(traits: np.ndarray, key: Key) -> np.ndarray:
    """Answers [K, items] that score to the traits [K, 5] but for rounding to whole numbers.

    Every item of a trait is answered alike, the reversed ones turned; so they are those of nobody
    real, whose answers scatter.
    """
    level = np.floor(np.asarray(traits, float)[:, key.traits] + 0.5)
    return np.where(key.reverse, LOW + HIGH - level, level)


def read_answers(path: str | PathLike[str]) -> tuple[list[str], np.ndarray]:
    """Names [K] and answers [K, 50] from 1 to 5, NaN for none, of a table with a person a row.

    Its columns are as of :func:`population_from_answers`, which says what is refused.
    """
    from rlli_jax.tabular import column_names, read_table

    key, table = ipip50(), read_table(path, "a person")
    columns = column_names(table, key.items)
    absent = [item for item in key.items if item not in columns]
    if absent:
        table.fail(
            f"{len(absent)} of the {len(key.items)} items have no column ({listed(absent)}); "
            f"the file has {', '.join(table.columns[:8])}, "
            "...: name the items E1 to O10"
        )
    answers = np.stack([table.numbers(columns[item]) for item in key.items], 1)
    answers[answers == 0] = np.nan
    wrong = ~(np.isnan(answers) | np.isin(answers, (1, 2, 3, 4, 5)))
    for row, item in np.argwhere(wrong):
        table.fail(
            f"the answer to {key.items[item]} is {answers[row, item]:g}; give 1 to 5, or 0 or "
            "nothing for no answer",
            int(row),
        )
    column = table.find("name", "user")
    names = table.names(column) if column else [f"User {row}" for row in table.frame.index.tolist()]
    return names, answers


def population_from_answers(
    path: str | PathLike[str], *, max_missing: float = MISSING
) -> Population:
    """Read a table with a person a row and a column for each of the 50 items.

    A column ``name`` or ``user`` names the people; without one they are "User 1", "User 2", ...
    in the order of the rows.

    Raises:
        InputError: the file cannot be read, lacks an item, repeats a name, holds an answer that
            is not 1 to 5 (0 or blank for none), or somebody left out more than the share
            ``max_missing`` of the items of a trait.
    """
    key = ipip50()
    names, answers = read_answers(path)
    traits = score(answers, key, max_missing)
    short = [name for name, vector in zip(names, traits, strict=True) if np.isnan(vector).any()]
    if short:
        raise InputError(
            f"{path}: {len(short)} of {len(names)} people left out more than {max_missing:.0%} of "
            f"the items of a trait ({listed(short)}); "
            "remove them, or raise max_missing."
        )
    people = zip(names, traits.tolist(), told(answers, key), strict=True)
    return Population(tuple(Persona(name, tuple(t), answers=said) for name, t, said in people))
