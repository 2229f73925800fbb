"""A run directory, read into small dataclasses. Files only: no JAX, no training code.

Every missing or damaged file ends in one :class:`~rlli_jax.errors.InputError` that names it.
"""

import base64
import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable

T = TypeVar("T")
Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """Metrics of one learned policy while it trained."""

    env_steps: Array  # [iterations], environment steps of one seed
    episode_return: Array  # [seeds, iterations], NaN where no episode ended


@dataclass(frozen=True)
class Policy:
    """One policy: how it was made, and what it does when evaluated."""

    name: str
    learner: str
    assignment: str
    observation: tuple[str, ...]
    rounds: int
    seeds: int
    iterations: int | None
    env_steps: int | None  # per seed
    compile_seconds: float | None
    train_seconds: float | None  # all seeds together
    steps_per_second: float | None
    returns: Array  # [seeds, episodes], rounds x sum over users of QoE
    choices: Array  # [seeds, K, R, L] counts
    qoe: Array  # [seeds, K] expected QoE of each user
    objective: Array  # [seeds], QoE summed over users
    curve: Curve | None

    @property
    def learned(self) -> bool:
        return self.curve is not None


@dataclass(frozen=True)
class Reference:
    """Exact values on the evaluation requests, each the objective of Eq. (2) for one round."""

    optimum: float
    optimum_per_request: float
    best_single: float
    best_single_provider: str
    random: float
    providers: dict[str, float]


@dataclass(frozen=True)
class Human:
    """Human opinion scores of what each policy chose, on requests kept out of training."""

    scale: str
    requests: int
    random: float
    best_single: float
    best_single_provider: str
    best_per_request: float
    policies: dict[str, Array]  # name -> [seeds]


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
    reference: Reference
    policies: tuple[Policy, ...]  # learned ones first, then by what they observe
    human: Human | None

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
    human = path / "human.json"
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
        reference=read(path / "references.json", _reference),
        policies=tuple(sorted(policies, key=lambda policy: _order(policy, config))),
        human=read(human, lambda file: _human(file, known)) if human.exists() else None,
    )


def read(path: Path, parse: Callable[[Path], T]) -> T:
    """``parse(path)``, with every way in which a file can be bad turned into one sentence."""
    try:
        return parse(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: the run is not finished, or this is no run directory."
        ) from None
    except KeyError as error:
        raise InputError(f"{path} has no entry {error}: repeat the run that wrote it.") from None
    except (
        AttributeError,
        EOFError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        csv.Error,
        yaml.YAMLError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} cannot be read ({reason}): restore it or repeat the run."
        ) from None


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    require(isinstance(value, dict), "it is no JSON object")
    return dict(value)


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


def _reference(path: Path) -> Reference:
    value = read_json(path)
    name, single = value["best_single"]
    reference = Reference(
        optimum=float(value["optimum"]),
        optimum_per_request=float(value["optimum_per_request"]),
        best_single=float(single),
        best_single_provider=str(name),
        random=float(value["random"]),
        providers={str(k): float(v) for k, v in value["providers"].items()},
    )
    require(reference.optimum > 0, "the optimum is not positive, so no ratio to it exists")
    return reference


def _human(path: Path, policies: set[str]) -> Human:
    value = read_json(path)
    unknown = ", ".join(sorted(set(value["policies"]) - policies))
    require(not unknown, f"the run has no policy {unknown}")
    reference = value["references"]
    return Human(
        scale=str(value["scale"]),
        requests=int(value["requests"]),
        random=float(reference["random"]),
        best_single=float(reference["best_single"]),
        best_single_provider=str(reference["best_single_provider"]),
        best_per_request=float(reference["best_per_request"]),
        policies={str(k): np.asarray(v, np.float64) for k, v in value["policies"].items()},
    )


def _policy(folder: Path, table: QoETable) -> Policy:
    summary = read(folder / "summary.json", read_json)
    curve = folder / "curve.npz"

    def evaluation(path: Path) -> dict[str, Array]:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("returns", "choices", "qoe", "objective")}
        seeds, users = len(arrays["objective"]), len(table.users)
        expected = {"choices": (seeds, *table.legal.shape), "qoe": (seeds, users)}
        for key, shape in expected.items():
            found = arrays[key].shape
            require(found == shape, f"{key} has shape {found} where {shape} fits the table")
        require(arrays["returns"].shape[:1] == (seeds,), "returns and objective differ in seeds")
        return arrays

    def build(_: Path) -> Policy:
        return Policy(
            name=str(summary["name"]),
            learner=str(summary["learner"]),
            assignment=str(summary["assignment"]),
            observation=tuple(map(str, summary["observation"])),
            rounds=int(summary["rounds"]),
            seeds=int(summary["seeds"]),
            iterations=optional(int, summary["iterations"]),
            env_steps=optional(int, summary["env_steps"]),
            compile_seconds=optional(float, summary["compile_seconds"]),
            train_seconds=optional(float, summary["train_seconds"]),
            steps_per_second=optional(float, summary["steps_per_second"]),
            curve=read(curve, read_curve) if curve.exists() else None,
            **read(folder / "evaluation.npz", evaluation),
        )

    return read(folder / "summary.json", build)


def _order(policy: Policy, config: dict[str, Any]) -> tuple[bool, int, tuple[str, ...], int, str]:
    """Learned policies first, by what they observe; else as in the config."""
    names = list(config.get("policies", ()))
    place = names.index(policy.name) if policy.name in names else len(names)
    return not policy.learned, len(policy.observation), policy.observation, place, policy.name


def optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)


def read_curve(path: Path) -> Curve:
    with np.load(path, allow_pickle=False) as file:
        curve = Curve(env_steps=file["env_steps"], episode_return=file["episode_return"])
    require(
        curve.env_steps.ndim == 1
        and curve.episode_return.ndim == 2
        and curve.episode_return.shape[1] == len(curve.env_steps) > 0,
        "episode_return is not [seeds, iterations]",
    )
    return curve


def _thumbnail(path: Path) -> Thumbnail:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # a truncated file shows here and not in the reader's browser
        require(image.format == "JPEG", "it is no JPEG")
        width, height = image.size
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return Thumbnail(uri, width, height)
