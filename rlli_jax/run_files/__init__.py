"""The files of a run directory: each class is the writer, the reader, the check and the
documentation of one. Knows no JAX.

Here is what all of them share; the modules beside are named for what their files are about, and
where a file is, is told in its class. ``config.yaml`` is the study itself, resolved; ``table.npz``
is a :class:`rlli_jax.qoe.QoETable`, ``population.csv`` a :class:`rlli_jax.personas.Population`.
"""

import csv
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

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
