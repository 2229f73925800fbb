"""A finished teaching study as its report reads it, and what its methods gain over each other."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.report.labels import quantity
from rlli_jax.report.run import RunDirectory, opened, require
from rlli_jax.run_files import read
from rlli_jax.run_files.teaching import TeachingTask
from rlli_jax.statistics import Estimate, t_interval


@dataclass(frozen=True)
class Result:
    """One method in one case; arrays as ``run`` writes them, first axis the seeds."""

    name: str
    method: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @cached_property
    def area(self) -> np.ndarray:
        """Mean of the exact return over the training, [seeds]."""
        return np.asarray(self.arrays["return"].mean(1), np.float64)

    @property
    def control(self) -> bool:
        """Whether no feedback that was earned reaches a teacher."""
        return (
            not self.method["teacher"]
            or self.method["feedback"] == "nothing"
            or self.method["verdicts"] != "true"
        )


@dataclass(frozen=True, kw_only=True)
class TeachingRun(RunDirectory):
    """A finished run directory."""

    task: TeachingTask
    cases: dict[str, dict[str, Result]]
    language_policy: dict[str, np.ndarray] | None

    @property
    def title(self) -> str:
        """That of the study."""
        return str(self.config["name"])


def load_teaching_run(directory: str | Path) -> TeachingRun:
    """Read a run directory. InputError where a file is missing, damaged or does not fit."""
    path = Path(directory)
    files = opened(path)
    config = files["config"]
    return TeachingRun(
        **files,
        task=TeachingTask.read(path / "task.json"),
        cases={
            case: {
                name: Result(name, method, read(path / "methods" / case / f"{name}.npz", _method))
                for name, method in config["methods"].items()
            }
            for case in config["cases"]
        },
        language_policy=read(path / "language_policy.npz", _arrays)
        if "language_policy" in config
        else None,
    )


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as content:
        return dict(content)


def _method(file: Path) -> dict[str, np.ndarray]:
    arrays = _arrays(file)
    require(arrays["return"].ndim == 2, "return is not [seeds, rounds]")
    return arrays


def gain(run: TeachingRun, case: str, name: str, over: str) -> Estimate:
    """Difference in area of two methods, paired by seed: the same teacher, the same randomness."""
    results = run.cases[case]
    return t_interval(results[name].area - results[over].area)


def matched_controls(run: TeachingRun, case: str, name: str) -> list[str]:
    """The controls that differ from a reading in nothing but that their feedback is made up."""
    reading = run.cases[case][name].method
    return [
        result.name
        for result in run.cases[case].values()
        if result.method["verdicts"] != "true" and result.method | {"verdicts": "true"} == reading
    ]


def best_reading(run: TeachingRun, case: str) -> str:
    """The method with true feedback that has the largest area."""
    readings = [r for r in run.cases[case].values() if not r.control]
    return max(readings, key=lambda r: float(r.area.mean())).name


def case_words(run: TeachingRun, case: str) -> str:
    """How long a case trains, in words."""
    iterations = int(run.config["cases"][case]["iterations"])
    steps = iterations * int(run.task.env_steps_per_iteration[case])
    return f"{iterations:,} iterations, {quantity(steps)} environment steps"
