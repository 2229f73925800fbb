"""Where paid answers are kept: SQLite by default, PostgreSQL for many machines.

Three tables: ``rlli_answers`` (one row for each question, typed columns, the raw text kept),
``rlli_texts`` (the judges, personas and scales that the rows' digests stand for) and
``rlli_leases`` (who is asking what just now). Every change is one short transaction of one writer
at a time, so that two workers never hold one question. A lease that is not renewed runs out, and
the question of a dead worker can be claimed again.

Every row carries a checksum of its answer beside the key of its question. A SQLite file that turns
out to be damaged is renamed, with a message, and every row that can still be read and whose key
and checksum are right is taken over into a new file. A file that never was a store is refused and
left as it is; a store that is opened to read is never changed.

Whether the tables fit is found when a store is opened: an answer is written as later ones will be,
and taken back. Columns that an older version did not have are added.

Nothing secret is stored: no API key, no password; values of environment variables that look like
keys are struck out of texts.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from platformdirs import user_data_path

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Invalid, Rated
from rlli_jax.oracle.database import Database
from rlli_jax.oracle.schema import ANSWERS, FINAL, LEASES, TEXTS, Row, checked, checksum_of
from rlli_jax.oracle.sqlite_repair import DamagedRowError
from rlli_jax.oracle.statements import CHUNK, chunks, is_sqlite, now, size, write_leases
from rlli_jax.qoe.answers import Answers

PIECE = 1000  # rows that are read at once
# Reading all of a store is faster than looking questions up while it holds fewer bytes than this
# for each of them.
SCANNED = 2000


class _Columns(NamedTuple):
    """Rows of answers, column by column."""

    key: Sequence[bytes]
    kind: Sequence[str]
    rating: Sequence[Any]  # float or None
    valid_mass: Sequence[Any]
    reason: Sequence[Any]  # text or None
    raw: Sequence[Any]


def _numbers(keys: Sequence[bytes]) -> np.ndarray:
    """Keys [n] as numbers [n, 4] that are ordered as the keys are."""
    return np.frombuffer(b"".join(keys), ">u8").astype(np.uint64).reshape(-1, 4)


@dataclass(frozen=True)
class JudgeStats:
    """What the store holds of one judge."""

    judge: str  # its name and parameters as canonical JSON
    rated: int
    invalid: int
    failed: int
    valid_mass: float | None  # mean over the ratings
    tokens: int
    cost: float


@dataclass(frozen=True)
class Experience:
    """Means over a judge's stored answers; None where nothing is known."""

    tokens: float | None = None
    cost: float | None = None
    seconds: float | None = None  # of the whole process for one answer


@dataclass(frozen=True)
class Waiting:
    """Questions that others are asking just now."""

    questions: int
    owners: tuple[str, ...]
    until: float  # Unix time at which the last lease runs out unless it is renewed


class Store:
    """Opened by :func:`open_store`. ``message`` is told what happened to a damaged file."""

    def __init__(
        self, url: sa.URL, message: Callable[[str], None], *, read_only: bool = False
    ) -> None:
        self.database = Database(url, message, read_only=read_only)
        self.name = self.database.name

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    # Answers

    def lookup(self, wanted: Collection[bytes]) -> dict[bytes, Answer]:
        """The final answers to the questions with these keys; one that failed has none.

        Raises:
            InputError: a row's answer does not have the row's checksum.
        """
        wanted = set(wanted)
        found: dict[bytes, Answer] = {}

        def keep(rows: _Columns) -> None:
            for key, kind, rating, mass, reason, raw in zip(*rows, strict=True):
                if key in wanted and kind != "failed":
                    rated = kind == "rated"
                    found[key] = Rated(rating, mass, raw) if rated else Invalid(reason, raw)

        self._read(wanted, keep)
        return found

    def fill(self, answers: Answers, places: Mapping[bytes, int]) -> None:
        """As :meth:`lookup`, for millions: put the answer to each key at its place.

        Raises:
            InputError: a row's answer does not have the row's checksum.
        """
        if not places:
            return
        # SQLite's rows come in the order of their keys, and sorted numbers find them several times
        # faster than a dictionary of a million. Where two keys begin with the same eight bytes
        # (less than one in ten million such tables has a pair) one is not found: it counts as not
        # answered, until it is looked up by its whole key before it would be asked.
        keys = _numbers(tuple(places))
        order = np.argsort(keys[:, 0])
        starts, place_of = keys[order, 0], np.fromiter(places.values(), np.intp)[order]
        keys = keys[order]

        def keep(rows: _Columns) -> None:
            found = _numbers(rows.key)
            at = np.minimum(np.searchsorted(starts, found[:, 0]), len(starts) - 1)
            wanted = (keys[at] == found).all(1)
            rated = wanted & [kind == "rated" for kind in rows.kind]
            answers.put_ratings(
                place_of[at[rated]],
                np.array(rows.rating, float)[rated],
                np.array(rows.valid_mass, float)[rated],
                np.array(rows.raw, object)[rated],
            )
            for i in np.flatnonzero(wanted & [kind == "invalid" for kind in rows.kind]).tolist():
                answers.put(int(place_of[at[i]]), Invalid(rows.reason[i], rows.raw[i]))

        self._read(places, keep)

    def _read(self, wanted: Collection[bytes], keep: Callable[[_Columns], None]) -> None:
        """Hand over, piece by piece, rows among which are all with these keys."""

        def check(rows: Iterable[Sequence[tuple[Any, ...]]]) -> None:
            for some in rows:
                *columns, checksums = zip(*some, strict=True)
                read = _Columns(*columns)
                if tuple(map(checksum_of, *read[1:])) != checksums:
                    raise DamagedRowError
                keep(read)

        def read(connection: sa.Connection) -> None:
            if len(wanted) > CHUNK and size(connection) <= SCANNED * len(wanted):
                check(self._select(connection, "TRUE", ()))
                return
            for chunk in chunks(wanted):
                if is_sqlite(connection):
                    check(self._select(connection, f"key IN ({','.join('?' * len(chunk))})", chunk))
                else:
                    check(self._select(connection, "key = ANY(%s)", (chunk,)))

        self.database.run(read)

    def _select(
        self, connection: sa.Connection, where: str, given: Sequence[Any]
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Final and other answers, without holding them all at once."""
        query = (
            "SELECT key, kind, rating, valid_mass, reason, raw, checksum FROM rlli_answers "
            f"WHERE {where}"
        )
        if not is_sqlite(connection):
            streaming = connection.execution_options(stream_results=True)
            yield from streaming.exec_driver_sql(query, tuple(given)).partitions(PIECE)
            return
        # The driver's own rows: for a million answers SQLAlchemy's take four times longer.
        cursor = connection.exec_driver_sql(query, tuple(given)).cursor
        while rows := cursor.fetchmany(PIECE):
            yield rows

    def record(self, owner: str, rows: Sequence[Row], texts: Mapping[str, str]) -> None:
        """Keep the answers of a batch and end its leases, in one transaction.

        An answer that is final is never replaced. ``texts`` are what the digests of judge, persona
        and scale stand for.

        Raises:
            InputError: the disk is full, say; nothing of the batch is kept.
        """
        self.database.write(owner, rows, texts)

    def add(self, rows: Iterable[Row], texts: Mapping[str, str]) -> int:
        """Take rows of another store over; returns how many were new or replaced a failure."""
        return self.database.add(rows, texts)

    def experience(self, judge: str) -> Experience:
        """Mean tokens, cost and duration of the stored answers of the judge with this digest."""
        c = ANSWERS.c
        query = sa.select(
            sa.func.avg(c.prompt_tokens + c.completion_tokens),
            sa.func.avg(c.cost),
            sa.func.avg(c.seconds),
        ).where(c.judge == bytes.fromhex(judge), FINAL)
        row = self.database.run(lambda connection: connection.execute(query).one())
        return Experience(*(None if mean is None else float(mean) for mean in row))

    # Leases

    def claim(self, owner: str, keys: Sequence[bytes], seconds: float) -> set[bytes]:
        """Lease those of ``keys`` that nobody else asks and that have no final answer.

        A lease that ends later than one which begins now is of a clock that was set back since. It
        is shortened: its owner renews it if it is alive, and else it runs out as all do.
        """

        def write(connection: sa.Connection) -> set[bytes]:
            present = now(connection)
            free = set(keys)
            for chunk in chunks(keys):
                late = LEASES.c.key.in_(chunk) & (LEASES.c.expires > present + seconds)
                connection.execute(sa.update(LEASES).where(late).values(expires=present + seconds))
                held = sa.select(LEASES.c.key).where(
                    LEASES.c.key.in_(chunk), LEASES.c.owner != owner, LEASES.c.expires > present
                )
                answered = sa.select(ANSWERS.c.key).where(ANSWERS.c.key.in_(chunk), FINAL)
                free.difference_update(connection.scalars(held), connection.scalars(answered))
            write_leases(connection, owner, free, present + seconds)
            return free

        return self.database.run(write, writes=True)

    def waiting(self, owner: str, keys: Iterable[bytes]) -> Waiting:
        """Which of ``keys`` are leased by others than ``owner``."""
        c = LEASES.c
        held: list[Any] = []

        def read(connection: sa.Connection) -> None:
            for chunk in chunks(keys):
                query = sa.select(c.owner, c.expires).where(c.key.in_(chunk), c.owner != owner)
                held.extend(connection.execute(query).all())

        self.database.run(read)
        owners, expires = (list(column) for column in zip(*held, strict=True)) if held else ([], [])
        return Waiting(len(held), tuple(sorted(set(owners))), max(expires, default=0.0))

    def renew(self, owner: str, seconds: float) -> None:
        """Prolong all leases of an owner."""

        def write(connection: sa.Connection) -> None:
            expires = now(connection) + seconds
            mine = LEASES.c.owner == owner
            connection.execute(sa.update(LEASES).where(mine).values(expires=expires))

        self.database.run(write, writes=True)

    def release(self, owner: str) -> None:
        """Give all questions of an owner back."""
        mine = LEASES.c.owner == owner
        self.database.run(
            lambda connection: connection.execute(sa.delete(LEASES).where(mine)), writes=True
        )

    # Housekeeping

    def stats(self) -> list[JudgeStats]:
        """What is stored of each judge, by name."""
        c = ANSWERS.c

        def count(kind: str) -> sa.ColumnElement[int]:
            return sa.func.sum(sa.case((c.kind == kind, 1), else_=0))

        query = (
            sa.select(
                TEXTS.c.text,
                count("rated"),
                count("invalid"),
                count("failed"),
                sa.func.avg(c.valid_mass),
                sa.func.coalesce(sa.func.sum(c.prompt_tokens + c.completion_tokens), 0),
                sa.func.coalesce(sa.func.sum(c.cost), 0.0),
            )
            .join_from(ANSWERS, TEXTS, TEXTS.c.digest == c.judge, isouter=True)
            .group_by(c.judge, TEXTS.c.text)
            .order_by(TEXTS.c.text)
        )
        rows = self.database.run(lambda connection: connection.execute(query).all())
        return [
            JudgeStats(text or "unknown", int(rated), int(invalid), int(failed), mass, int(n), cost)
            for text, rated, invalid, failed, mass, n, cost in rows
        ]

    def rows(self) -> Iterator[Row | None]:
        """Every stored row; None for one whose key or checksum is wrong."""
        try:
            with self.database.engine.connect() as plain:
                connection = plain.execution_options(yield_per=CHUNK)
                for values in connection.execute(sa.select(ANSWERS)):
                    yield checked(values._asdict())
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise self.database.explained(error) from error

    def texts(self) -> dict[str, str]:
        """Digest -> text of every judge, persona and scale."""
        query = sa.select(TEXTS.c.digest, TEXTS.c.text)
        found = self.database.run(lambda connection: connection.execute(query).all())
        return {digest.hex(): text for digest, text in found}

    def delete(self, where: sa.ColumnElement[bool]) -> int:
        """Delete the answers that fulfil a condition, and the texts that nothing refers to."""

        def write(connection: sa.Connection) -> int:
            deleted = connection.execute(sa.delete(ANSWERS).where(where)).rowcount
            c = ANSWERS.c
            used = sa.union(sa.select(c.judge), sa.select(c.persona), sa.select(c.scale))
            connection.execute(sa.delete(TEXTS).where(TEXTS.c.digest.not_in(used)))
            connection.execute(sa.delete(LEASES).where(LEASES.c.expires < now(connection)))
            return deleted

        deleted = self.database.run(write, writes=True)
        if self.database.engine.dialect.name == "sqlite":
            # On a full disk there is no room for it; the space in the file is used again anyway.
            with suppress(sqlite3.Error), self.database.engine.connect() as connection:
                connection.connection.execute("VACUUM")
        return deleted


def default_path() -> Path:
    """The store that is used if none is named, in the user's data folder."""
    return user_data_path("rlli_jax") / "answers.sqlite"


def open_store(
    where: str | Path | None = None,
    *,
    message: Callable[[str], None] = warnings.warn,
    read_only: bool = False,
) -> Store:
    """Open a store; it is made if it does not exist.

    Args:
        where: a file for SQLite, ``postgresql://user@host/database``, or None for
            :func:`default_path`. SQLite's write-ahead log needs a local disk: on a network folder
            take PostgreSQL.
        message: is told when a damaged file was set aside, and what was salvaged.
        read_only: change nothing; a store that does not exist is an empty one.

    Raises:
        InputError: the address is malformed or holds a password, the store cannot be opened, the
            file is something else, or its tables do not fit.
    """
    text = str(where or default_path())
    if "://" not in text:
        path = Path(text).expanduser()
        return Store(sa.URL.create("sqlite", database=str(path)), message, read_only=read_only)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise InputError(
            "store: the address is malformed; write postgresql://user@host/database."
        ) from None
    if url.get_backend_name() != "postgresql":
        raise InputError(
            f"store: {url.get_backend_name()} is not supported; give a file for SQLite, or "
            "postgresql://user@host/database."
        )
    if url.password is not None or "password" in url.query:
        raise InputError(
            f"store {url.render_as_string()}: the address holds a password, and configs are stored "
            "with results; give it in PGPASSWORD or ~/.pgpass instead."
        )
    try:
        url = url.set(drivername="postgresql+psycopg")
        return Store(url, message, read_only=read_only)
    except ImportError:
        raise InputError(
            "store: psycopg, which speaks to PostgreSQL, is missing; pip install "
            "'rlli_jax[postgresql]'."
        ) from None
