"""What the run directories of all kinds of studies have, read for a report.

Every missing or damaged file ends in one :class:`~rlli_jax.errors.InputError` that names it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.report.labels import duration, quantity, too_few
from rlli_jax.run_files import Array, read, read_json
from rlli_jax.run_files.policies import Curve, Evaluation, Summary
from rlli_jax.run_files.versions import Versions
from rlli_jax.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """What every run directory says."""

    path: Path
    text: str
    """The resolved YAML, as written."""
    config: Mapping[str, Any]
    """The same, read."""
    versions: Versions
    judge: str = ""
    """Who rated the pictures; empty where nobody did."""
    stand_in: bool = False
    """Whether the judge takes a language model's place."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def title(self) -> str:
        """Of the page."""
        return self.name

    @property
    def description(self) -> str:
        """Of the study, in the words of its author."""
        return str(self.config.get("description", ""))

    @property
    def command(self) -> str:
        """What repeats the run, from the folder that holds its directory."""
        again = [f"{self.name}/config.yaml", "--output", f"{self.name}-again"]
        return shlex.join(["rlli", "run", *again])


def opened(path: Path) -> dict[str, Any]:
    """The fields of a :class:`RunDirectory` that its files of every kind tell.

    Raises:
        InputError: a file is missing or damaged.
    """
    text, config = read(path / "config.yaml", read_config)
    versions = Versions.read(path / "versions.json")
    return {"path": path, "text": text, "config": config, "versions": versions}


def opened_with_table(path: Path) -> dict[str, Any]:
    """The same, and who filled its ``table.npz``. Raises InputError."""
    table = read(path / "table.npz", QoETable.load)
    return opened(path) | {"judge": table.judge, "stand_in": table.stand_in}


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """The YAML of a study, as text and read. Raises OSError, ValueError or yaml.YAMLError."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    require(isinstance(content, dict), "it is no YAML mapping")
    return text, content


def require(condition: bool, message: str) -> None:
    """Raises ValueError unless it is so."""
    if not condition:
        raise ValueError(message)


class PolicyFolder(Summary):
    """``policies/<name>/``: one policy, what it does when it is judged, how it learned."""

    evaluation: Evaluation
    curve: Curve | None

    @property
    def learned(self) -> bool:
        """Whether it is one that learns."""
        return self.curve is not None

    @cached_property
    def returns(self) -> Array:
        """Mean over episodes, [seeds]."""
        return self.evaluation.returns.mean(1)

    def mean(self) -> Estimate:
        """The mean return with its interval."""
        raise NotImplementedError

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Raises InputError where a file is missing or damaged."""
        kind: Any = cls.model_fields["evaluation"].annotation
        evaluation = kind.read(folder / "evaluation.npz")
        file = folder / "curve.npz"
        parts = {"evaluation": evaluation, "curve": Curve.read(file) if file.exists() else None}
        return read(folder / "summary.json", lambda file: cls.checked(read_json(file) | parts))


P = TypeVar("P", bound=PolicyFolder)


def load_policies(path: Path, config: Mapping[str, Any], kind: type[P]) -> tuple[P, ...]:
    """The policies of a run directory that are there, in the order of the config.

    Raises:
        InputError: there is none, or a file is missing or damaged.
    """
    folders = [path / "policies" / name for name in config.get("policies", ())]
    policies = tuple(kind.of_folder(folder) for folder in folders if folder.is_dir())
    if not policies:
        raise InputError(f"{path / 'policies'} holds no policy: finish the run with `rlli run`.")
    return policies


def learns(run: Any) -> bool:
    """Whether a run has a policy that learns."""
    return any(policy.learned for policy in run.policies)


def effort(policy: Summary) -> dict[str, str]:
    """What learning took, for a row: ``steps`` of the environment, ``time``, and ``speed`` in steps
    a second; a dash for each where a policy does not learn."""
    return {
        "steps": quantity(policy.env_steps),
        "time": duration(policy.train_seconds),
        "speed": quantity(policy.steps_per_second),
    }


def interval_words(seeds: int) -> str:
    """What intervals over seeds alone are, for a caption."""
    few = too_few(seeds)
    return f"{few}." if few else "±: half the 95 % Student-t interval over seeds."
