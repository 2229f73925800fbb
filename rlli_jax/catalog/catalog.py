"""Who offers a picture for what: providers x requests -> pictures, from a manifest or a folder.

Names and paths are checked when a catalog is made; the images are decoded when they are looked
at, or all of them by ``Catalog.check``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from rlli_jax.catalog import studio
from rlli_jax.catalog.pictures import Picture
from rlli_jax.errors import InputError

COLUMNS = ("provider", "request", "image")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, eq=False)
class Catalog:
    """L providers, R requests and the pictures of the pairs that have one; the rest are holes."""

    providers: tuple[str, ...]
    requests: tuple[str, ...]
    pictures: Mapping[tuple[str, str], Picture] = field(repr=False)  # by (request, provider)
    # By image name: the pairs that use it. A name used twice cannot be located.
    images: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, repr=False)

    def picture(self, request: int, provider: int) -> Picture | None:
        """The picture for a request (0 to R-1) by a provider (0 to L-1); None for a hole."""
        return self.pictures.get((self.requests[request], self.providers[provider]))

    def offers(self, request: int, provider: int) -> bool:
        """Whether there is a picture for the pair, be it only the name of one."""
        return (self.requests[request], self.providers[provider]) in self._offered

    @cached_property
    def _offered(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.pictures).union(*self.images.values())

    def locate(self, image_name: str) -> tuple[str, str]:
        """The (request, provider) whose image has this name, as the manifest writes it.

        For a folder the name is ``provider/file.png``. Raises InputError for an unknown name and
        for one that several pairs share.
        """
        pairs = self.images.get(image_name, ())
        if len(pairs) != 1:
            how_many = f"{len(pairs)} images" if pairs else "no image"
            raise InputError(
                f"The catalog has {how_many} named {image_name!r}: give the request and the "
                "provider instead, or correct the name."
            )
        return pairs[0]

    def check(self) -> None:
        """Decode every picture, keeping none; raises InputError for the first bad one.

        Afterwards every picture's digest is known.
        """
        for picture in self.pictures.values():
            picture.digest  # noqa: B018 - decodes, and is kept

    @classmethod
    def from_manifest(cls, path: str | Path, pictures: bool = True) -> Catalog:
        """Read a CSV with the columns provider, request, image; further columns are ignored.

        ``image`` is relative to the manifest's folder and must stay inside it. Pairs without a
        row are holes. Providers and requests keep the order of their first row. With
        ``pictures=False`` only names are read: the files need not exist and every pair is a hole,
        yet ``locate`` works.

        Raises InputError, with file and line, for a manifest that is missing, unreadable or
        empty, a missing column, an empty cell, a second row for a pair, and an image that is
        missing or outside the folder.
        """
        path = Path(path)
        entries = []
        for line, (provider, request, image) in _manifest_rows(path):
            where = f"{path}, line {line}"
            picture = Picture.from_file(_inside(path.parent, image, where)) if pictures else None
            entries.append(_Entry(where, provider, request, image, picture))
        if not entries:
            raise InputError(f"{path} lists no images: add a row per provider and request.")
        return cls._from_entries(entries)

    @classmethod
    def from_folder(cls, path: str | Path) -> Catalog:
        """Read ``provider/request.png`` (or .jpg, .jpeg, .webp) below a folder.

        The request's text is the file's name without suffix, with _ and - as spaces. Providers
        and requests are sorted by name; hidden folders and other files are ignored.

        Raises InputError for a missing or empty folder, two files for one pair, and a link that
        leads out of the folder.
        """
        root = Path(path)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder: give one that holds provider/request.png.")
        entries = []
        for file in sorted(root.glob("*/*")):
            if file.suffix.lower() in SUFFIXES and not file.parent.name.startswith("."):
                image = file.relative_to(root).as_posix()
                request = " ".join(file.stem.replace("_", " ").replace("-", " ").split())
                picture = Picture.from_file(_inside(root, image, str(file)))
                entries.append(_Entry(str(file), file.parent.name, request, image, picture))
        if not entries:
            raise InputError(
                f"{root} holds no images: it needs a folder per provider with request.png inside."
            )
        catalog = cls._from_entries(entries)
        return replace(catalog, requests=tuple(sorted(catalog.requests)))

    @classmethod
    def studio(cls) -> Catalog:
        """The built-in studio: six photographs in the styles of four providers, no holes."""
        pictures = {
            (request, provider): Picture(
                f"studio: {request} by {provider}", partial(studio.render, request, provider)
            )
            for request in studio.REQUESTS
            for provider in studio.PROVIDERS
        }
        return cls(studio.PROVIDERS, studio.REQUESTS, pictures)

    @classmethod
    def _from_entries(cls, entries: Iterable[_Entry]) -> Catalog:
        pictures: dict[tuple[str, str], Picture] = {}
        images: dict[str, tuple[tuple[str, str], ...]] = {}
        first: dict[tuple[str, str], str] = {}
        for entry in entries:
            pair = entry.request, entry.provider
            if pair in first:
                raise InputError(
                    f"{entry.where}: provider {entry.provider!r} already has a picture for "
                    f"{entry.request!r} ({first[pair]}): keep one of the two."
                )
            first[pair] = entry.where
            images[entry.image] = (*images.get(entry.image, ()), pair)
            if entry.picture is not None:
                pictures[pair] = entry.picture
        requests, providers = (tuple(dict.fromkeys(names)) for names in zip(*first, strict=True))
        return cls(providers, requests, pictures, images)


@dataclass(frozen=True)
class _Entry:
    where: str  # for messages
    provider: str
    request: str
    image: str
    picture: Picture | None


def _manifest_rows(path: Path) -> Iterable[tuple[int, tuple[str, str, str]]]:
    """Yield (line number, (provider, request, image)), stripped of blanks around them."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}, line 1: column {missing[0]!r} is missing; a manifest needs the "
                    f"columns {', '.join(COLUMNS)}."
                )
            for row in reader:
                provider, request, image = ((row[name] or "").strip() for name in COLUMNS)
                for name, value in zip(COLUMNS, (provider, request, image), strict=True):
                    if not value:
                        raise InputError(
                            f"{path}, line {reader.line_num}: {name} is empty; fill it in, or "
                            "remove the row to leave a hole."
                        )
                yield reader.line_num, (provider, request, image)
    except FileNotFoundError:
        raise InputError(f"The manifest {path} is missing: check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The manifest {path} cannot be read ({error}): it must be a CSV file in UTF-8."
        ) from error


def _inside(root: Path, image: str, where: str) -> Path:
    """The resolved path of an image below ``root``, links followed; InputError if it is not."""
    try:
        path = (root / image).resolve()
        escapes = Path(image).is_absolute() or not path.is_relative_to(root.resolve())
        missing = not path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a null
        raise InputError(f"{where}: {image!r} is not a usable path ({error}); rename it.") from None
    if escapes:
        raise InputError(
            f"{where}: the image path {image!r} leads out of {root}; move the image into that "
            "folder and give its relative path."
        )
    if missing:
        raise InputError(f"{where}: the image {path} is missing; restore it or remove the entry.")
    return path
