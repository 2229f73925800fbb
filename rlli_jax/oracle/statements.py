"""Statements of a store's transactions: each takes the connection of one.

They are the same for SQLite and PostgreSQL but for the two clocks and dialects told apart here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rlli_jax.oracle.schema import ANSWERS, FINAL, LEASES, TEXTS, Row

CHUNK = 500  # keys in one statement

T = TypeVar("T")


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last of which may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def is_sqlite(connection: sa.Connection) -> bool:
    """Whether this is SQLite; else it is PostgreSQL."""
    return connection.dialect.name == "sqlite"


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that may say what to do on a conflict."""
    return (sqlite if is_sqlite(connection) else postgresql).insert(table)


def now(connection: sa.Connection) -> float:
    """Unix time; of the server if there is one, so that all machines have one clock."""
    if is_sqlite(connection):
        return time.time()
    clock = sa.text("SELECT extract(epoch FROM clock_timestamp())")
    return float(connection.execute(clock).scalar_one())


def count_final(connection: sa.Connection) -> int:
    """How many final answers there are."""
    query = sa.select(sa.func.count()).select_from(ANSWERS).where(FINAL)
    return int(connection.execute(query).scalar_one())


def size(connection: sa.Connection) -> int:
    """Bytes that the store takes, about; known without counting."""
    query = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if is_sqlite(connection)
        else "SELECT pg_total_relation_size('rlli_answers')"
    )
    return int(connection.exec_driver_sql(query).scalar_one())


def write_answers(
    connection: sa.Connection, owner: str, rows: Sequence[Row], texts: Mapping[str, str]
) -> None:
    """Keep answers and the texts that their digests stand for, and end the owner's leases.

    An answer that is final is never replaced.
    """
    inserted = insert(connection, ANSWERS)
    changed = {f.name: inserted.excluded[f.name] for f in fields(Row)}
    upsert = inserted.on_conflict_do_update(
        index_elements=[ANSWERS.c.key],
        set_={**changed, "checksum": inserted.excluded.checksum},
        where=ANSWERS.c.kind == "failed",
    )
    answers = [row.columns() for row in rows]
    meanings = [{"digest": bytes.fromhex(d), "text": t} for d, t in texts.items()]

    if meanings:
        connection.execute(insert(connection, TEXTS).on_conflict_do_nothing(), meanings)
    if answers:
        connection.execute(upsert, answers)
    for chunk in chunks([answer["key"] for answer in answers]):
        mine = LEASES.c.key.in_(chunk) & (LEASES.c.owner == owner)
        connection.execute(sa.delete(LEASES).where(mine))


def write_leases(
    connection: sa.Connection, owner: str, keys: Collection[bytes], expires: float
) -> None:
    """Give the questions with these keys to an owner until ``expires``, in Unix time."""
    if keys:
        connection.execute(
            insert(connection, LEASES).on_conflict_do_update(
                index_elements=[LEASES.c.key], set_={"owner": owner, "expires": expires}
            ),
            [{"key": key, "owner": owner, "expires": expires} for key in keys],
        )
