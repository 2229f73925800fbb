"""Stores to test against: SQLite files, and a PostgreSQL server started for the session."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from rlli_jax.oracle.store import open_store


def _binaries():
    """Folder of PostgreSQL's programs (Debian keeps them off the path), or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (initdb := shutil.which("initdb")) is not None:
        folders.append(Path(initdb).parent)
    complete = (f for f in folders if (f / "initdb").exists() and (f / "postgres").exists())
    return next(complete, None)


@pytest.fixture(scope="session")
def postgresql():
    """Address of an empty database of a real server, which listens on a local port only."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL cannot run as root, and there is no user 'postgres'")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    folder = tempfile.mkdtemp(prefix="rlli-postgres-")
    if user:
        os.chown(folder, user["user"], user["group"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program, *arguments):
        subprocess.run(
            [binaries / program, *arguments],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=60,
            **user,
        )

    data = f"{folder}/data"
    call("initdb", "-D", data, "-U", "rlli", "-A", "trust", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
    call("pg_ctl", "-D", data, "-l", f"{folder}/log", "-w", "-o", options, "start")
    try:
        yield f"postgresql://rlli@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


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
