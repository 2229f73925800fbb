"""Where generated pictures are kept: plain files, each written whole or not at all.

::

    pictures/ab/abcd....png    the picture; its name is the SHA-256 of its bytes
    records/01/0123....json    how it was made (:class:`Kept`); its name is the key
    leases.sqlite              who is making what just now

A key is the SHA-256 of all that can change a picture. A picture is written before its record, so a
process that dies leaves at most a picture without a record, which is made again. A record whose
picture is gone or has other bytes counts as none. Folders can be copied into each other. Leases are
those of the store of answers (:mod:`rlli_jax.oracle.store`), in a file of its own; SQLite needs a
local disk.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from platformdirs import user_data_path

from rlli_jax.catalog.pictures import FORMATS, decode
from rlli_jax.errors import InputError
from rlli_jax.files import write_bytes
from rlli_jax.generation.base import Made, Refused, key_of
from rlli_jax.oracle.store import Store, open_store
from rlli_jax.run_files import Record

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


class Kept(Record):
    """How a picture was made, or why there is none."""

    settings: dict[str, Any]
    """All that can change it, the prompt among them."""
    picture: str | None = None
    """Name of its file; null for a prompt that was refused."""
    width: int | None = None
    """Pixels."""
    height: int | None = None
    """Pixels."""
    reason: str = ""
    """Why there is none."""
    seconds: float | None = None
    """What it took; a shared part is divided among the pictures that share it."""
    joules: float | None = None
    """Energy of the whole processor meanwhile; null where no counter can be read."""
    cost: float | None = None
    """In the currency of the price."""
    steps: int | None = None
    """Denoising steps that were run for it alone."""
    shared_steps: int = 0
    """Denoising steps that were run once for its group."""
    seconds_per_step: float | None = None
    """Of the denoising steps alone, without encoding and decoding."""
    made_at: float
    """Unix time."""


def default_folder() -> Path:
    """The store that is used if none is named, in the user's data folder."""
    return user_data_path("rlli_jax") / "pictures"


class PictureStore:
    """A folder of generated pictures; it is made when the first picture is.

    Args:
        folder: None for :func:`default_folder`.
        message: is told of what is damaged.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        message: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.folder = Path(folder or default_folder()).expanduser()
        self._message = message
        self._leases: Store | None = None

    def close(self) -> None:
        """Close the connections."""
        if self._leases is not None:
            self._leases.close()

    @property
    def leases(self) -> Store:
        """Who is making what. Raises InputError if the folder cannot be used."""
        if self._leases is None:
            self._leases = open_store(self.folder / "leases.sqlite", message=self._message)
        return self._leases

    def get(self, key: bytes) -> Kept | None:
        """What is kept under a key. A damaged record or picture counts as none, with a message."""
        path = self._record(key)
        if not path.exists():
            return None
        try:
            kept = Kept.read(path)
            sound = key_of(kept.settings) == key and (
                kept.picture is None or _digest(self.path(kept)) == Path(kept.picture).stem
            )
        except (InputError, OSError):
            sound = False
        if not sound:
            self._message(
                f"store of pictures: the record {path} or its picture is damaged; the picture is "
                "made again."
            )
            return None
        return kept

    def path(self, kept: Kept) -> Path:
        """The file of a picture that was made."""
        assert kept.picture is not None
        return self.folder / "pictures" / kept.picture[:2] / kept.picture

    def keep(self, settings: Mapping[str, Any], outcome: Made | Refused) -> Kept:
        """Keep a picture, or that there will be none.

        Raises:
            InputError: what was made is no picture, or the disk does not take it.
        """
        about: dict[str, Any] = {"settings": dict(settings), "made_at": time.time()}
        if isinstance(outcome, Refused):
            kept = Kept(reason=outcome.reason, cost=outcome.cost, **about)
        else:
            height, width = decode(Path("made"), outcome.content).shape[:2]
            name = hashlib.sha256(outcome.content).hexdigest() + _suffix(outcome.content)
            kept = Kept(
                picture=name,
                width=width,
                height=height,
                seconds=outcome.seconds,
                joules=outcome.joules,
                cost=outcome.cost,
                steps=outcome.steps,
                shared_steps=outcome.shared_steps,
                seconds_per_step=outcome.seconds_per_step,
                **about,
            )
            write_bytes(self.path(kept), outcome.content)
        kept.write(self._record(key_of(settings)))
        return kept

    def _record(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / "records" / name[:2] / f"{name}.json"


def fault_of(content: bytes, size: Sequence[int] | None = None) -> str:
    """Why the content of a file is no usable picture of a size (width, height); empty if it is."""
    try:
        height, width = decode(Path("what came back"), content).shape[:2]
    except InputError as error:
        return str(error).rstrip(".")
    if size is not None and (width, height) != tuple(size):
        return f"the picture is {width} x {height} pixels, not {size[0]} x {size[1]} as asked"
    return ""


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _suffix(content: bytes) -> str:
    import io

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return SUFFIX[str(image.format)]
