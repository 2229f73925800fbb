"""Replays recorded ratings: human scores, or the answers of a model that was asked elsewhere.

A file (CSV or Parquet) has one row for each rating:

- who: ``user`` (or the argument ``user``, if all rows are one user's);
- what: ``request`` and ``provider``, or an ``image`` that the catalog's manifest names;
- the rating: ``score``, or one logit for each label of the scale (``logit_<label>`` by default),
  from which the rating is the expectation over their softmax;
- optionally ``sample`` (0, 1, ...), for several ratings of the same thing.

``columns`` tells which columns of the file hold these. Rows may be missing: the judge's answer is
then :class:`Invalid` with the reason "no recorded score", since asking again would not give one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np
import pandas as pd

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Invalid, JudgeIdentity, Question, Rated, Scale
from rlli_jax.personas import Population

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
            path: a file ending in ``.csv`` or ``.parquet``.
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
        path = Path(path)
        frame = _read(path)
        roles = _roles(path, frame, dict(columns or {}), scale, user)
        what = _what(path, frame, roles, catalog)
        ratings = _ratings(path, frame, roles, scale)
        users = [user] * len(frame) if user is not None else _names(path, frame, roles["user"][0])
        samples = _samples(path, frame, roles)
        scores: dict[Key, float] = {}
        first_row: dict[Key, int] = {}
        for row, (who, (request, provider), sample, rating) in enumerate(
            zip(users, what, samples, ratings, strict=True)
        ):
            key = (who, request, provider, sample)
            if key in scores:
                _fail(
                    path,
                    f"user {who!r} has a second score for request {request!r} by provider "
                    f"{provider!r}, sample {sample} (first in row {first_row[key] + 1}); "
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
                "file": path.name,
                "scale": scale.name,
                "scores": hashlib.sha256(content.encode()).hexdigest()[:16],
            },
        )
        return cls(identity, scale, scores)


def _fail(path: Path, problem: str, row: int | None = None) -> NoReturn:
    """Raise the InputError; ``row`` counts from 0, the message from 1 below the header."""
    where = f"{path}" if row is None else f"{path}, row {row + 1} below the header"
    raise InputError(f"{where}: {problem}.")


def _read(path: Path) -> pd.DataFrame:
    """The file's rows. CSV cells stay text, so that a provider may be called NA."""
    if not path.is_file():
        _fail(path, "there is no such file; give a CSV or Parquet file of scores")
    if path.suffix not in (".csv", ".parquet"):
        _fail(path, f"cannot read a {path.suffix or 'nameless'} file; give .csv or .parquet")
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            frame = pd.read_parquet(path)
    except pd.errors.EmptyDataError:
        _fail(path, "the file is empty; give one row for each score below a header")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        _fail(path, f"the file cannot be parsed ({reason})")
    if path.suffix == ".csv" and not isinstance(frame.index, pd.RangeIndex):
        # Else pandas would shift the columns and take the first for row labels.
        _fail(path, "the file cannot be parsed (its rows have more cells than its header)")
    if frame.empty:
        _fail(path, "the file has no rows; give one row for each score below the header")
    return frame.reset_index(drop=True)


def _roles(
    path: Path,
    frame: pd.DataFrame,
    columns: dict[str, str | Sequence[str]],
    scale: Scale,
    user: str | None,
) -> dict[str, tuple[str, ...]]:
    """Which columns of the file play which role; only the roles that are used."""
    for role in columns:
        if role not in ROLES:
            _fail(path, f"columns: {role!r} is unknown; choose from {', '.join(ROLES)}")
    mapped = {
        role: (names,) if isinstance(names, str) else tuple(names)
        for role, names in columns.items()
    }

    def present(role: str, default: Sequence[str]) -> bool:
        """Is the role mapped, or else are its default columns in the file?"""
        return role in mapped or all(name in frame for name in default)

    logit_names = tuple(f"logit_{label}" for label in scale.labels)
    roles: dict[str, tuple[str, ...]] = {}
    if user is None:
        roles["user"] = mapped.get("user", ("user",))
    elif "user" in mapped:
        _fail(path, "give either the argument user or a column of users, not both")
    by_name = present("request", ("request",)) and present("provider", ("provider",))
    if "image" in mapped or ("image" in frame and not by_name):
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
        _fail(path, "there are both a score and logits; name one of them in columns")
    if "logits" in ratings:
        roles["logits"] = mapped.get("logits", logit_names)
        if len(roles["logits"]) != len(scale.labels):
            _fail(
                path,
                f"columns: logits names {len(roles['logits'])} columns, but the scale "
                f"{scale.name!r} has {len(scale.labels)} labels ({', '.join(scale.labels)})",
            )
    else:
        roles["score"] = mapped.get("score", ("score",))
    if present("sample", ("sample",)):
        roles["sample"] = mapped.get("sample", ("sample",))
    for role, names in roles.items():
        if not names:
            _fail(path, f"columns: {role} names no column")
        if role not in ("score", "logits") and len(names) != 1:
            _fail(path, f"columns: {role} is one column, not {len(names)}")
        for name in names:
            if name not in frame:
                _fail(
                    path,
                    f"there is no column {name!r} for {role}; the file has "
                    f"{', '.join(map(str, frame.columns))}: name the right one in columns",
                )
    return roles


def _names(path: Path, frame: pd.DataFrame, column: str) -> list[str]:
    """The column as text without blanks around it, as in a manifest; empty is an error."""
    values = frame[column]
    names = values.astype(str).str.strip()
    for row in np.flatnonzero((values.isna() | (names == "")).to_numpy()):
        _fail(path, f"column {column!r} is empty; give a name", int(row))
    return names.tolist()


def _what(
    path: Path, frame: pd.DataFrame, roles: Mapping[str, tuple[str, ...]], catalog: Catalog
) -> list[tuple[str, str]]:
    """(request, provider) of each row, all known to the catalog."""
    if "image" in roles:
        what = []
        for row, image in enumerate(_names(path, frame, roles["image"][0])):
            try:
                what.append(catalog.locate(image))
            except InputError as error:
                _fail(path, str(error).rstrip("."), row)
        return what
    requests = _names(path, frame, roles["request"][0])
    providers = _names(path, frame, roles["provider"][0])
    for kind, known, names in (
        ("request", set(catalog.requests), requests),
        ("provider", set(catalog.providers), providers),
    ):
        for row, name in enumerate(names):
            if name not in known:
                _fail(path, f"{kind} {name!r} is not in the catalog", row)
    return list(zip(requests, providers, strict=True))


def _numbers(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The columns as finite float64 [rows, columns]."""
    values = np.stack(
        [pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64) for name in names], 1
    )
    for row, column in np.argwhere(~np.isfinite(values)):
        name = names[column]
        _fail(
            path,
            f"column {name!r} holds {str(frame[name].iloc[row])!r}, which is not a finite number; "
            "leave the row out if there is no score",
            int(row),
        )
    return values


def _ratings(
    path: Path, frame: pd.DataFrame, roles: Mapping[str, tuple[str, ...]], scale: Scale
) -> np.ndarray:
    """The rating of each row, on the scale: float64 [rows]."""
    if "logits" in roles:
        return scale.expected_rating(_numbers(path, frame, roles["logits"]))
    ratings = _numbers(path, frame, roles["score"]).mean(1)
    for row in np.flatnonzero((ratings < scale.low) | (ratings > scale.high)):
        _fail(
            path,
            f"score {ratings[row]:g} is outside the scale {scale.name!r}, "
            f"{scale.low:g} to {scale.high:g}",
            int(row),
        )
    return ratings


def _samples(path: Path, frame: pd.DataFrame, roles: Mapping[str, tuple[str, ...]]) -> list[int]:
    """The sample index of each row; 0 if the file has none."""
    if "sample" not in roles:
        return [0] * len(frame)
    samples = _numbers(path, frame, roles["sample"])[:, 0]
    for row in np.flatnonzero((samples < 0) | (samples != np.round(samples))):
        _fail(path, f"sample {samples[row]:g} is not a whole number from 0", int(row))
    return [int(sample) for sample in samples]
