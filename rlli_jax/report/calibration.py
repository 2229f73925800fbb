"""What people's scores bought: ``calibration.json`` of a run directory."""

from typing import Any

from rlli_jax.report.data import Run, read, read_json


def load(run: Run) -> dict[str, Any] | None:
    """Weights, offsets and curve as they were written; None where judges were not calibrated."""
    path = run.path / "calibration.json"
    return read(path, read_json) if path.exists() else None
