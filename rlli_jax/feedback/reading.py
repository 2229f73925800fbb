"""A log of people, from a file or from a service."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlli_jax.errors import InputError
from rlli_jax.feedback import Log, log_from_frame
from rlli_jax.feedback.log import COLUMNS, Propensities
from rlli_jax.judges import scale_of
from rlli_jax.personas import TRAIT_NAMES, TRAITS
from rlli_jax.personas.population import on_trait_scale, trait_range
from rlli_jax.service import read_decisions
from rlli_jax.tabular import as_table, read_table


def read_log(
    where: str | Path,
    *,
    qoe: str = "qoe",
    scale: str | None = None,
    trait_scale: str = "1-5",
    propensities: Propensities | None = None,
) -> Log:
    """A log from a table of any kind (:func:`rlli_jax.tabular.read_table`), or of a service.

    Columns: ``provider`` and the one named by ``qoe``; ``user``, ``request``, ``propensity``,
    ``offered`` and the five traits (letters or names) are used if they are there. Traits become
    those of the 1-5 scale.

    Args:
        where: a file, or ``sqlite:///FILE`` or ``postgresql://user@host/database`` of
            ``rlli serve``.
        qoe: the column of the QoE.
        scale: of the QoE; 1-5 if absent, and the service's own for its logs.
        trait_scale: of the traits.
        propensities: where they come from, if not from the column ``propensity``.

    Raises:
        InputError: a column is missing or a cell is not what it should be.
    """
    if "://" in str(where):
        frame, given = read_decisions(str(where))
        if frame.empty:
            raise InputError(f"the log {where} has no decisions yet.")
        table = as_table(str(where), frame)
        if scale not in (None, given):
            raise InputError(f"the log {where} has ratings on the scale {given}, not {scale}.")
        scale = given
    else:
        table = read_table(where, "a round")
    rating = scale_of(scale or "1-5")
    table.require("provider", advice="one names the provider that was chosen")
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        column = table.find(name)
        if column is not None:
            numbers = name == "propensity"
            columns[name] = table.numbers(column) if numbers else table.frame[column].to_numpy()
    columns[qoe] = table.numbers(table.require(qoe, advice="name the one of the QoE with --qoe"))
    found = [table.find(*names) for names in zip(TRAITS, TRAIT_NAMES, strict=True)]
    context: tuple[str, ...] = ()
    if all(found):
        traits = np.stack([table.numbers(column) for column in found if column], 1)
        low, high = trait_range(trait_scale)
        for row, place in np.argwhere((traits < low) | (traits > high))[:1]:
            table.fail(
                f"column {found[place]!r}: {traits[row, place]:g} is not on the scale "
                f"{trait_scale}; name the scale of the traits with --trait-scale",
                int(row),
            )
        columns |= dict(zip(TRAITS, on_trait_scale(traits, trait_scale).T, strict=True))
        context = tuple(TRAITS)
    return log_from_frame(
        pd.DataFrame(columns),
        qoe=qoe,
        scale=(rating.low, rating.high),
        context=context,
        propensities=propensities,
    )


def traits_of(log: Log) -> np.ndarray:
    """[n, 5] on the 1-5 scale, of each round.

    Raises:
        InputError: the log does not tell them.
    """
    if not set(TRAITS) <= set(log.context_names):
        raise InputError(
            "the log has no columns of the five traits; name them O, C, E, A, N or in full."
        )
    return log.context[:, [log.context_names.index(trait) for trait in TRAITS]]


def requests_of(log: Log, known: tuple[str, ...]) -> np.ndarray:
    """[n] int, the request of each round; that of none that is ``known`` is their number."""
    if log.request is None:
        return np.full(len(log), len(known))
    place = {name: i for i, name in enumerate(known)}
    return np.array([place.get(name, len(known)) for name in log.request.tolist()])
