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

import os
import secrets
import shutil
import sqlite3
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import sqlalchemy as sa
from platformdirs import user_data_path
from sqlalchemy.dialects import postgresql, sqlite

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, Rated, Usage
from rlli_jax.oracle.keys import Parts, sha256
from rlli_jax.qoe.answers import Answers

BUSY_SECONDS = 60.0  # how long a writer waits for its turn
CHUNK = 500  # keys in one statement
PIECE = 1000  # rows that are read at once
MAGIC = b"SQLite format 3\0"
FIRST_PAGE = 65536  # bytes of the largest page
SCANNED = 2000  # bytes of the store for each question up to which reading it all is faster

_schema = sa.MetaData()
_digest = sa.LargeBinary(32)

ANSWERS = sa.Table(
    "rlli_answers",
    _schema,
    sa.Column("key", _digest, primary_key=True),
    sa.Column("judge", _digest, nullable=False),
    sa.Column("persona", _digest, nullable=False),
    sa.Column("picture", _digest),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("sample", sa.Integer, nullable=False),
    sa.Column("scale", _digest, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # rated, invalid, failed
    sa.Column("rating", sa.Double),
    sa.Column("valid_mass", sa.Double),
    sa.Column("reason", sa.Text),
    sa.Column("raw", sa.Text),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("cost", sa.Double),
    sa.Column("latency", sa.Double),  # seconds from asking to the answer, as the judge says
    sa.Column("seconds", sa.Double),  # the answer's share of its batch's duration
    sa.Column("answered_at", sa.Double, nullable=False),  # Unix time
    sa.Column("checksum", sa.BigInteger, nullable=False),
    sa.CheckConstraint("kind IN ('rated', 'invalid', 'failed')"),
    sa.CheckConstraint("(kind = 'rated') = (rating IS NOT NULL)"),
    sqlite_with_rowid=False,
)
TEXTS = sa.Table(
    "rlli_texts",
    _schema,
    sa.Column("digest", _digest, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
LEASES = sa.Table(
    "rlli_leases",
    _schema,
    sa.Column("key", _digest, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),  # Unix time
    sqlite_with_rowid=False,
)
_FINAL = ANSWERS.c.kind != "failed"
_WRITERS = 0x726C6C69  # PostgreSQL's advisory lock of those who write

_NUMBERS = struct.Struct("<dd")

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One stored answer; the columns of ``rlli_answers`` without key and checksum."""

    judge: bytes
    persona: bytes
    picture: bytes | None
    request: str
    sample: int
    scale: bytes
    kind: str
    rating: float | None
    valid_mass: float | None
    reason: str | None
    raw: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    latency: float | None
    seconds: float | None
    answered_at: float

    @classmethod
    def of(cls, parts: Parts, answer: Answer, *, seconds: float | None, now: float) -> Row:
        """The row of an answer that was just given."""
        usage = answer.usage or Usage()
        return cls(
            judge=bytes.fromhex(parts.judge),
            persona=bytes.fromhex(parts.persona),
            picture=None if parts.picture is None else bytes.fromhex(parts.picture),
            request=parts.request,
            sample=parts.sample,
            scale=bytes.fromhex(parts.scale),
            kind=type(answer).__name__.lower(),
            rating=float(answer.rating) if isinstance(answer, Rated) else None,
            valid_mass=float(answer.valid_mass) if isinstance(answer, Rated) else None,
            reason=None if isinstance(answer, Rated) else _clean(answer.reason),
            raw=None if isinstance(answer, Failed) else _clean(answer.raw),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost=None if usage.cost is None else float(usage.cost),
            latency=None if usage.seconds is None else float(usage.seconds),
            seconds=seconds,
            answered_at=now,
        )

    @property
    def key(self) -> bytes:
        """The key that the question's parts give."""
        return Parts(
            judge=self.judge.hex(),
            persona=self.persona.hex(),
            picture=None if self.picture is None else self.picture.hex(),
            request=self.request,
            sample=self.sample,
            scale=self.scale.hex(),
        ).key()

    @property
    def checksum(self) -> int:
        """CRC-32 of what the key does not cover."""
        return _checksum(self.kind, self.rating, self.valid_mass, self.reason, self.raw)

    def columns(self) -> dict[str, Any]:
        """The row as the table takes it."""
        return {**vars(self), "key": self.key, "checksum": self.checksum}


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


def _checksum(
    kind: str, rating: float | None, mass: float | None, reason: str | None, raw: str | None
) -> int:
    """CRC-32 of an answer; -1 for one that cannot be whole, with text in place of a number."""
    try:
        numbers = b"" if rating is None else _NUMBERS.pack(rating, mass)
    except struct.error:
        return -1
    return zlib.crc32(numbers + f"{kind}\0{reason}\0{raw}".encode())


def _clean(text: str) -> str:
    """The text as every database takes it, without values of secrets in the environment."""
    text = text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    for name, value in os.environ.items():
        if len(value) >= 8 and name.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, f"<{name}>")
    return text


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
        self.name = url.database if url.drivername == "sqlite" else url.render_as_string()
        self._path = Path(url.database or "") if url.drivername == "sqlite" else None
        self._message = message
        self._read_only = read_only
        self._older = False  # it lacks columns, and may not be changed
        self._inode: int | None = None
        kind = None if self._path is None else _kind(self._path)
        if kind == "other":
            raise InputError(
                f"store {self.name}: this is not a store of answers and never was one; it is left "
                "as it is, name another file."
            )
        self._engine = _reader(url) if read_only else _engine(url)
        if not read_only:
            self._create()
        elif kind == "none" or not (kind == "damaged" or self._run(_tables)):
            # Nothing is there yet, and nothing is to be made: an empty store in memory.
            self._engine.dispose()
            self._path = Path(url.database or "")
            self._engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
            self._run(_schema.create_all)
        else:
            self._older = kind != "damaged" and bool(self._run(_lacking))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

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
                if tuple(map(_checksum, *read[1:])) != checksums:
                    raise _DamagedRow
                keep(read)

        def read(connection: sa.Connection) -> None:
            if len(wanted) > CHUNK and self._size(connection) <= SCANNED * len(wanted):
                check(self._select(connection, "TRUE", ()))
                return
            for chunk in _chunks(wanted):
                if self._path is not None:
                    check(self._select(connection, f"key IN ({','.join('?' * len(chunk))})", chunk))
                else:
                    check(self._select(connection, "key = ANY(%s)", (chunk,)))

        self._run(read)

    def _select(
        self, connection: sa.Connection, where: str, given: Sequence[Any]
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Final and other answers, without holding them all at once."""
        query = (
            "SELECT key, kind, rating, valid_mass, reason, raw, checksum FROM rlli_answers "
            f"WHERE {where}"
        )
        if self._path is None:
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
        self._run(lambda connection: self._write(connection, owner, rows, texts), writes=True)

    def _write(
        self,
        connection: sa.Connection,
        owner: str,
        rows: Sequence[Row],
        texts: Mapping[str, str],
    ) -> None:
        insert = self._insert(ANSWERS)
        changed = {f.name: insert.excluded[f.name] for f in fields(Row)}
        upsert = insert.on_conflict_do_update(
            index_elements=[ANSWERS.c.key],
            set_={**changed, "checksum": insert.excluded.checksum},
            where=ANSWERS.c.kind == "failed",
        )
        answers = [row.columns() for row in rows]
        meanings = [{"digest": bytes.fromhex(d), "text": t} for d, t in texts.items()]

        if meanings:
            connection.execute(self._insert(TEXTS).on_conflict_do_nothing(), meanings)
        if answers:
            connection.execute(upsert, answers)
        for chunk in _chunks([answer["key"] for answer in answers]):
            mine = LEASES.c.key.in_(chunk) & (LEASES.c.owner == owner)
            connection.execute(sa.delete(LEASES).where(mine))

    def experience(self, judge: str) -> Experience:
        """Mean tokens, cost and duration of the stored answers of the judge with this digest."""
        c = ANSWERS.c
        query = sa.select(
            sa.func.avg(c.prompt_tokens + c.completion_tokens),
            sa.func.avg(c.cost),
            sa.func.avg(c.seconds),
        ).where(c.judge == bytes.fromhex(judge), _FINAL)
        row = self._run(lambda connection: connection.execute(query).one())
        return Experience(*(None if mean is None else float(mean) for mean in row))

    # Leases

    def claim(self, owner: str, keys: Sequence[bytes], seconds: float) -> set[bytes]:
        """Lease those of ``keys`` that nobody else asks and that have no final answer.

        A lease that ends later than one which begins now is of a clock that was set back since. It
        is shortened: its owner renews it if it is alive, and else it runs out as all do.
        """

        def write(connection: sa.Connection) -> set[bytes]:
            now = self._now(connection)
            free = set(keys)
            for chunk in _chunks(keys):
                late = LEASES.c.key.in_(chunk) & (LEASES.c.expires > now + seconds)
                connection.execute(sa.update(LEASES).where(late).values(expires=now + seconds))
                held = sa.select(LEASES.c.key).where(
                    LEASES.c.key.in_(chunk), LEASES.c.owner != owner, LEASES.c.expires > now
                )
                answered = sa.select(ANSWERS.c.key).where(ANSWERS.c.key.in_(chunk), _FINAL)
                free.difference_update(connection.scalars(held), connection.scalars(answered))
            self._lease(connection, owner, free, now + seconds)
            return free

        return self._run(write, writes=True)

    def _lease(
        self, connection: sa.Connection, owner: str, keys: Collection[bytes], expires: float
    ) -> None:
        if keys:
            connection.execute(
                self._insert(LEASES).on_conflict_do_update(
                    index_elements=[LEASES.c.key], set_={"owner": owner, "expires": expires}
                ),
                [{"key": key, "owner": owner, "expires": expires} for key in keys],
            )

    def waiting(self, owner: str, keys: Iterable[bytes]) -> Waiting:
        """Which of ``keys`` are leased by others than ``owner``."""
        c = LEASES.c
        held: list[Any] = []

        def read(connection: sa.Connection) -> None:
            for chunk in _chunks(keys):
                query = sa.select(c.owner, c.expires).where(c.key.in_(chunk), c.owner != owner)
                held.extend(connection.execute(query).all())

        self._run(read)
        owners, expires = (list(column) for column in zip(*held, strict=True)) if held else ([], [])
        return Waiting(len(held), tuple(sorted(set(owners))), max(expires, default=0.0))

    def renew(self, owner: str, seconds: float) -> None:
        """Prolong all leases of an owner."""

        def write(connection: sa.Connection) -> None:
            expires = self._now(connection) + seconds
            mine = LEASES.c.owner == owner
            connection.execute(sa.update(LEASES).where(mine).values(expires=expires))

        self._run(write, writes=True)

    def release(self, owner: str) -> None:
        """Give all questions of an owner back."""
        mine = LEASES.c.owner == owner
        self._run(lambda connection: connection.execute(sa.delete(LEASES).where(mine)), writes=True)

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
        rows = self._run(lambda connection: connection.execute(query).all())
        return [
            JudgeStats(text or "unknown", int(rated), int(invalid), int(failed), mass, int(n), cost)
            for text, rated, invalid, failed, mass, n, cost in rows
        ]

    def rows(self) -> Iterator[Row | None]:
        """Every stored row; None for one whose key or checksum is wrong."""
        try:
            with self._engine.connect() as plain:
                connection = plain.execution_options(yield_per=CHUNK)
                for values in connection.execute(sa.select(ANSWERS)):
                    yield checked(values._asdict())
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise self._explained(error) from error

    def texts(self) -> dict[str, str]:
        """Digest -> text of every judge, persona and scale."""
        query = sa.select(TEXTS.c.digest, TEXTS.c.text)
        found = self._run(lambda connection: connection.execute(query).all())
        return {digest.hex(): text for digest, text in found}

    def delete(self, where: sa.ColumnElement[bool]) -> int:
        """Delete the answers that fulfil a condition, and the texts that nothing refers to."""

        def write(connection: sa.Connection) -> int:
            deleted = connection.execute(sa.delete(ANSWERS).where(where)).rowcount
            c = ANSWERS.c
            used = sa.union(sa.select(c.judge), sa.select(c.persona), sa.select(c.scale))
            connection.execute(sa.delete(TEXTS).where(TEXTS.c.digest.not_in(used)))
            connection.execute(sa.delete(LEASES).where(LEASES.c.expires < self._now(connection)))
            return deleted

        deleted = self._run(write, writes=True)
        if self._path is not None:
            # On a full disk there is no room for it; the space in the file is used again anyway.
            with suppress(sqlite3.Error), self._engine.connect() as connection:
                connection.connection.execute("VACUUM")
        return deleted

    def problems(self) -> list[str]:
        """What the database itself finds wrong with its file; empty for PostgreSQL."""
        if self._path is None:
            return []
        try:
            with self._engine.connect() as connection:
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        except sa.exc.DatabaseError as error:
            return [str(error.orig)]
        return [str(line) for line in found if line != "ok"]

    def repair(self) -> None:
        """Set the SQLite file aside and take over what can be read.

        Raises:
            InputError: the store is PostgreSQL, which has its own tools.
        """
        if self._path is None:
            raise InputError(f"store {self.name}: repair PostgreSQL with its own tools.")
        self._follow()
        damaged = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        self._engine.dispose()
        # The file itself last: a new file must never meet the write-ahead log of the old one.
        for suffix in ("-shm", "-wal", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}{suffix}", f"{damaged}{suffix}")
        self._create()
        salvaged = self._take_over(damaged)
        self._message(
            f"store {self.name}: the file is damaged; it is now {damaged.name}, and the "
            f"{salvaged:,} answers that could be read and are sound were taken over."
        )

    def add(self, rows: Iterable[Row], texts: Mapping[str, str]) -> int:
        """Take rows of another store over; returns how many were new or replaced a failure."""
        before = self._run(self._count)
        self.record("", (), texts)
        for chunk in _chunks(rows):
            self.record("", chunk, {})
        return self._run(self._count) - before

    # Plumbing

    def _size(self, connection: sa.Connection) -> int:
        """Bytes that the store takes, about; known without counting."""
        query = (
            "SELECT pg_total_relation_size('rlli_answers')"
            if self._path is None
            else "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
        return int(connection.exec_driver_sql(query).scalar_one())

    def _count(self, connection: sa.Connection) -> int:
        """How many final answers there are."""
        query = sa.select(sa.func.count()).select_from(ANSWERS).where(_FINAL)
        return int(connection.execute(query).scalar_one())

    def _create(self) -> None:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._explained(error) from error
        self._run(self._make_tables, writes=True)
        self._run(self._try_tables, writes=True)

    def _make_tables(self, connection: sa.Connection) -> None:
        """Make the tables and columns that are missing."""
        _schema.create_all(connection)
        for column in _lacking(connection):
            if column.nullable:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(
                    f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"
                )

    def _try_tables(self, connection: sa.Connection) -> None:
        """See that the tables take an answer; nothing of it is kept, so no file changes."""
        digest = secrets.token_hex(32)
        parts = Parts(
            judge=digest, persona=digest, picture=digest, request="", sample=0, scale=digest
        )
        answer = Rated(
            1.0, 1.0, "", Usage(prompt_tokens=1, completion_tokens=1, cost=1.0, seconds=1.0)
        )
        row = Row.of(parts, answer, seconds=1.0, now=1.0)
        trial = connection.get_transaction()
        assert trial is not None  # actions run in one
        try:
            self._lease(connection, digest, [row.key], 1.0)
            self._write(connection, "", [row], {digest: ""})
            connection.execute(sa.select(ANSWERS).where(ANSWERS.c.key == row.key)).one()
        except sa.exc.DBAPIError as error:
            if not _misfit(error):
                raise
            problem = " ".join(str(error.orig).split()).rstrip(".")
            raise InputError(
                f"store {self.name}: its tables do not fit this version of rlli_jax ({problem}); "
                "name another store, or use the version that made this one."
            ) from error
        trial.rollback()

    def _take_over(self, damaged: Path) -> int:
        with tempfile.TemporaryDirectory(dir=damaged.parent) as folder:
            copy = Path(folder, "copy")  # reading may write to the log, and evidence is to stay
            for suffix in ("-wal", ""):
                with suppress(FileNotFoundError):
                    shutil.copy(f"{damaged}{suffix}", f"{copy}{suffix}")
            _pad(copy)
            with closing(sqlite3.connect(copy)) as connection:
                texts = {
                    digest.hex(): text
                    for digest, text in _readable(connection, TEXTS)
                    if isinstance(text, str) and sha256(text) == digest.hex()
                }
                names = [column.name for column in ANSWERS.c]
                rows = (
                    row
                    for values in _readable(connection, ANSWERS)
                    for row in [checked(dict(zip(names, values, strict=True)))]
                    if row is not None
                )
                return self.add(rows, texts)

    def _follow(self) -> None:
        """Let go of a file that another process has set aside."""
        if self._path is None or self._read_only:
            return
        inode = self._path.stat().st_ino if self._path.exists() else None
        if inode != self._inode:
            self._engine.dispose()
            self._inode = inode

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._path is not None else postgresql).insert(table)

    def _now(self, connection: sa.Connection) -> float:
        """Unix time; of the server if there is one, so that all machines have one clock."""
        if self._path is not None:
            return time.time()
        clock = sa.text("SELECT extract(epoch FROM clock_timestamp())")
        return float(connection.execute(clock).scalar_one())

    def _run(self, action: Callable[[sa.Connection], T], writes: bool = False) -> T:
        """``action`` in one transaction; once more if a damaged file had to be replaced."""
        try:
            return self._attempt(action, writes)
        except (sa.exc.DBAPIError, sqlite3.Error, _DamagedRow) as error:
            if self._path is None or not _is_damage(error):
                raise self._explained(error) from error
            if self._read_only:
                raise InputError(
                    f"store {self.name}: the file is damaged ({getattr(error, 'orig', error)}); "
                    "the next command that asks a judge takes over what can be read of it."
                ) from error
        self.repair()
        try:
            return self._attempt(action, writes)
        except sa.exc.DBAPIError as error:
            raise self._explained(error) from error

    def _attempt(self, action: Callable[[sa.Connection], T], writes: bool) -> T:
        self._follow()
        with self._engine.connect() as plain:
            connection = plain.execution_options(rlli_writes=writes)
            with connection.begin():
                if writes and self._path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS)))
                return action(connection)

    def _explained(self, error: Exception) -> InputError:
        problem = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
        if self._older:
            return InputError(
                f"store {self.name}: it was made by an older version ({problem}); the next command "
                "that asks a judge adds what is missing."
            )
        return InputError(
            f"store {self.name}: {problem}; see that it can be reached and written, or name "
            "another store."
        )


class _DamagedRow(Exception):
    """An answer and its checksum do not fit."""

    def __str__(self) -> str:
        return "a stored answer is damaged (its checksum is wrong)"


def _is_damage(error: Exception) -> bool:
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code
    return (
        isinstance(error, _DamagedRow)
        or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or "Could not decode to UTF-8" in str(cause)
    )


def _misfit(error: sa.exc.DBAPIError) -> bool:
    """Whether tables are to blame, and not a database that is damaged, full, read-only or gone."""
    if (state := getattr(error.orig, "sqlstate", None)) is not None:
        # PostgreSQL's classes of errors: wrong data, violated constraints, unknown names.
        return state[:2] in ("22", "23", "42") and state != "42501"  # no privilege
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


def checked(columns: Mapping[str, Any]) -> Row | None:
    """The row, or None if its key or checksum is wrong or it is no row at all."""
    try:
        row = Row(**{f.name: columns[f.name] for f in fields(Row)})
        sound = row.key == columns["key"] and row.checksum == columns["checksum"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return row if sound else None


def _pad(path: Path) -> None:
    """Give a SQLite file the beginning of all such files, and a truncated one the length that its
    header says, or SQLite refuses to open it.

    https://www.sqlite.org/fileformat.html: bytes 16-17 are the size of a page (1 means 65536),
    bytes 28-31 the number of pages.
    """
    with open(path, "r+b") as file:
        header = file.read(100)
        file.seek(0)
        file.write(MAGIC)
        size = int.from_bytes(header[16:18])
        length = (65536 if size == 1 else size) * int.from_bytes(header[28:32])
        if path.stat().st_size < length <= 2 * path.stat().st_size:
            file.truncate(length)


def _kind(path: Path) -> Literal["none", "store", "damaged", "other"]:
    """What a file is; it is not changed.

    Of a store whose beginning was overwritten, the first page still names its tables, or its log
    is still beside it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(FIRST_PAGE)
    except FileNotFoundError:
        return "none"
    except OSError as error:
        raise InputError(f"store {path}: it cannot be read ({error.strerror}).") from error
    if not first:
        return "none"
    if first.startswith(MAGIC):
        try:
            with closing(_connect_reader(path)) as connection:
                query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
                names = {name for (name,) in connection.execute(query)}
        except sqlite3.Error:
            return "damaged"  # or in use in a way that the next who opens it will report
        return "other" if names and ANSWERS.name not in names else "store"
    if b"\0" in first and ANSWERS.name.encode() in first:
        return "damaged"
    return "damaged" if _log_of(path) else "other"


def _log_of(path: Path) -> bool:
    """Whether a write-ahead log with the first page of a store is beside the file."""
    try:
        with open(f"{path}-wal", "rb") as file:
            log = file.read(2 * FIRST_PAGE)
    except OSError:
        return False
    return log[:3] == b"\x37\x7f\x06" and ANSWERS.name.encode() in log


def _connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even by making the files of a write-ahead log."""
    log = Path(f"{path}-wal")
    quiet = not (log.exists() and log.stat().st_size)
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _reader(url: sa.URL) -> sa.Engine:
    """An engine whose transactions only read."""
    if url.drivername == "sqlite":
        path = Path(url.database or "")
        return sa.create_engine("sqlite://", creator=lambda: _connect_reader(path))
    return sa.create_engine(
        url, pool_pre_ping=True, execution_options={"postgresql_readonly": True}
    )


def _lacking(connection: sa.Connection) -> list[sa.Column[Any]]:
    """Columns that the tables do not have."""
    inspector = sa.inspect(connection)
    there = {
        (table, column["name"])
        for table in _schema.tables
        if inspector.has_table(table)
        for column in inspector.get_columns(table)
    }
    return [
        column
        for table in _schema.tables.values()
        for column in table.c
        if (table.name, column.name) not in there
    ]


def _tables(connection: sa.Connection) -> bool:
    """Whether there are tables of answers."""
    return sa.inspect(connection).has_table(ANSWERS.name)


def _readable(connection: sqlite3.Connection, table: sa.Table) -> Iterator[tuple[Any, ...]]:
    """Every row of a damaged file that SQLite can still read.

    The first column is a digest, so that rows are spread evenly: where a range of digests cannot
    be read, its halves are tried, down to about a 64th of a page.
    """
    (first, *_), names = table.c, ", ".join(column.name for column in table.c)
    query = f"SELECT {names} FROM {table.name} WHERE {first.name} >= ? AND {first.name} < ?"
    try:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"EXPLAIN {query}", (b"", b""))
    except sqlite3.Error:
        return  # not even the first page can be read
    smallest = max(1, 2**64 // (64 * max(pages, 1)))
    ranges = [(0, 2**64)]
    while ranges:
        low, high = ranges.pop()
        bounds = low.to_bytes(8), high.to_bytes(8) if high < 2**64 else b"\xff" * 33
        try:
            yield from connection.execute(query, bounds).fetchall()
        except (sqlite3.Error, OverflowError):
            if high - low > smallest:
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]


def _chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _engine(url: sa.URL) -> sa.Engine:
    if url.drivername != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        # Python's driver would begin a writing transaction as a reading one, which can fail later.
        writes = connection.get_execution_options().get("rlli_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


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
