"""A run of provider selection, read into small classes. Files only: no JAX, no training code.

Every missing or damaged file ends in one :class:`~rlli_jax.errors.InputError` that names it.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.report.run import PolicyFolder, RunDirectory, load_policies, opened, require
from rlli_jax.run_files import Array, read
from rlli_jax.run_files.selection import (
    CalibrationFile,
    Human,
    PeopleFile,
    References,
    SelectionEvaluation,
    SelectionSummary,
)
from rlli_jax.statistics import Estimate, t_interval


class SelectionPolicy(SelectionSummary, PolicyFolder):
    """One policy: how it was made, and what it does when it is judged."""

    evaluation: SelectionEvaluation

    @property
    def choices(self) -> Array:
        """How often each provider was chosen, [seeds, users, requests, providers]."""
        return self.evaluation.choices

    @property
    def qoe(self) -> Array:
        """Expected, of each user, [seeds, users]."""
        return self.evaluation.qoe

    @property
    def objective(self) -> Array:
        """QoE summed over users, Eq. (2), [seeds]."""
        return self.evaluation.objective

    def mean(self) -> Estimate:
        """The mean return with its interval over seeds."""
        return t_interval(self.returns)


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class SelectionRun(RunDirectory):
    """All that a run directory holds for the report."""

    traits: Array | None  # [K, 5]; None: unknown
    table: QoETable  # all requests
    train: QoETable  # the requests that learners saw
    # The requests on which policies were evaluated and what choices are worth there; the whole
    # table, if none was held out.
    test: QoETable
    reference: References
    policies: tuple[SelectionPolicy, ...]  # learned ones first, then by what they observe
    human: Human | None
    calibration: CalibrationFile | None
    people: PeopleFile | None  # whose ratings correct the judge's

    @property
    def held_out(self) -> bool:
        """Whether policies were evaluated on requests kept out of training."""
        return self.test is not self.table

    def thumbnail(self, request: int, provider: int) -> Thumbnail | None:
        """The picture of one pair, or None where the run kept none."""
        path = self.path / "pictures" / f"{request}-{provider}.jpg"
        return read(path, _thumbnail) if path.exists() else None


def load_run(directory: str | Path) -> SelectionRun:
    """Read a run directory. InputError where a file is missing, damaged or does not fit."""
    path = Path(directory)
    if not path.is_dir():
        raise InputError(f"{path} is not a run directory: give one that `rlli run` has written.")
    table = read(path / "table.npz", QoETable.load)
    files = opened(path)
    config = files["config"]
    population = read(
        path / "population.csv",
        lambda file: Population.from_csv(file, traits=_knows_traits(config)),
    )
    if population.names != table.users:
        raise InputError(
            f"{path / 'population.csv'} lists other users than {path / 'table.npz'}: "
            "restore the pair that belongs together."
        )
    train, test = read(path / "config.yaml", lambda _: _split(table, config))
    if (held_out := path / "held_out.npz").exists():
        test = read(held_out, QoETable.load)
    policies = load_policies(path, config, SelectionPolicy)
    for policy in policies:
        _require_fits(path, policy, test)
    human, calibrated = path / "human.json", path / "calibration.json"
    people = path / "people.json"
    known = {policy.name for policy in policies}
    return SelectionRun(
        **files,
        judge=table.judge,
        stand_in=table.stand_in,
        traits=population.traits,
        table=table,
        train=train,
        test=test,
        reference=read(path / "references.json", _references),
        policies=tuple(sorted(policies, key=_order)),
        human=read(human, lambda file: _human(file, known)) if human.exists() else None,
        calibration=CalibrationFile.read(calibrated) if calibrated.exists() else None,
        people=PeopleFile.read(people) if people.exists() else None,
    )


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


def _references(path: Path) -> References:
    references = References.read(path)
    require(references.optimum > 0, "the optimum is not positive, so no ratio to it exists")
    return references


def _human(path: Path, policies: set[str]) -> Human:
    human = Human.read(path)
    unknown = ", ".join(sorted(set(human.policies) - policies))
    require(not unknown, f"the run has no policy {unknown}")
    return human


def _require_fits(path: Path, policy: SelectionPolicy, table: QoETable) -> None:
    found, fits = policy.choices.shape, (len(policy.objective), *table.legal.shape)
    message = f"choices has shape {found} where {fits} fits the table"
    file = path / "policies" / policy.name / "evaluation.npz"
    read(file, lambda _: require(found == fits, message))


def _order(policy: SelectionPolicy) -> tuple[bool, int, tuple[str, ...]]:
    """Learned policies first, by what they observe; else as in the config."""
    return not policy.learned, len(policy.observation), policy.observation


def _thumbnail(path: Path) -> Thumbnail:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # a truncated file shows here and not in the reader's browser
        require(image.format == "JPEG", "it is no JPEG")
        width, height = image.size
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return Thumbnail(uri, width, height)
