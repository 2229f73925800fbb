"""The providers of an edge market: how much each can run at once and what its pictures are worth.

The draw of the fleet moves the level of every return, so a fleet is part of a result: sample it
once by seed, save it with the run, publish it. Host side, numpy only.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlli_jax.errors import InputError, why
from rlli_jax.files import whole, write_text

# Ranges of the AGOD simulator (Du et al., IEEE TMC 23(9), 2024; env/config.py of its public code).
CAPACITIES = np.arange(400, 1000, 100)
UTILITY_RANGES = (
    np.arange(0, 100, 10),  # ax
    np.arange(0.0, 0.5, 0.05),  # ay
    np.arange(150, 250, 10),  # bx
    np.arange(0.5, 1.0, 0.05),  # by
)


@dataclass(frozen=True)
class Fleet:
    """L providers.

    Attributes:
        capacity: int32 [L], denoising steps that a provider runs at once.
        utility: float32 [L, 4], (ax, ay, bx, by): a picture of t denoising steps is worth 0 below
            ax, by - ay from bx on, and in between it rises linearly from 0.
        pace: float32 [L], factors of the market's runtime, such as
            :mod:`rlli_jax.generation.measuring` finds; None: all providers are alike, as in AGOD.

    Raises:
        InputError: no provider, a capacity that is not a positive whole number, coefficients
            that are not finite with ax < bx and ay <= by, or a pace that is not positive.
    """

    capacity: np.ndarray
    utility: np.ndarray
    pace: np.ndarray | None = None

    def __post_init__(self) -> None:
        capacity, utility = _numbers(self.capacity, "capacity"), _numbers(self.utility, "utility")
        if capacity.size == 0:
            raise InputError("the fleet is empty: give at least one provider")
        if capacity.ndim != 1 or utility.shape != (capacity.size, 4):
            raise InputError(
                f"the fleet has capacity of shape {capacity.shape} and utility of shape "
                f"{utility.shape}: give one capacity and four coefficients (ax, ay, bx, by) "
                "for each provider"
            )
        for i, (room, (ax, ay, bx, by)) in enumerate(zip(capacity, utility, strict=True)):
            if not (room > 0 and room == np.floor(room) and room < 2**31):
                raise InputError(
                    f"provider {i} of the fleet has capacity {room:g}: "
                    "a capacity is a positive whole number of denoising steps"
                )
            if not (np.isfinite([ax, ay, bx, by]).all() and ax < bx and ay <= by):
                raise InputError(
                    f"provider {i} of the fleet has utility coefficients "
                    f"({ax:g}, {ay:g}, {bx:g}, {by:g}): (ax, ay, bx, by) must be finite with "
                    "ax < bx and ay <= by"
                )
        if self.pace is not None:
            pace = _numbers(self.pace, "pace")
            if pace.shape != capacity.shape or not (np.isfinite(pace) & (pace > 0)).all():
                raise InputError(
                    f"pace of the fleet is {pace.tolist()}: give a positive factor of the runtime "
                    "for each provider"
                )
            object.__setattr__(self, "pace", pace.astype(np.float32))
        object.__setattr__(self, "capacity", capacity.astype(np.int32))
        object.__setattr__(self, "utility", utility.astype(np.float32))

    def __len__(self) -> int:
        return len(self.capacity)

    def save(self, path: str | Path) -> None:
        """Writes ``path``, as JSON or as npz by its suffix; :func:`load_fleet` reads it back.

        Raises:
            InputError: another suffix, or the file cannot be written.
        """
        path = Path(path)
        arrays = {"capacity": self.capacity, "utility_coefs": self.utility}
        if self.pace is not None:
            arrays["pace"] = self.pace
        if path.suffix == ".json":
            rows = {name: array.tolist() for name, array in arrays.items()}
            write_text(path, json.dumps(rows, indent=1) + "\n")
        elif path.suffix == ".npz":
            with whole(path) as partial:
                np.savez(partial, **arrays)  # type: ignore[arg-type]
        else:
            raise InputError(f"{path}: a fleet is saved as .json or .npz, choose one of the two")


def sample_fleet(seed: int, providers: int = 20) -> Fleet:
    """Draws a fleet from the ranges of AGOD: each coefficient and capacity uniform, independent."""
    if providers < 1:
        raise InputError(f"a fleet of {providers} providers is empty: ask for at least one")
    rng = np.random.default_rng(seed)
    utility = np.stack([rng.choice(values, providers) for values in UTILITY_RANGES], axis=1)
    return Fleet(rng.choice(CAPACITIES, providers), utility)


def load_fleet(path: str | Path) -> Fleet:
    """Reads a fleet from JSON or npz with the keys ``capacity`` [L] and ``utility_coefs`` [L, 4],
    and maybe ``pace`` [L].

    The recorded episodes of AGOD hold these keys, so they load as fleets too.

    Raises:
        InputError: the file is missing, of another kind, lacks a key, or holds an impossible fleet.
    """
    path = Path(path)
    if path.suffix not in (".json", ".npz"):
        raise InputError(f"{path}: a fleet is read from .json or .npz, give one of the two")
    if not path.is_file():
        raise InputError(f"{path}: there is no such fleet file, check the path")
    try:
        if path.suffix == ".json":
            loaded = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(loaded, dict):
                raise InputError(
                    f"{path}: the file holds no object, give {{'capacity': [...], "
                    "'utility_coefs': [[ax, ay, bx, by], ...]}"
                )
        else:
            with np.load(path, allow_pickle=False) as data:
                loaded = {k: data[k] for k in ("capacity", "utility_coefs", "pace") if k in data}
    except InputError:
        raise
    except Exception as error:  # each format has its own errors for a damaged file
        raise InputError(
            f"{path}: the file cannot be read as a fleet ({why(error)}), save it again"
        ) from error
    for key in ("capacity", "utility_coefs"):
        if key not in loaded:
            raise InputError(f"{path}: the key {key!r} is missing, give it for every provider")
    try:
        return Fleet(loaded["capacity"], loaded["utility_coefs"], loaded.get("pace"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _numbers(values: object, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} of the fleet is no array of numbers: give numbers only"
        ) from error
