"""What ``rlli cache`` does: count, verify, export, import and prune stored answers."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa

from rlli_jax.errors import InputError, why
from rlli_jax.files import whole
from rlli_jax.oracle.keys import sha256
from rlli_jax.oracle.schema import ANSWERS, Row, checked
from rlli_jax.oracle.store import Store

DIGESTS = ("judge", "persona", "picture", "scale")  # columns of bytes, written in hexadecimal


def describe(store: Store) -> str:
    """What is stored of each judge, for people."""
    stats = store.stats()
    lines = [f"store {store.name}: {sum(s.rated + s.invalid for s in stats):,} answers"]
    for judge in stats:
        mass = "" if judge.valid_mass is None else f", mean valid mass {judge.valid_mass:.3f}"
        lines += [
            judge.judge,
            f"  {judge.rated:,} rated, {judge.invalid:,} invalid, {judge.failed:,} failed{mass}; "
            f"{judge.tokens:,} tokens, cost {judge.cost:,.2f}",
        ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found."""

    rows: int
    unsound: int  # rows whose key or checksum is wrong
    problems: tuple[str, ...]  # of the database's file

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not (self.unsound or self.problems)

    def __str__(self) -> str:
        if self.problems:
            return f"the file is damaged: {self.problems[0]}"
        return f"{self.rows:,} rows, {self.unsound:,} of them unsound"


def verify(store: Store) -> Verification:
    """Check the database's file and, if that is whole, the key and checksum of every row."""
    problems = tuple(store.database.problems())
    sound = [] if problems else [row is not None for row in store.rows()]
    return Verification(len(sound), sound.count(False), problems)


def export_answers(store: Store, path: str | Path) -> int:
    """Write everything as JSON lines, compressed if the name ends in ``.gz``.

    First come the texts that digests stand for, then the answers; unsound rows are left out.
    Returns the number of answers.

    Raises:
        InputError: the file cannot be written.
    """
    return write_answers(path, (row for row in store.rows() if row is not None), store.texts())


def write_answers(path: str | Path, rows: Iterable[Row], texts: Mapping[str, str]) -> int:
    """Write what :func:`export_answers` writes, of answers that may be in no store.

    ``texts``: what the digests stand for, by digest. Returns the number of answers.

    Raises:
        InputError: the file cannot be written.
    """
    count = 0
    with whole(path) as partial, _open(partial, "wt") as file:
        for text in texts.values():
            file.write(json.dumps({"text": text}) + "\n")
        for row in rows:
            file.write(json.dumps(_to_json(row)) + "\n")
            count += 1
    return count


def import_answers(store: Store, path: str | Path) -> int:
    """Take over what :func:`export_answers` wrote; final answers that are there stay.

    Returns the number of new answers. The file is read whole before anything is kept.

    Raises:
        InputError: the file cannot be read, or a line is not one of such a file or was changed.
    """
    path = Path(path)
    texts: dict[str, str] = {}
    rows: list[Row] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            content = json.loads(line)
            if "text" in content:
                texts[sha256(content["text"])] = content["text"]
                continue
            row = _from_json(content)
        except (ValueError, TypeError, KeyError, AttributeError):
            row = None
        if row is None:
            raise InputError(
                f"{path}, line {number}: this is no answer as `rlli cache export` writes it, or "
                "it was changed; export it again."
            )
        rows.append(row)
    return store.add(rows, texts)


def prune(
    store: Store,
    *,
    judge: str = "",
    days: float | None = None,
    failed: bool = False,
    invalid: bool = False,
) -> int:
    """Delete the answers to which everything given applies; returns how many.

    Args:
        store: where.
        judge: a part of the judge's name or parameters, as :func:`describe` shows them.
        days: only answers older than this.
        failed: only failures, which would be asked again anyway.
        invalid: only invalid answers; with ``failed``, both kinds.

    Raises:
        InputError: nothing is given, which would delete everything; no judge has such a part.
    """
    kinds = [kind for kind, chosen in (("failed", failed), ("invalid", invalid)) if chosen]
    if not judge and days is None and not kinds:
        raise InputError(
            "prune: say what to delete: a judge, an age in days, failed or invalid answers."
        )
    conditions: list[sa.ColumnElement[bool]] = []
    if judge:
        digests = [
            bytes.fromhex(digest)
            for digest, text in store.texts().items()
            if text.startswith('{"name":') and '"parameters":' in text and judge in text
        ]
        if not digests:
            raise InputError(f"prune: no judge has {judge!r} in its name or parameters.")
        conditions.append(ANSWERS.c.judge.in_(digests))
    if days is not None:
        conditions.append(ANSWERS.c.answered_at < time.time() - days * 86400)
    if kinds:
        conditions.append(ANSWERS.c.kind.in_(kinds))
    return store.delete(sa.and_(*conditions))


def _to_json(row: Row) -> dict[str, Any]:
    columns = row.columns()
    hexadecimal = {
        name: None if columns[name] is None else columns[name].hex() for name in ("key", *DIGESTS)
    }
    return {**columns, **hexadecimal}


def _from_json(content: dict[str, Any]) -> Row | None:
    digests = {
        name: None if content[name] is None else bytes.fromhex(content[name])
        for name in ("key", *DIGESTS)
    }
    return checked({**content, **digests})


def _open(path: Path, mode: str) -> TextIO:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    file: TextIO = opener(path, mode, encoding="utf-8")
    return file


def _lines(path: Path) -> Iterator[str]:
    try:
        with _open(path, "rt") as file:
            yield from file
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a file of answers.") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({why(error)}).") from None
