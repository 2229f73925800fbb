"""A run directory: where a study keeps everything, safe from crashes and from other runs.

Files appear whole or not at all (written beside, then renamed), a lock keeps a second process out,
and nothing is overwritten without being asked.
"""

import fcntl
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from rlli_jax.errors import InputError, why
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.versions import differences, require_settings, versions
from rlli_jax.experiments.yaml_blocks import StudyBlock, from_yaml, parse_as, to_yaml
from rlli_jax.files import clear_partial, write_text
from rlli_jax.run_files.versions import Versions

MARKS = ("config.yaml", "versions.json")  # by these a folder is known to hold a run
SELECTION = "selection"
SWEEP = "sweep.yaml"  # and by this one that it is a sweep
Existing = Literal["refuse", "resume", "overwrite"]


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all. Raises InputError where the disk refuses."""
    write_text(path, to_yaml(dict(content)))


def read_config(path: Path) -> StudyConfig:
    """The config of an earlier run of a study of provider selection.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    content = read_values(path)
    if "market" in content or "methods" in content or content.get("kind", SELECTION) != SELECTION:
        raise InputError(f"{path} holds no study of provider selection; give one of `rlli run`.")
    return parse_as(StudyConfig, content, source=str(path / "config.yaml"), folder=None)


def read_values(path: Path, name: str = "config.yaml") -> Any:
    """The plain values of a YAML file of an earlier run. Raises InputError if it has none."""
    try:
        return from_yaml((path / name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = f"it has no {name}" if isinstance(error, FileNotFoundError) else why(error)
        raise InputError(
            f"{path} is not a run directory that can be read ({reason}); give the folder that "
            "`rlli run` named."
        ) from None


def resuming(path: Path) -> str:
    """The command that goes on with the run in a directory."""
    return shlex.join(["rlli", "run", str(path / "config.yaml"), "--output", str(path), "--resume"])


@contextmanager
def open_run(
    path: Path,
    config: StudyBlock,
    existing: Existing,
    sweep: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Make or reopen a run directory and hold it for this process alone.

    A run that is resumed with other versions is warned of, on standard error and in
    ``versions.json``.

    ``sweep``: the block ``sweep`` as plain values, kept beside the config and compared alike; None
    if this is no sweep.

    Raises:
        InputError: it is in use; it exists and ``existing`` is "refuse"; it holds no run, or
            another study than the one to resume; settings of JAX are others than at its
            beginning; or it cannot be written.
    """
    path = path.resolve()  # so that it has a name, even if it was given as "."
    lock = path.parent / f".{path.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = open(lock, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unusable(path, error) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"run directory {path} is in use by another process; wait for it to end, or give "
                "another directory with --output."
            ) from None
        try:
            _prepare(path, config, existing, sweep)
        except OSError as error:
            raise _unusable(path, error) from None
        yield path


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"run directory {path} cannot be used ({error.strerror}: {error.filename}); give another "
        "directory with --output."
    )


def _prepare(
    path: Path,
    config: StudyBlock,
    existing: Existing,
    sweep: Mapping[str, Any] | None,
) -> None:
    resolved = config.dump()
    names = {file.name for file in path.iterdir()} if path.exists() else set()
    # A run that ended before it had any result, by a mistake in its input say, is no loss.
    occupied = names not in (set(), set(MARKS), {*MARKS, SWEEP})
    if occupied and not names.issuperset(MARKS):
        raise InputError(
            f"{path} is not empty and holds no run; it is left as it is, give another directory "
            "with --output."
        )
    if occupied and existing == "overwrite":
        shutil.rmtree(path)
        occupied = False
    if not occupied:
        path.mkdir(parents=True, exist_ok=True)
        try:
            versions(_command()).write(path / "versions.json")
            write_yaml(path / "config.yaml", resolved)
            (path / SWEEP).unlink(missing_ok=True)
            if sweep is not None:
                write_yaml(path / SWEEP, sweep)
        except InputError:
            for name in (*MARKS, SWEEP):  # one alone would look like a folder of somebody else's
                (path / name).unlink(missing_ok=True)
            raise
        return
    if existing == "refuse":
        raise InputError(
            f"run directory {path} exists; continue it with --resume, start afresh with "
            "--overwrite, or give another directory with --output."
        )
    before = read_values(path)
    with suppress(InputError):  # of another kind, which differs anyway
        source = str(path / "config.yaml")
        before = parse_as(type(config), before, source=source, folder=None).dump()
    if before != resolved:
        key = _first_difference(before, resolved)
        raise InputError(
            f"{path} holds a run with another config ({key} differs); resume it with its own "
            "config, or give another directory with --output."
        )
    kept = read_values(path, SWEEP) if SWEEP in names else None
    if kept != sweep:
        held = "a run" if kept is None else "another sweep" if sweep else "a sweep"
        raise InputError(
            f"{path} holds {held} (its block sweep differs); resume it with its own config, or "
            "give another directory with --output."
        )
    _compare_versions(path)
    clear_partial(path)


def _compare_versions(path: Path) -> None:
    """Refuse other settings of JAX; say and record other versions."""
    file = path / "versions.json"
    try:
        before = Versions.read(file)
    except InputError:
        return  # damaged: nothing is known of the beginning
    require_settings(f"run directory {path}", before.by_name())
    if differ := "; ".join(differences(before.by_name(), versions().by_name())):
        print(
            f"rlli: {path} was begun with {differ}: what is finished stays, the rest may not end "
            "bit for bit where it would have ended.",
            file=sys.stderr,
        )
        if differ not in before.resumed_with:
            resumed = f"{before.resumed_with}\n{differ}".strip()
            before.model_copy(update={"resumed_with": resumed}).write(file)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _first_difference(a: Any, b: Any, where: str = "") -> str:
    """Path of the first key in which two configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if a.get(key) != b.get(key):
                inner = f"{where}.{key}" if where else str(key)
                return _first_difference(a.get(key), b.get(key), inner)
    return where
