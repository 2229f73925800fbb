"""The database of a store: its connections, its transactions, its making and its repair."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from rlli_jax.errors import InputError
from rlli_jax.judges import Rated, Usage
from rlli_jax.oracle.keys import Parts
from rlli_jax.oracle.schema import ANSWERS, SCHEMA, Row, has_answers, lacking
from rlli_jax.oracle.sqlite_repair import (
    BUSY_SECONDS,
    DamagedRowError,
    connect_reader,
    is_damage,
    kind_of,
    salvaged,
)
from rlli_jax.oracle.statements import chunks, count_final, write_answers, write_leases

_WRITERS = 0x726C6C69  # PostgreSQL's advisory lock of those who write

T = TypeVar("T")


class Database:
    """SQLite or PostgreSQL with the tables of a store.

    Args:
        url: of SQLite or of PostgreSQL.
        message: is told what happened to a damaged file.
        read_only: change nothing; what does not exist is empty.

    Raises:
        InputError: it cannot be opened, is something else, or its tables do not fit.
    """

    def __init__(
        self, url: sa.URL, message: Callable[[str], None], *, read_only: bool = False
    ) -> None:
        self.name = url.database if url.drivername == "sqlite" else url.render_as_string()
        self._path = Path(url.database or "") if url.drivername == "sqlite" else None
        self._message = message
        self._read_only = read_only
        self._older = False  # it lacks columns, and may not be changed
        self._inode: int | None = None
        kind = None if self._path is None else kind_of(self._path)
        if kind == "other":
            raise InputError(
                f"store {self.name}: this is not a store of answers and never was one; it is left "
                "as it is, name another file."
            )
        self.engine = _reader(url) if read_only else _engine(url)
        if not read_only:
            self._create()
        elif kind == "none" or not (kind == "damaged" or self.run(has_answers)):
            # Nothing is there yet, and nothing is to be made: an empty store in memory.
            self.engine.dispose()
            self.engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
            self.run(SCHEMA.create_all)
        else:
            self._older = kind != "damaged" and bool(self.run(lacking))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def run(self, action: Callable[[sa.Connection], T], writes: bool = False) -> T:
        """``action`` in one transaction; once more if a damaged file had to be replaced."""
        try:
            return self._attempt(action, writes)
        except (sa.exc.DBAPIError, sqlite3.Error, DamagedRowError) as error:
            if self._path is None or not is_damage(error):
                raise self.explained(error) from error
            if self._read_only:
                raise InputError(
                    f"store {self.name}: the file is damaged ({getattr(error, 'orig', error)}); "
                    "the next command that asks a judge takes over what can be read of it."
                ) from error
        self.repair()
        try:
            return self._attempt(action, writes)
        except sa.exc.DBAPIError as error:
            raise self.explained(error) from error

    def _attempt(self, action: Callable[[sa.Connection], T], writes: bool) -> T:
        self._follow()
        with self.engine.connect() as plain:
            connection = plain.execution_options(rlli_writes=writes)
            with connection.begin():
                if writes and self._path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS)))
                return action(connection)

    def repair(self) -> None:
        """Set the SQLite file aside and take over what can be read.

        Raises:
            InputError: the store is PostgreSQL, which has its own tools.
        """
        if self._path is None:
            raise InputError(f"store {self.name}: repair PostgreSQL with its own tools.")
        self._follow()
        damaged = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        self.engine.dispose()
        # The file itself last: a new file must never meet the write-ahead log of the old one.
        for suffix in ("-shm", "-wal", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}{suffix}", f"{damaged}{suffix}")
        self._create()
        with salvaged(damaged) as (texts, rows):
            taken = self.add(rows, texts)
        self._message(
            f"store {self.name}: the file is damaged; it is now {damaged.name}, and the "
            f"{taken:,} answers that could be read and are sound were taken over."
        )

    def write(self, owner: str, rows: Sequence[Row], texts: Mapping[str, str]) -> None:
        """:func:`write_answers` in one transaction."""
        self.run(lambda connection: write_answers(connection, owner, rows, texts), writes=True)

    def add(self, rows: Iterable[Row], texts: Mapping[str, str]) -> int:
        """Take rows of another store over; returns how many were new or replaced a failure."""
        before = self.run(count_final)
        self.write("", (), texts)
        for chunk in chunks(rows):
            self.write("", chunk, {})
        return self.run(count_final) - before

    def problems(self) -> list[str]:
        """What the database itself finds wrong with its file; empty for PostgreSQL."""
        if self.engine.dialect.name != "sqlite":
            return []
        try:
            with self.engine.connect() as connection:
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        except sa.exc.DatabaseError as error:
            return [str(error.orig)]
        return [str(line) for line in found if line != "ok"]

    def _create(self) -> None:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self.explained(error) from error
        self.run(self._make_tables, writes=True)
        self.run(self._try_tables, writes=True)

    def _make_tables(self, connection: sa.Connection) -> None:
        """Make the tables and columns that are missing."""
        SCHEMA.create_all(connection)
        for column in lacking(connection):
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
            write_leases(connection, digest, [row.key], 1.0)
            write_answers(connection, "", [row], {digest: ""})
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

    def _follow(self) -> None:
        """Let go of a file that another process has set aside."""
        if self._path is None or self._read_only:
            return
        inode = self._path.stat().st_ino if self._path.exists() else None
        if inode != self._inode:
            self.engine.dispose()
            self._inode = inode

    def explained(self, error: Exception) -> InputError:
        """An error of the database as one sentence."""
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


def _misfit(error: sa.exc.DBAPIError) -> bool:
    """Whether tables are to blame, and not a database that is damaged, full, read-only or gone."""
    if (state := getattr(error.orig, "sqlstate", None)) is not None:
        # PostgreSQL's classes of errors: wrong data, violated constraints, unknown names.
        return state[:2] in ("22", "23", "42") and state != "42501"  # no privilege
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


def _reader(url: sa.URL) -> sa.Engine:
    """An engine whose transactions only read."""
    if url.drivername == "sqlite":
        path = Path(url.database or "")
        return sa.create_engine("sqlite://", creator=lambda: connect_reader(path))
    return sa.create_engine(
        url, pool_pre_ping=True, execution_options={"postgresql_readonly": True}
    )


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
