"""The files of a run directory: each class is the writer, the reader, the check and the
documentation of one. Knows no JAX.

Where each is, is told in its class. ``config.yaml`` is the study itself, resolved; ``table.npz`` is
a :class:`rlli_jax.qoe.QoETable`, ``population.csv`` a :class:`rlli_jax.personas.Population`.
"""

import csv
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlli_jax.errors import InputError, why
from rlli_jax.files import whole, write_text

T = TypeVar("T")
Array = NDArray[Any]


def read(path: Path, parse: Callable[[Path], T]) -> T:
    """``parse(path)``, with every way in which a file can be bad turned into one sentence.

    Raises:
        InputError: the file is missing or damaged, or does not hold what it should.
    """
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
        raise InputError(
            f"{path} cannot be read ({why(error)}): restore it or repeat the run."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises OSError or ValueError."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all. Raises InputError where the disk refuses."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers whole or not at all. Raises InputError where the disk refuses."""
    with whole(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


class Record(BaseModel):
    """A JSON file. Keys of later versions are ignored; those of earlier ones have defaults."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        populate_by_name=True,
    )

    def write(self, path: Path) -> None:
        """Write it whole or not at all. Raises InputError where the disk refuses."""
        write_json(path, self.model_dump(mode="json", by_alias=True))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError, one sentence that names the file, if it cannot be read."""
        return read(path, lambda file: cls.checked(cls._content(file)))

    @classmethod
    def checked(cls, content: Mapping[str, Any]) -> Self:
        """Raises KeyError or ValueError for the first thing that is wrong."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            if first["type"] == "missing" and isinstance(first["loc"][-1], str):
                raise KeyError(where) from None
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {message}" if where else message) from None

    @classmethod
    def _content(cls, path: Path) -> dict[str, Any]:
        return read_json(path)


class Dims(tuple[str, ...]):
    """Names of an array's dimensions; "..." at the end stands for any more."""


def dims(names: str) -> Any:
    """The type of an array with these dimensions; a name has one length within a file."""
    return Annotated[np.ndarray, Dims(names.split())]


class Arrays(Record):
    """A file of named arrays, .npz."""

    model_config = ConfigDict(extra="allow")

    def write(self, path: Path) -> None:
        """Write it whole or not at all. Raises InputError where the disk refuses."""
        write_npz(path, self.arrays())

    def arrays(self) -> dict[str, np.ndarray]:
        """All of them, by name."""
        return {name: x for name, x in self if isinstance(x, np.ndarray)}

    @classmethod
    def _content(cls, path: Path) -> dict[str, Any]:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        sizes: dict[str, int] = {}
        for name, field in type(self).model_fields.items():
            array = getattr(self, name)
            for names in (part for part in field.metadata if isinstance(part, Dims)):
                more = names[-1] == "..."
                known = names[:-1] if more else names
                fits = array.ndim >= len(known) if more else array.ndim == len(known)
                fits = fits and all(
                    sizes.setdefault(dim, length) == length
                    for dim, length in zip(known, array.shape, strict=False)
                )
                if not fits:
                    raise ValueError(f"{name} is not [{', '.join(names)}]")
        return self


class Summary(Record):
    """``policies/<name>/summary.json``, the last file of a policy: it says that it is finished."""

    name: str
    learner: str
    seeds: int = 0
    iterations: int | None = None
    """None, like all that follows, for a policy that does not learn."""
    env_steps: int | None = None
    """Of one seed."""
    compile_seconds: float | None = None
    """0 where an equal policy had been compiled before, by the same process."""
    train_seconds: float | None = None
    """Of all seeds together, without compilation and checkpoints."""
    steps_per_second: float | None = None


class SelectionSummary(Summary):
    """Of a policy in a study of provider selection."""

    assignment: str
    observation: tuple[str, ...]
    rounds: int
    encoder: str | None = None
    """Of the observation part request_text, in words."""


class MarketSummary(Summary):
    """Of a policy in a study of the edge market."""

    observation: tuple[str, ...]
    mask: bool
    reward: str
    """What it learned from: "paid", or "regret"."""


class SessionSummary(Summary):
    """Of a policy in a study of sessions."""

    observation: tuple[str, ...]


class Curve(Arrays):
    """``policies/<name>/curve.npz``: every metric of training, [seeds, iterations] float32."""

    env_steps: dims("iterations")  # type: ignore[valid-type]
    """Of one seed."""
    episode_return: dims("seeds iterations")  # type: ignore[valid-type]
    """Mean over the episodes that ended; NaN where none did."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not len(self.env_steps):
            raise ValueError("episode_return is not [seeds, iterations]")
        return self


class Evaluation(Arrays):
    """``policies/<name>/evaluation.npz``: what a policy does when it is judged, and more sums."""

    returns: dims("seeds episodes")  # type: ignore[valid-type]


class SelectionEvaluation(Evaluation):
    """Of a study of provider selection; returns are rounds x the sum over users of QoE."""

    choices: dims("seeds users requests providers")  # type: ignore[valid-type]
    """How often each provider was chosen."""
    qoe: dims("seeds users")  # type: ignore[valid-type]
    """Expected, of each user, every request weighing alike."""
    objective: dims("seeds")  # type: ignore[valid-type]
    """QoE summed over users, Eq. (2)."""
    # With held-out users also others_choices and others_qoe, as the two above.


class MarketEvaluation(Evaluation):
    """Of a study of the edge market: sums over each episode of ``EdgeMarket.statistics``."""

    tasks: dims("seeds episodes")  # type: ignore[valid-type]
    finished: dims("seeds episodes")  # type: ignore[valid-type]
    crashed: dims("seeds episodes")  # type: ignore[valid-type]
    lost: dims("seeds episodes")  # type: ignore[valid-type]
    utility: dims("seeds episodes")  # type: ignore[valid-type]
    load: dims("seeds episodes ...")  # type: ignore[valid-type]
    """Denoising steps assigned to each provider."""


class SessionEvaluation(Evaluation):
    """Of a study of sessions; returns are the sum of what was felt in a session."""

    felt: dims("seeds turns")  # type: ignore[valid-type]
    """Expected QoE in each turn."""


class SessionReferences(Record):
    """``references.json`` of sessions: what one is worth, with the people of evaluation."""

    turns: int
    people: tuple[int, int]
    """To learn from, and of evaluation."""
    random: float
    """Uniformly random choices, exact."""
    best_without_adapting: float
    """The best of all policies that ignore what is felt, exact."""
    known_person: float
    """The best that knows a person's row of the table, but no taste of the moment, exact."""
    hindsight: list[float]
    """Of sampled sessions whose person, requests and tastes are known: a bound on any policy."""


class References(Record):
    """``references.json`` of provider selection: exact values on the evaluation requests, each the
    objective of Eq. (2) for one round."""

    optimum: float
    optimum_per_request: float
    best: tuple[str, float] = Field(alias="best_single")
    random: float
    providers: dict[str, float]

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.optimum <= 0:
            raise ValueError("the optimum is not positive, so no ratio to it exists")
        return self

    @property
    def best_single(self) -> float:
        """What the best single provider is worth."""
        return self.best[1]

    @property
    def best_single_provider(self) -> str:
        """Its name."""
        return self.best[0]


class MarketReferences(Record):
    """``references.json`` of the edge market."""

    split: str = "tuning"
    """Of the evaluation episodes: "test", or "tuning", on which settings are chosen; runs that do
    not say were judged by what are the tuning episodes now."""
    optimum: list[float] | None = None
    """Return of each episode under the offline optimum."""
    tasks: list[int] = []
    """Served in each episode."""
    tasks_per_episode: float | None = None
    """Expected."""


class HumanReferences(Record):
    """What people think of simple choices."""

    random: float
    best_single: float
    best_single_provider: str
    best_per_request: float


class Human(Record):
    """``human.json``: people's scores of what each policy chose, on requests kept out of
    training."""

    scale: str
    requests: int
    references: HumanReferences
    policies: dict[str, list[float]]
    """[seeds] of each policy."""


Interval = tuple[float, float, float]  # value, and the ends of its 95 % interval; NaN for none


class Served(Record):
    """What serving held-out users in some way is worth to them."""

    qoe: Interval
    """Mean over the users, in [0, 1]."""
    of_optimum: Interval
    """Divided by that of the optimum."""


class HeldOutUsers(Record):
    """``held_out_users.json``: what policies are worth to people whom neither learners nor whatever
    was fitted had met. Intervals are over these people, and over seeds where there are enough."""

    users: int
    requests: int
    best_single_provider: str
    """The one that is best for the users of the table."""
    references: dict[str, Served]
    """optimum (one provider a user, by what the judge says of that user), best_single, random."""
    policies: dict[str, Served]
    over: str
    """What the intervals of learned policies are over."""


class PeopleFile(Record):
    """``people.json``: what ratings of people did to the judge's table."""

    log: str
    prior: Literal["judge", "none"]
    people: int
    ratings: int
    cells: int
    rest_on_people: int
    """Cells of which ratings tell at least half of how far people are from the judge."""
    trust: float | None
    """QoE of people for each of the judge's; None without it."""
    gain: tuple[float, float, float] | None
    """Squared error of predicting people who were not seen, less that with the judge, and its 95 %
    interval over people."""
    warning: str
    """Where the judge as prior hurts, or nothing."""
    providers: dict[str, tuple[int, float, float]]
    """Ratings; mean QoE of its cells by the judge, and by judge and people."""


class PeopleRatings(Arrays):
    """``people_ratings.npz``: what a table rests on; traits on the 1-5 scale, QoE from 0 to 1."""

    traits: dims("ratings traits")  # type: ignore[valid-type]
    provider: dims("ratings")  # type: ignore[valid-type]
    """Names."""
    qoe: dims("ratings")  # type: ignore[valid-type]


class CalibrationPoint(Record):
    """Human QoE of the choices, by the number of requests with human scores."""

    requests: int
    scores: float = 0.0
    """Human scores, mean over the draws."""
    value: Interval
    without_judges: Interval | None
    """None where nobody scored."""


class CalibrationFile(Record):
    """``calibration.json``: what people's scores did to the table; values as QoE in [0, 1]."""

    requests: int
    scores: int
    weights: Mapping[str, Interval]
    """Of each judge."""
    offsets: Mapping[str, Interval]
    """Of each provider."""
    curve: list[CalibrationPoint]


class TeachingTask(Record):
    """``task.json`` of a teaching study."""

    name: str
    texts: list[str]
    advice: list[str]
    teacher: str
    """Name of the language model."""
    stand_in: bool
    env_steps_per_iteration: dict[str, int]
    """Of each case."""
    expert: list[int]
    """The expert's advice for each text."""
    metric: str
    """By which a student is judged: "success" or "return"."""
    expert_value: dict[str, float]
    """What following the expert is worth, exactly."""
    references: dict[str, dict[str, float]] = {}
    """What chance and the best constant policy are worth, exactly, by name: ``accuracy`` (the
    expert's probability of what they do, mean over texts), ``return``, ``success``."""


class PlannedGroup(Record):
    """Runs of a sweep that one compiled program serves."""

    learner: str
    varies: dict[str, str]
    """Swept keys that have one value in this group but several in the sweep."""
    chunk: int
    """Runs side by side on one device."""
    runs: list[tuple[int, str, int]]
    """Point, policy and seed."""


class SweepPlan(Record):
    """``plan.json`` of a sweep: what ran beside what, and in which chunk its result is."""

    runs: int
    groups: list[PlannedGroup]
