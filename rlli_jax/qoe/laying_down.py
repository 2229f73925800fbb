"""How answers to questions, or scores that are there already, become the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, JudgeIdentity, Rated, Scale
from rlli_jax.personas import Population
from rlli_jax.qoe.answers import Answers

OnMissing = Literal["raise", "mask", "impute"]
"""What a table does with questions that have no answer."""


def given_scores(
    qoe: ArrayLike, axes: Mapping[str, Sequence[str] | None], valid: ArrayLike | None
) -> dict[str, Any]:
    """See :meth:`rlli_jax.qoe.QoETable.from_array`, whose fields these are."""
    try:
        scores = np.asarray(qoe, float)
    except (TypeError, ValueError):
        raise InputError(
            "qoe: not an array of numbers; give [users, requests, providers] or "
            "[users, requests, providers, samples]."
        ) from None
    if scores.ndim not in (3, 4) or not scores.size:
        raise InputError(
            f"qoe has the shape {list(scores.shape)}; give [users, requests, providers] or "
            "[users, requests, providers, samples], none of them 0."
        )
    known = ~np.isnan(scores) if valid is None else np.asarray(valid, bool)
    if known.shape != scores.shape:
        raise InputError(
            f"valid has the shape {list(known.shape)} and qoe {list(scores.shape)}; give one "
            "bool for each score."
        )
    names: dict[str, tuple[str, ...]] = {}
    for (kind, given), size in zip(axes.items(), scores.shape, strict=False):
        axis = [f"{kind} {i + 1}" for i in range(size)] if given is None else list(given)
        if len(axis) != size:
            raise InputError(f"{kind}s: {len(axis)} names for {size}; give one for each.")
        names[f"{kind}s"] = tuple(str(name) for name in axis)
    shape = scores.shape if scores.ndim == 4 else (*scores.shape, 1)
    return {"qoe": scores.reshape(shape), "valid": known.reshape(shape), **names}


def laid_down(
    answers: Sequence[Answer],
    population: Population,
    catalog: Catalog,
    scale: Scale,
    judge: JudgeIdentity,
    samples: int,
    on_missing: OnMissing,
) -> dict[str, Any]:
    """See :meth:`rlli_jax.qoe.QoETable.from_answers`, whose fields these are."""
    shape = (len(population), len(catalog.requests), len(catalog.providers), samples)
    if len(answers) != np.prod(shape):
        raise ValueError(f"{len(answers)} answers do not fill a table of shape {shape}.")
    columns = Answers.of(answers)
    valid, mass = columns.rated.reshape(shape), columns.valid_mass.reshape(shape)
    qoe = np.where(valid, scale.qoe(columns.rating.reshape(shape)), 0.0)  # type: ignore[arg-type]
    for user, request, provider, sample in np.argwhere(~((qoe >= 0) & (qoe <= 1))):
        given = columns.rating.reshape(shape)[user, request, provider, sample]
        raise InputError(
            f"judge {judge.name!r} answered {given:g}, which is not on the scale "
            f"{scale.name!r} ({scale.low:g} to {scale.high:g}): user "
            f"{population.names[user]!r}, request {catalog.requests[request]!r}, provider "
            f"{catalog.providers[provider]!r}, sample {sample}."
        )
    mean_mass = mass.sum(-1) / np.maximum(valid.sum(-1), 1)
    offered = np.array([[catalog.offers(r, p) for p in range(shape[2])] for r in range(shape[1])])
    missing = ~valid & offered[None, :, :, None]
    note = _missing_note(answers, missing, valid, on_missing)
    if missing.any() and on_missing == "raise":
        user, request, provider, sample = np.argwhere(missing)[0]
        places = np.flatnonzero(missing).tolist()
        failed = any(isinstance(answers[place], Failed) for place in places)
        raise InputError(
            f"judge {judge.name!r}: {note}; the first is user {population.names[user]!r}, "
            f"request {catalog.requests[request]!r}, provider {catalog.providers[provider]!r}, "
            f"sample {sample}: {_reason(answers[places[0]])}. "
            + ("Run again to ask failed questions anew, or set" if failed else "Set")
            + " on_missing to mask or impute."
        )
    for user in np.flatnonzero(~valid.any((1, 2, 3))):
        first = answers[int(np.ravel_multi_index((user, 0, 0, 0), shape))]
        raise InputError(
            f"user {population.names[user]!r} has no valid provider for any request: judge "
            f"{judge.name!r} gave no rating at all: {_reason(first)}."
        )
    description = "; ".join(filter(None, [judge.describe(), note]))
    single = np.take_along_axis(qoe, valid.argmax(-1)[..., None], -1)
    repeated = (valid.sum(-1) > 1).any()
    if repeated and (np.where(valid, qoe, single) == single).all():
        description += f"; {samples} equal repeats of each question counted once"
        qoe, valid = single, np.asarray(valid.any(-1, keepdims=True))
        missing = missing.any(-1, keepdims=True) & ~valid
    return {
        "qoe": qoe,
        "valid": valid,
        "judge": description,
        "valid_mass": mean_mass,
        "missing": missing.sum(-1),
    }


def _reason(answer: Answer) -> str:
    """Why an answer is no rating, for a sentence that goes on with a full stop."""
    return "" if isinstance(answer, Rated) else answer.reason.rstrip(".")


def _missing_note(
    answers: Sequence[Answer], missing: np.ndarray, valid: np.ndarray, on_missing: OnMissing
) -> str:
    """How many answers are missing, why, and what is done; empty if none is."""
    indices = np.flatnonzero(missing).tolist()
    if not indices:
        return ""
    failed = sum(isinstance(answers[i], Failed) for i in indices)
    note = (
        f"{len(indices):,} of {len(answers):,} answers are missing "
        f"({len(indices) - failed:,} invalid, {failed:,} failed)"
    )
    if on_missing == "raise":
        return note
    served = valid.any((2, 3))
    unasked = f", {(~served).sum():,} of {served.size:,} user x request pairs without any rating"
    return f"{note}, masked" + ("" if served.all() else unasked)
