"""The service's log: every decision is on the disk before it is answered.

Two tables: ``rlli_decisions`` and ``rlli_feedback``. A batch of decisions and ratings is one
transaction, so that many share one wait for the disk (group commit). SQLite with a write-ahead log
by default; PostgreSQL where several machines serve.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import sqlalchemy as sa

from rlli_jax.errors import InputError
from rlli_jax.personas import TRAITS

CHUNK = 500  # ids in one statement

_schema = sa.MetaData()
_persona = tuple(sa.Column(trait, sa.Double) for trait in TRAITS)
DECISIONS = sa.Table(
    "rlli_decisions",
    _schema,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("time", sa.Double, nullable=False),  # Unix time
    sa.Column("user", sa.Text),
    sa.Column("request", sa.Text),
    *_persona,  # Big Five on the 1-5 scale, or NULL where it was not known
    sa.Column("offered", sa.Text, nullable=False),  # names with ; between them
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("propensity", sa.Double, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),  # the one that was drawn
    sqlite_with_rowid=False,
)
FEEDBACK = sa.Table(
    "rlli_feedback",
    _schema,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("qoe", sa.Double, nullable=False),  # on the scale of META
    sqlite_with_rowid=False,
)
META = sa.Table(
    "rlli_service",
    _schema,
    sa.Column("key", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)


class Rating(NamedTuple):
    """What somebody thought of a decision."""

    id: str
    time: float
    qoe: float


class Rated(NamedTuple):
    """What became of a rating: ``known`` is None where the decision has none yet."""

    found: bool  # whether there is such a decision
    known: float | None = None  # the rating that it had already
    provider: str = ""
    policy: str = ""


class Count(NamedTuple):
    """Decisions of one policy for one provider, and their ratings."""

    policy: str
    provider: str
    decisions: int
    ratings: int
    total: float
    squares: float


class Decisions:
    """The log, for one writing thread at a time. Opened by :func:`open_decisions`."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._connection = engine.connect()
        # Compiled once: SQLAlchemy's own way takes longer than the disk.
        self._insert = str(sa.insert(DECISIONS).compile(engine))

    def close(self) -> None:
        """Close it."""
        self._connection.close()
        self._engine.dispose()

    def write(self, decisions: Sequence[dict[str, Any]], ratings: Sequence[Rating]) -> list[Rated]:
        """Write decisions, then ratings, in one transaction; all of it is on the disk afterwards.

        Args:
            decisions: rows of ``rlli_decisions``.
            ratings: a decision's first one is kept, others change nothing.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing was written.
        """
        with self._connection.begin():
            if decisions:
                self._connection.exec_driver_sql(self._insert, list(decisions))
            return self._rate(ratings) if ratings else []

    def _rate(self, ratings: Sequence[Rating]) -> list[Rated]:
        about: dict[str, sa.Row[Any]] = {}
        for part in _chunks([rating.id for rating in ratings]):
            columns = DECISIONS.c.id, DECISIONS.c.provider, DECISIONS.c.policy, FEEDBACK.c.qoe
            joined = DECISIONS.outerjoin(FEEDBACK, DECISIONS.c.id == FEEDBACK.c.id)
            query = sa.select(*columns).select_from(joined).where(DECISIONS.c.id.in_(part))
            about |= {row.id: row for row in self._connection.execute(query)}
        known = {name: row.qoe for name, row in about.items()}
        result, new = [], []
        for rating in ratings:
            if (row := about.get(rating.id)) is None:
                result.append(Rated(False))
                continue
            result.append(Rated(True, known[rating.id], row.provider, row.policy))
            if known[rating.id] is None:
                known[rating.id] = rating.qoe
                new.append(rating._asdict())
        if new:
            self._connection.execute(sa.insert(FEEDBACK), new)
        return result

    def counts(self) -> list[Count]:
        """All that was decided and rated so far, by policy and provider."""
        qoe = FEEDBACK.c.qoe
        query = (
            sa.select(
                DECISIONS.c.policy,
                DECISIONS.c.provider,
                sa.func.count(),
                sa.func.count(qoe),
                sa.func.coalesce(sa.func.sum(qoe), 0.0),
                sa.func.coalesce(sa.func.sum(qoe * qoe), 0.0),
            )
            .select_from(DECISIONS.outerjoin(FEEDBACK, DECISIONS.c.id == FEEDBACK.c.id))
            .group_by(DECISIONS.c.policy, DECISIONS.c.provider)
        )
        with self._connection.begin():
            return [Count(*row) for row in self._connection.execute(query)]

    def settle_scale(self, scale: str) -> None:
        """Keep the scale of the ratings, which is one for the whole log.

        Raises:
            InputError: the log has ratings on another.
        """
        with self._connection.begin():
            before = _scale_of(self._connection)
            if before is None:
                row = {"key": "scale", "value": scale}
                self._connection.execute(sa.insert(META), row)
        if before not in (None, scale):
            raise InputError(
                f"the log {self.name} has ratings on the scale {before}, not {scale}; give that "
                "with --scale, or another log with --log."
            )


def _scale_of(connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(META.c.value).where(META.c.key == "scale")).scalar()


def _chunks(ids: list[str]) -> Iterable[list[str]]:
    return (ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK))


def open_decisions(address: str) -> Decisions:
    """Open the log of a service; it is made if it does not exist.

    Args:
        address: ``sqlite:///FILE`` or ``postgresql://user@host/database``; a password comes from
            ``PGPASSWORD`` or ``~/.pgpass``.

    Raises:
        InputError: the address is malformed or holds a password, or it cannot be opened.
    """
    engine, name = _engine(address)
    try:
        _schema.create_all(engine)
        return Decisions(engine, name)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _unusable(name, error) from None


def read_decisions(address: str) -> tuple[pd.DataFrame, str]:
    """The log as a table with a row a decision, and the scale of its ratings.

    Columns: ``time``, ``user``, ``request``, the five traits, ``offered``, ``provider``,
    ``propensity``, ``policy`` and ``qoe``, NaN without a rating. Columns without any other value
    are left out; who has no name counts as a user of their own.

    Raises:
        InputError: there is no such log.
    """
    engine, name = _engine(address)
    if engine.url.database and engine.dialect.name == "sqlite" and not Path(name).exists():
        raise InputError(f"the log {name} does not exist; give the address of `rlli serve`.")
    joined = DECISIONS.outerjoin(FEEDBACK, DECISIONS.c.id == FEEDBACK.c.id)
    columns = list(DECISIONS.c)
    query = sa.select(*columns, FEEDBACK.c.qoe).select_from(joined).order_by(DECISIONS.c.id)
    try:
        with engine.connect() as connection:
            rows = connection.execute(query).all()
            scale = _scale_of(connection)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _unusable(name, error) from None
    finally:
        engine.dispose()
    names = [column.name for column in columns] + ["qoe"]
    frame = pd.DataFrame(rows, columns=pd.Index(names))
    if frame["user"].notna().any():  # somebody without a name is nobody else
        frame["user"] = frame["user"].fillna("#" + frame.pop("id"))
    frame = frame.drop(columns="id", errors="ignore")
    if frame["request"].notna().any():
        frame["request"] = frame["request"].fillna("(none)")
    empty = [name for name in names if name != "qoe" and name in frame and frame[name].isna().all()]
    return frame.drop(columns=empty), scale or "1-5"


def _unusable(name: str, error: Exception) -> InputError:
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return InputError(f"the log {name} cannot be opened ({reason}); give another with --log.")


def _engine(address: str) -> tuple[sa.Engine, str]:
    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
        raise InputError(
            f"--log {os.fspath(address)}: write sqlite:///FILE or postgresql://user@host/database."
        )
    if url.password is not None or "password" in url.query:
        raise InputError(
            f"--log {url.render_as_string()}: the address holds a password; give it in PGPASSWORD "
            "or ~/.pgpass instead."
        )
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url.set(drivername="postgresql+psycopg")), str(url)
        except ImportError:
            raise InputError(
                "--log: psycopg, which speaks to PostgreSQL, is missing; pip install "
                "'rlli_jax[postgresql]'."
            ) from None
    # Python's own transactions would begin too late for a batch to be one.
    options = {"isolation_level": None, "check_same_thread": False, "timeout": 30.0}
    engine = sa.create_engine(
        url, connect_args=options, poolclass=sa.StaticPool, paramstyle="named"
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        # A commit is on the disk when it returns, also if the power fails.
        connection.execute("PRAGMA synchronous=FULL")
        # Pages (40 MB): by default the log is moved into the file several times a second, and
        # those who wait just then wait for two more writes.
        connection.execute("PRAGMA wal_autocheckpoint=10000")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine, str(url.database)
