"""SQLite files that are damaged: what a file is, and which of its rows can still be read."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from rlli_jax.errors import InputError, why
from rlli_jax.oracle.keys import sha256
from rlli_jax.oracle.schema import ANSWERS, TEXTS, Row, checked

BUSY_SECONDS = 60.0  # how long a writer waits for its turn
MAGIC = b"SQLite format 3\0"
FIRST_PAGE = 65536  # bytes of the largest page


class DamagedRowError(Exception):
    """An answer and its checksum do not fit."""

    def __str__(self) -> str:
        return "a stored answer is damaged (its checksum is wrong)"


def is_damage(error: Exception) -> bool:
    """Whether an error of a database says that its file is damaged."""
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code
    return (
        isinstance(error, DamagedRowError)
        or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or "Could not decode to UTF-8" in str(cause)
    )


def kind_of(path: Path) -> Literal["none", "store", "damaged", "other"]:
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
        raise InputError(f"store {path}: it cannot be read ({why(error)}).") from error
    if not first:
        return "none"
    if first.startswith(MAGIC):
        try:
            with closing(connect_reader(path)) as connection:
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


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even by making the files of a write-ahead log."""
    log = Path(f"{path}-wal")
    quiet = not (log.exists() and log.stat().st_size)
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


@contextmanager
def salvaged(damaged: Path) -> Iterator[tuple[dict[str, str], Iterator[Row]]]:
    """The texts, by digest, and the sound rows of a damaged file, which is left as it is."""
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
            yield texts, rows


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
