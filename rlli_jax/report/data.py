"""A run directory, read into small dataclasses. Files only: no JAX, no training code.

Every missing or damaged file ends in one :class:`~rlli_jax.errors.InputError` that names it.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.run_files import (
    Array,
    CalibrationFile,
    Curve,
    Human,
    PeopleFile,
    References,
    SelectionEvaluation,
    SelectionSummary,
    read,
    read_json,
)


class Policy(SelectionSummary):
    """One policy: how it was made, and what it does when evaluated; see
    :class:`rlli_jax.run_files.SelectionEvaluation`."""

    returns: np.ndarray
    choices: np.ndarray
    qoe: np.ndarray
    objective: np.ndarray
    curve: Curve | None

    @property
    def learned(self) -> bool:
        return self.curve is not None


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Run:
    """All that a run directory holds for the report."""

    path: Path
    config: str  # the resolved YAML, as written
    description: str
    versions: dict[str, str]
    traits: Array | None  # [K, 5]; None: unknown
    table: QoETable  # all requests
    train: QoETable  # the requests that learners saw
    # The requests on which policies were evaluated and what choices are worth there; the whole
    # table, if none was held out.
    test: QoETable
    reference: References
    policies: tuple[Policy, ...]  # learned ones first, then by what they observe
    human: Human | None
    calibration: CalibrationFile | None
    people: PeopleFile | None  # whose ratings correct the judge's

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def held_out(self) -> bool:
        """Whether policies were evaluated on requests kept out of training."""
        return self.test is not self.table

    def thumbnail(self, request: int, provider: int) -> Thumbnail | None:
        """The picture of one pair, or None where the run kept none."""
        path = self.path / "pictures" / f"{request}-{provider}.jpg"
        return read(path, _thumbnail) if path.exists() else None


def load_run(directory: str | Path) -> Run:
    """Read a run directory. InputError where a file is missing, damaged or does not fit."""
    path = Path(directory)
    if not path.is_dir():
        raise InputError(f"{path} is not a run directory: give one that `rlli run` has written.")
    table = read(path / "table.npz", QoETable.load)
    text, config = read(path / "config.yaml", read_config)
    population = read(
        path / "population.csv",
        lambda file: Population.from_csv(file, traits=_knows_traits(config)),
    )
    if population.names != table.users:
        raise InputError(
            f"{path / 'population.csv'} lists other users than {path / 'table.npz'}: "
            "restore the pair that belongs together."
        )
    folders = sorted(p for p in (path / "policies").glob("*") if p.is_dir())
    if not folders:
        raise InputError(f"{path / 'policies'} holds no policy: finish the run with `rlli run`.")
    train, test = read(path / "config.yaml", lambda _: _split(table, config))
    if (held_out := path / "held_out.npz").exists():
        test = read(held_out, QoETable.load)
    policies = [_policy(folder, test) for folder in folders]
    human, calibrated = path / "human.json", path / "calibration.json"
    people = path / "people.json"
    known = {policy.name for policy in policies}
    return Run(
        path=path,
        config=text,
        description=str(config.get("description", "")),
        versions=read(path / "versions.json", read_versions),
        traits=population.traits,
        table=table,
        train=train,
        test=test,
        reference=References.read(path / "references.json"),
        policies=tuple(sorted(policies, key=lambda policy: _order(policy, config))),
        human=read(human, lambda file: _human(file, known)) if human.exists() else None,
        calibration=CalibrationFile.read(calibrated) if calibrated.exists() else None,
        people=PeopleFile.read(people) if people.exists() else None,
    )


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    require(isinstance(content, dict), "it is no YAML mapping")
    return text, content


def _knows_traits(config: dict[str, Any]) -> bool:
    """As ``StudyConfig.knows_traits``, of plain values."""
    recorded = (config.get("judge") or {}).get("kind") == "recorded"
    calibrated = (config.get("table") or {}).get("calibrate")
    return not (calibrated or (recorded and not config.get("population")))


def _split(table: QoETable, config: dict[str, Any]) -> tuple[QoETable, QoETable]:
    """The tables of training and of evaluation, split as the config says."""
    block = config.get("table", {})
    if not block.get("held_out_requests"):
        return table, table
    test, train = table.split_requests(block["held_out_requests"], block["split_seed"])
    return train, test


def read_versions(path: Path) -> dict[str, str]:
    return {str(key): str(value) for key, value in read_json(path).items()}


def _human(path: Path, policies: set[str]) -> Human:
    human = Human.read(path)
    unknown = ", ".join(sorted(set(human.policies) - policies))
    require(not unknown, f"the run has no policy {unknown}")
    return human


def _policy(folder: Path, table: QoETable) -> Policy:
    summary = SelectionSummary.read(folder / "summary.json")

    def evaluation(path: Path) -> dict[str, Array]:
        found = SelectionEvaluation.read(path)
        shape = (len(found.objective), *table.legal.shape)
        require(
            found.choices.shape == shape,
            f"choices has shape {found.choices.shape} where {shape} fits the table",
        )
        return found.arrays()

    curve = folder / "curve.npz"
    learned = {"curve": Curve.read(curve) if curve.exists() else None}
    found = read(folder / "evaluation.npz", evaluation)
    return Policy.checked(summary.model_dump() | found | learned)


def _order(policy: Policy, config: dict[str, Any]) -> tuple[bool, int, tuple[str, ...], int, str]:
    """Learned policies first, by what they observe; else as in the config."""
    names = list(config.get("policies", ()))
    place = names.index(policy.name) if policy.name in names else len(names)
    return not policy.learned, len(policy.observation), policy.observation, place, policy.name


def _thumbnail(path: Path) -> Thumbnail:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # a truncated file shows here and not in the reader's browser
        require(image.format == "JPEG", "it is no JPEG")
        width, height = image.size
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return Thumbnail(uri, width, height)
