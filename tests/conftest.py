"""What several rooms share: one small study, carried out once, and one cache of its programs."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

# Tests compile much and compute little, several at a time: XLA is to spend no time on fast
# programs, nor on splitting them for more cores, and linear algebra none on handing small matrices
# from thread to thread.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rlli_jax import cli


def pytest_xdist_auto_num_workers():
    """One more than cores: tests also wait, for servers, files and processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def ctrl_c():
    """Ctrl-C works, though a shell may have started the tests in its background, where it does
    not: this process would hand that on to its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def compilations(tmp_path_factory):
    """Compiled programs kept on disk for the session; gives the environment of a subprocess.

    Processes that share the tests share the programs too.
    """
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    settings = {
        "jax_compilation_cache_dir": str(home / "rlli_jax" / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(home))  # where the command line puts its cache
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    compilation_cache.reset_cache()
    for name, value in settings.items():
        jax.config.update(name, value)
    yield dict(os.environ)
    patch.undo()
    compilation_cache.reset_cache()
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compilations):
    """The tiny study, carried out without interruption: (its config, its run directory)."""
    import tiny_study

    folder = tmp_path_factory.mktemp("finished")
    config = tiny_study.write_config(folder)
    tiny_study.carry_out(config, folder / "run")
    return config, folder / "run"


@pytest.fixture(scope="session")
def persona_run(tmp_path_factory, compilations):
    """A run of five users with personas: "knowing" observes them, "blind" does not."""
    import tiny_study

    folder = tmp_path_factory.mktemp("personas")
    tiny_study.carry_out(tiny_study.write_persona_config(folder, iterations=1), folder / "run")
    return folder / "run"


@pytest.fixture
def rlli(monkeypatch, capsys, compilations):
    """Run the command in this process: (exit status, output, errors)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlli", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return call


def _mounted(folder, *steps):
    """Carry out mounts of a folder; skip the test where the system does not let us."""
    for step in steps:
        done = subprocess.run(["mount", *step, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many bytes in memory; returns its folder and a way to enlarge it.

    The size is rounded up to pages; a file system of a page or two has no room for files.
    """
    folders = []

    def make(size):
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        _mounted(folder, ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"])
        folders.append(folder)
        return folder, lambda more: _mounted(folder, ["-o", f"remount,size={more}"])

    try:
        yield make
    finally:
        for folder in folders:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only():
    """Makes a folder read-only, also for the superuser, until the end or its ``undo``."""
    folders = []

    def undo():
        while folders:
            subprocess.run(["umount", str(folders.pop())], check=True)

    def make(folder):
        _mounted(folder, ["--bind", str(folder)])
        folders.append(folder)
        _mounted(folder, ["-o", "remount,ro,bind"])
        return undo

    try:
        yield make
    finally:
        undo()


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
