"""Replays recorded ratings: human scores, or the answers of a model that was asked elsewhere.

A file (CSV, TSV, Parquet or Excel) has one row for each rating:

- who: ``user`` (or the argument ``user``, if all rows are one user's);
- what: ``request`` and ``provider``, or an ``image`` that the catalog's manifest names;
- the rating: ``score``, or one logit for each label of the scale (``logit_<label>`` by default),
  from which the rating is the expectation over their softmax;
- optionally ``sample`` (0, 1, ...), for several ratings of the same thing.

``columns`` tells which columns of the file hold these. A table may also be wide: a column for each
provider (or request), called as in the catalog, with the scores below. A score is a number or a
label of the scale. Rows may be missing and scores blank: the judge's answer is then
:class:`Invalid` with the reason "no recorded score", since asking again would not give one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.catalog.catalog import near_misses
from rlli_jax.errors import InputError, listed
from rlli_jax.judges import Answer, Invalid, JudgeIdentity, Question, Rated, Scale
from rlli_jax.personas import Population
from rlli_jax.tabular import BLANK, Table, column_names, number, read_table

Columns: TypeAlias = Mapping[str, str | Sequence[str]]
Key: TypeAlias = tuple[str, str, str, int]  # user, request, provider, sample

ROLES = ("user", "request", "provider", "image", "score", "logits", "sample")


@dataclass(frozen=True)
class RecordedJudge:
    """A judge that looks its ratings up in a file; see :meth:`from_file`."""

    identity: JudgeIdentity
    scale: Scale
    scores: Mapping[Key, float]

    @property
    def users(self) -> tuple[str, ...]:
        """Names of the users that have scores, in the order of the file."""
        return tuple(dict.fromkeys(user for user, _, _, _ in self.scores))

    @property
    def samples(self) -> int:
        """Number of samples to ask for: one more than the largest recorded sample index."""
        return 1 + max(sample for _, _, _, sample in self.scores)

    def population(self) -> Population:
        """The recorded users as a population.

        A file of scores knows no Big Five vectors, so their personalities are unknown. Only the
        name decides an answer.
        """
        return Population.named(self.users)

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """The recorded rating of each question, or Invalid("no recorded score").

        Raises:
            InputError: a question is on another scale than the recorded scores.
        """
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        if question.scale != self.scale:
            raise InputError(
                f"the question is on the scale {question.scale.name!r}, but the recorded scores "
                f"are on {self.scale.name!r}; use one scale for both."
            )
        key = (question.persona.name, question.request, question.provider, question.sample)
        score = self.scores.get(key)
        return Invalid("no recorded score") if score is None else Rated(score)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        catalog: Catalog,
        *,
        scale: Scale,
        columns: Columns | None = None,
        user: str | None = None,
    ) -> RecordedJudge:
        """Read recorded scores of a catalog's pictures.

        Args:
            path: a table as :func:`rlli_jax.tabular.read_table` reads it.
            catalog: every row's request and provider, or image, must be in it.
            scale: the scale of the scores; with logits, its labels are theirs.
            columns: our name -> the file's, for any of ``user``, ``request``, ``provider``,
                ``image``, ``score``, ``logits``, ``sample``. ``score`` may be a list of columns,
                whose mean is the score. ``logits`` is a list of columns from the worst label to
                the best. ``image`` is used when it is given here, or when the file has no
                columns for request and provider.
            user: the one user to whom all rows belong, for files without a column of users.

        Raises:
            InputError: the file is missing, empty or cannot be parsed; a column is missing; both
                score and logits are there; a row names an unknown request, provider or image, is
                a duplicate, or holds a score that is not a number or not on the scale.
        """
        table, columns = read_table(path, "one score"), dict(columns or {})
        table, columns = _long(table, columns, catalog)
        roles = _roles(table, columns, scale, user)
        table = _with_scores(table, roles, scale)
        what = _what(table, roles, catalog)
        ratings = _ratings(table, roles, scale)
        users = [user] * len(ratings) if user is not None else table.names(roles["user"][0])
        samples = _samples(table, roles)
        scores: dict[Key, float] = {}
        first_row: dict[Key, int] = {}
        for row, (who, (request, provider), sample, rating) in enumerate(
            zip(users, what, samples, ratings, strict=True)
        ):
            key = (who, request, provider, sample)
            if key in scores:
                table.fail(
                    f"user {who!r} has a second score for request {request!r} by provider "
                    f"{provider!r}, sample {sample} (first in row "
                    f"{table.frame.index[first_row[key]]}); "
                    "keep one, or number them in a column 'sample'",
                    row,
                )
            scores[key] = float(rating)
            first_row[key] = row
        # The scores themselves are all that decides an answer: not how the file spells them.
        content = json.dumps(sorted([*key, score] for key, score in scores.items()))
        identity = JudgeIdentity(
            name="recorded",
            parameters={
                "file": table.path.name,
                "scale": scale.name,
                "scores": hashlib.sha256(content.encode()).hexdigest()[:16],
            },
        )
        return cls(identity, scale, scores)


def _long(
    table: Table, columns: dict[str, str | Sequence[str]], catalog: Catalog
) -> tuple[Table, dict[str, str | Sequence[str]]]:
    """The table with a row for each score; a wide one has a column for each provider or request.

    It is wide if it has no column for scores and none for one of the two, but columns that are
    called as the catalog or its files call them. Warns of columns that are no scores where a
    provider or request has no column: one of them may be its, under another name.
    """
    if columns.keys() & {"score", "logits", "image"} or table.find("score") or table.find("image"):
        return table, columns
    for role, known in (("provider", catalog.providers), ("request", catalog.requests)):
        spellings = catalog.spellings(role)
        wide = column_names(table, list(spellings))
        # Of names that differ in capitals alone, a column is that of the one it is spelled as.
        wide = {name: c for name, c in wide.items() if name == c or c not in wide}
        if wide and role not in columns and table.find(role) is None:
            renamed = table.frame.rename(columns={column: name for name, column in wide.items()})
            kept = [name for name in renamed if name not in wide]
            mapped = [(c,) if isinstance(c, str) else c for c in columns.values()]
            used = {*column_names(table, ROLES).values(), *chain.from_iterable(mapped)}
            others = [str(name) for name in kept if name not in used]
            lacking = sorted({*known} - {spellings[name] for name in wide})
            if others and lacking:
                warnings.warn(
                    f"{table.path}: no column has the name of {role} {listed(lacking)}; "
                    f"left out, as no {role} has its name: {listed(others)}.",
                    stacklevel=2,
                )
            long = renamed.reset_index(names="").melt(
                id_vars=["", *kept], value_vars=list(wide), var_name=role, value_name="score"
            )
            return replace(table, frame=long.set_index("")), columns
    return table, columns


def _labels(scale: Scale) -> set[str]:
    return {label.strip().casefold() for label in scale.labels}


def _with_scores(table: Table, roles: Mapping[str, tuple[str, ...]], scale: Scale) -> Table:
    """The rows that hold a score; a blank one is no score, unless blank is a label's name."""
    labels = _labels(scale)
    names = roles.get("logits") or roles["score"]
    blank = table.frame[list(names)].map(
        lambda cell: cell.casefold() in BLANK and cell.casefold() not in labels
    )
    rows = table.frame[~blank.any(axis=1)]
    if rows.empty:
        table.fail(f"every score is blank; fill in the column {' and '.join(map(repr, names))}")
    return replace(table, frame=rows)


def _roles(
    table: Table,
    columns: dict[str, str | Sequence[str]],
    scale: Scale,
    user: str | None,
) -> dict[str, tuple[str, ...]]:
    """Which columns of the file play which role; only the roles that are used."""
    for role in columns:
        if role not in ROLES:
            table.fail(f"columns: {role!r} is unknown; choose from {', '.join(ROLES)}")
    mapped = {
        role: (names,) if isinstance(names, str) else tuple(names)
        for role, names in columns.items()
    }

    def present(role: str, default: Sequence[str]) -> bool:
        """Is the role mapped, or else are its default columns in the file?"""
        return role in mapped or all(table.find(name) for name in default)

    logit_names = tuple(f"logit_{label}" for label in scale.labels)
    roles: dict[str, tuple[str, ...]] = {}
    if user is None:
        roles["user"] = mapped.get("user", ("user",))
    elif "user" in mapped:
        table.fail("give either the argument user or a column of users, not both")
    by_name = present("request", ("request",)) and present("provider", ("provider",))
    if "image" in mapped or (table.find("image") and not by_name):
        roles["image"] = mapped.get("image", ("image",))
    else:
        roles["request"] = mapped.get("request", ("request",))
        roles["provider"] = mapped.get("provider", ("provider",))
    ratings = mapped.keys() & {"score", "logits"} or {
        role
        for role, default in (("score", ("score",)), ("logits", logit_names))
        if present(role, default)
    }
    if len(ratings) == 2:
        table.fail("there are both a score and logits; name one of them in columns")
    if "logits" in ratings:
        roles["logits"] = mapped.get("logits", logit_names)
        if len(roles["logits"]) != len(scale.labels):
            table.fail(
                f"columns: logits names {len(roles['logits'])} columns, but the scale "
                f"{scale.name!r} has {len(scale.labels)} labels ({', '.join(scale.labels)})",
            )
    else:
        roles["score"] = mapped.get("score", ("score",))
    if present("sample", ("sample",)):
        roles["sample"] = mapped.get("sample", ("sample",))
    for role, names in roles.items():
        if not names:
            table.fail(f"columns: {role} names no column")
        if role not in ("score", "logits") and len(names) != 1:
            table.fail(f"columns: {role} is one column, not {len(names)}")
    advice = "name the right one in columns"
    return {
        role: tuple(table.require(name, advice=f"{advice}, for {role}") for name in names)
        for role, names in roles.items()
    }


def _what(
    table: Table, roles: Mapping[str, tuple[str, ...]], catalog: Catalog
) -> list[tuple[str, str]]:
    """(request, provider) of each row, all known to the catalog."""
    if "image" in roles:
        what = []
        for row, image in enumerate(table.names(roles["image"][0])):
            try:
                what.append(catalog.locate(image))
            except InputError as error:
                table.fail(str(error).rstrip("."), row)
        return what
    found = []
    for kind, known in (("request", catalog.requests), ("provider", catalog.providers)):
        spellings = catalog.spellings(kind)
        names = table.names(roles[kind][0])
        for row, name in enumerate(names):
            if name not in spellings:
                table.fail(f"{kind} {name!r} is not in the catalog{near_misses(name, known)}", row)
        found.append([spellings[name] for name in names])
    return list(zip(*found, strict=True))


def _ratings(table: Table, roles: Mapping[str, tuple[str, ...]], scale: Scale) -> np.ndarray:
    """The rating of each row, on the scale: float64 [rows]."""
    if "logits" in roles:
        return scale.expected_rating(np.stack([table.numbers(n) for n in roles["logits"]], 1))
    labels, columns = _labels(scale), []
    for name in roles["score"]:
        cells = table.frame[name].tolist()
        # A label is one however it is written as a number: "1" beside "0 (bad)" is no 1.0.
        ratings = scale.ratings(
            [
                cell if cell.casefold() in labels or np.isnan(number(cell)) else str(number(cell))
                for cell in cells
            ]
        )
        for row in np.flatnonzero(np.isnan(ratings)):
            what = (
                f"score {number(cells[row]):g} is outside the scale {scale.name!r}, "
                f"{scale.labels[0]} to {scale.labels[-1]}"
                if np.isfinite(number(cells[row]))
                else f"column {name!r} holds {cells[row]!r}, which is neither a number nor a "
                f"label of the scale {scale.name!r}"
            )
            table.fail(what, int(row))
        columns.append(ratings)
    return np.mean(columns, axis=0)


def _samples(table: Table, roles: Mapping[str, tuple[str, ...]]) -> list[int]:
    """The sample index of each row; 0 if the file has none."""
    if "sample" not in roles:
        return [0] * len(table.frame)
    samples = table.numbers(roles["sample"][0])
    for row in np.flatnonzero(~((samples >= 0) & (samples == np.round(samples)))):
        table.fail(f"sample {samples[row]:g} is not a whole number from 0", int(row))
    return [int(sample) for sample in samples]
