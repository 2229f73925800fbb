"""The file of a sweep: a study with one more block, ``sweep``, which names the keys to vary.

``configs/sweep.yaml`` shows it. A key is a dotted path into the study, as in an override on the
command line.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from rlli_jax.checking import one_sentence
from rlli_jax.errors import InputError, shown
from rlli_jax.experiments.yaml_blocks import (
    Block,
    NumpySeed,
    Positive,
    StudyBlock,
    exactly_one,
    parse_as,
    set_key,
)

Point = dict[str, Any]  # key -> value
# What a sweep sets itself, or what no run depends on.
FIXED = ("name", "kind", "description", "seeds", "checkpoint_every", "sweep")


class Draw(Block):
    """How one key of a random sweep is drawn; exactly one of the four."""

    uniform: tuple[float, float] | None = None
    """Ends of the range."""
    log_uniform: tuple[float, float] | None = None
    """Ends of the range, above 0; every order of magnitude is equally likely."""
    integers: tuple[int, int] | None = None
    """Both ends included."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """Values, each equally likely."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Draw":
        given = [self.uniform, self.log_uniform, self.integers, self.choice]
        if sum(x is not None for x in given) != 1:
            raise ValueError("give exactly one of uniform, log_uniform, integers, choice")
        for ends in given[:3]:
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"the lower end comes first, but {ends[0]} >= {ends[1]}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError("log_uniform needs ends above 0")
        return self

    def sample(self, generator: np.random.Generator) -> Any:
        """One value, as a Python object."""
        if self.uniform is not None:
            return float(generator.uniform(*self.uniform))
        if self.log_uniform is not None:
            low, high = map(math.log, self.log_uniform)
            return float(math.exp(generator.uniform(low, high)))
        if self.integers is not None:
            return int(generator.integers(*self.integers, endpoint=True))
        assert self.choice is not None
        return self.choice[generator.integers(len(self.choice))]


class RandomDraw(Block):
    """Points drawn independently."""

    count: Positive
    """Number of points."""
    seed: NumpySeed = 0
    """All random numbers of the study follow from it."""
    keys: Annotated[dict[str, Draw], Field(min_length=1)]
    """How each key is drawn."""


class SweepBlock(Block):
    """What a sweep varies: exactly one of grid, points and random."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Every combination of the values."""
    points: list[Point] = Field(default_factory=list)
    """These and no others."""
    random: RandomDraw | None = None
    """Points drawn at random."""
    policies: tuple[str, ...] = ()
    """Which policies learn; all that can, if empty."""
    chunk: Positive | None = None
    """Runs side by side on one device. Results depend on it in the last bits, so it is chosen
    once, kept with the plan, and does not depend on the number of devices on a CPU."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Bound of all devices together."""

    @field_validator("points")
    @classmethod
    def _same_keys(cls, points: list[Point]) -> list[Point]:
        for i, point in enumerate(points):
            if not point or set(point) != set(points[0]):
                raise ValueError(
                    f"point {i + 1} has the keys {', '.join(point) or 'none'}, but point 1 has "
                    f"{', '.join(points[0]) or 'none'}; give every point the same keys"
                )
        return points

    @model_validator(mode="after")
    def _one_design(self) -> "SweepBlock":
        exactly_one(self, ("grid", "points", "random"))
        for key in self.keys:
            if key.split(".")[0] in FIXED:
                raise ValueError(f"{key} cannot be swept; set it in the study")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys."""
        if self.random is not None:
            return tuple(self.random.keys)
        return tuple(self.grid or self.points[0])

    def design(self) -> list[Point]:
        """Every point, in order: the last key of a grid varies fastest."""
        if self.grid:
            values = product(*self.grid.values())
            return [dict(zip(self.grid, point, strict=True)) for point in values]
        if self.random is None:
            return self.points
        generator = np.random.default_rng(self.random.seed)
        return [
            {key: draw.sample(generator) for key, draw in self.random.keys.items()}
            for _ in range(self.random.count)
        ]


@dataclass(frozen=True)
class Sweep:
    """A sweep as read: the block, and the study at every point."""

    block: SweepBlock
    study: Any  # before anything is varied
    points: list[Point]
    studies: list[Any]  # one for each point
    kind: Any  # rlli_jax.studies.StudyKind

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies that learn."""
        return self.block.policies or tuple(_learned(self.study))


def _learned(study: StudyBlock) -> list[str]:
    """Names of the policies that learn; none of a study that has no policies."""
    policies = getattr(study, "policies", {})
    return [name for name, policy in policies.items() if getattr(policy, "learns", False)]


def parse_sweep(content: dict[str, Any], source: str, folder: Path, kind: Any) -> Sweep:
    """Check the plain values of a file; paths in it are relative to ``folder``.

    ``kind``: the :class:`rlli_jax.studies.StudyKind` of the study that is varied.

    Raises:
        InputError: one sentence that names the source, the key (and the point) and what to do.
    """
    content = dict(content)
    given = content.pop("sweep", None)
    if not isinstance(given, dict):
        raise InputError(
            f"{source}: the block sweep is missing; it names the keys to vary, see "
            "configs/sweep.yaml."
        )
    try:
        block = SweepBlock.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{source}: sweep: {one_sentence(error, given, SweepBlock)}") from None
    config = kind.part("config")
    if refused := getattr(config, "not_swept", ""):
        raise InputError(f"{source}: sweep: {refused}.")
    study = parse_as(config, content, source=source, folder=folder)
    learned = _learned(study)
    for key in block.keys:
        if key.split(".")[0] in getattr(config, "unswept", ()):
            raise InputError(
                f"{source}: sweep: {key} cannot be swept, for no run of the sweep depends on it; "
                "remove it there."
            )
    for name in block.policies:
        if name not in learned:
            raise InputError(
                f"{source}: sweep.policies: {name!r} is no policy that learns; "
                f"choose of {', '.join(learned) or 'none'}."
            )
    if not learned:
        raise InputError(f"{source}: policies: none of them learns; a sweep needs one that does.")
    points, studies = block.design(), []
    for i, point in enumerate(points):
        changed = deepcopy(content)
        for key, value in point.items():
            set_key(changed, key, value, f"{source}: sweep")
        values = ", ".join(f"{key}={shown(value)}" for key, value in point.items())
        at = f"{source}, point {i + 1} of the sweep ({values})"
        studies.append(parse_as(config, changed, source=at, folder=folder))
    return Sweep(block, study, points, studies, kind)
