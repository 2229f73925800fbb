"""Is personalising worth it by a run's own table? ``personalising.json`` of a run directory."""

from typing import Any

from rlli_jax.report.data import Run
from rlli_jax.run_files import read, read_json


def load(run: Run) -> dict[str, Any] | None:
    """What the run directory says; None where it says nothing."""
    path = run.path / "personalising.json"
    return read(path, read_json) if path.exists() else None
