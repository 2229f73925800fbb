"""The tables of a store, and one row of answers with its key and checksum."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from rlli_jax.judges import Answer, Failed, Rated, Usage
from rlli_jax.oracle.keys import Parts

SCHEMA = sa.MetaData()
_digest = sa.LargeBinary(32)

ANSWERS = sa.Table(
    "rlli_answers",
    SCHEMA,
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
    SCHEMA,
    sa.Column("digest", _digest, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
LEASES = sa.Table(
    "rlli_leases",
    SCHEMA,
    sa.Column("key", _digest, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),  # Unix time
    sqlite_with_rowid=False,
)
FINAL = ANSWERS.c.kind != "failed"

_NUMBERS = struct.Struct("<dd")


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
        return checksum_of(self.kind, self.rating, self.valid_mass, self.reason, self.raw)

    def columns(self) -> dict[str, Any]:
        """The row as the table takes it."""
        return {**vars(self), "key": self.key, "checksum": self.checksum}


def checked(columns: Mapping[str, Any]) -> Row | None:
    """The row, or None if its key or checksum is wrong or it is no row at all."""
    try:
        row = Row(**{f.name: columns[f.name] for f in fields(Row)})
        sound = row.key == columns["key"] and row.checksum == columns["checksum"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return row if sound else None


def checksum_of(
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


def lacking(connection: sa.Connection) -> list[sa.Column[Any]]:
    """Columns that the tables do not have."""
    inspector = sa.inspect(connection)
    there = {
        (table, column["name"])
        for table in SCHEMA.tables
        if inspector.has_table(table)
        for column in inspector.get_columns(table)
    }
    return [
        column
        for table in SCHEMA.tables.values()
        for column in table.c
        if (table.name, column.name) not in there
    ]


def has_answers(connection: sa.Connection) -> bool:
    """Whether there are tables of answers."""
    return sa.inspect(connection).has_table(ANSWERS.name)
