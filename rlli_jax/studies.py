"""A whole study from Python: what ``rlli run`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.study import carry_out, directory_of, load_study
from rlli_jax.report import render

if TYPE_CHECKING:
    from rlli_jax.experiments.study import Study

__all__ = ["load_study", "render", "run_study"]


def run_study(
    study: Study | str | Path,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Carry out a study of any kind, from the judge to the report, as ``rlli run`` does::

        run = run_study("configs/paper.yaml", "runs/quick", overrides=["seeds=3"])

    A sweep takes the devices that JAX has; on a CPU that is one, unless ``jax_num_cpu_devices``
    says otherwise.

    Args:
        study: a YAML file, or what :func:`load_study` made of it.
        output: the run directory; ``runs/<name of the study>`` if not given.
        overrides: of a file's keys, such as ``"seeds=3"``.
        resume: go on where an earlier run stopped; its results are those of a run never stopped.
        overwrite: delete an earlier run in the same directory first.
        progress: whether to show how far it is.

    Returns:
        The run directory, which holds ``report.html``.

    Raises:
        InputError: a mistake in the study; something that it asks for cannot be had; or the
            directory holds a run and neither ``resume`` nor ``overwrite`` is true.
    """
    if resume and overwrite:
        raise InputError("resume and overwrite contradict each other; give one of them.")
    if isinstance(study, str | Path):
        study = load_study(study, overrides)
    elif overrides:
        raise InputError("overrides are for a file; change the loaded study, or give its path.")
    path = directory_of(study) if output is None else Path(output)
    existing = "overwrite" if overwrite else "resume" if resume else "refuse"
    carry_out(study, path, existing, Console(quiet=not progress))  # type: ignore[arg-type]
    render(path)
    return path
