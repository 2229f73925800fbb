"""Stores to test against: SQLite files, and a PostgreSQL server started for the session."""

import pytest

from rlli_jax.oracle.store import open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """Where an empty store is."""
    if request.param == "sqlite":
        return str(tmp_path / "answers.sqlite")
    address = request.getfixturevalue("postgresql")
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        for table in ("answers", "texts", "leases"):
            connection.execute(f"DROP TABLE IF EXISTS rlli_{table}")
    return address


@pytest.fixture
def store(address):
    opened = open_store(address, message=pytest.fail)
    yield opened
    opened.close()
