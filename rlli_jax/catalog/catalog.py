"""Who offers a picture for what: providers x requests -> pictures, from a manifest or a folder.

Names and paths are checked when a catalog is made; the images are decoded when they are looked
at, or all of them by ``Catalog.check``.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rlli_jax.catalog import studio
from rlli_jax.catalog.descriptions import LONGEST_CAPTION, describe
from rlli_jax.catalog.pictures import Picture
from rlli_jax.errors import InputError, listed

COLUMNS = ("provider", "request", "image")
CAPTION = "caption"
OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, eq=False)
class Catalog:
    """L providers, R requests and the pictures of the pairs that have one; the rest are holes."""

    providers: tuple[str, ...]
    """L names."""
    requests: tuple[str, ...]
    """R texts."""
    pictures: Mapping[tuple[str, str], Picture] = field(repr=False)
    """By (request, provider); read from disk when they are looked at."""
    images: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, repr=False)
    """By image name: the pairs that use it. A name used twice cannot be located."""
    file_names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """How names of files spell a request (city_night, city_night.png) -> the request."""
    captions: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    """By (request, provider): the picture in words, for judges that only read."""
    made: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """By (request, provider): how a generated picture was made, or why there is none."""

    def __repr__(self) -> str:
        return (
            f"Catalog({len(self.requests)} requests x {len(self.providers)} providers, "
            f"{len(self._offered)} pictures)"
        )

    def picture(self, request: int, provider: int) -> Picture | None:
        """The picture for a request (0 to R-1) by a provider (0 to L-1); None for a hole."""
        return self.pictures.get((self.requests[request], self.providers[provider]))

    def description(self, request: int, provider: int) -> str | None:
        """The picture of a pair in words, see :mod:`rlli_jax.catalog.descriptions`; None for a
        hole. Raises InputError as ``Picture.pixels`` does."""
        pair = self.requests[request], self.providers[provider]
        return describe(self.picture(request, provider), self.captions.get(pair))

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

    def spellings(self, kind: str) -> Mapping[str, str]:
        """Every way in which the catalog's files spell a request or a provider -> its name."""
        names = self.requests if kind == "request" else self.providers
        return (dict(self.file_names) if kind == "request" else {}) | {n: n for n in names}

    def check(self) -> None:
        """Decode every picture, keeping none; raises InputError for the first bad one.

        Afterwards every picture's digest is known.
        """
        for picture in self.pictures.values():
            picture.digest  # noqa: B018 - decodes, and is kept

    @classmethod
    def from_manifest(cls, path: str | Path, pictures: bool = True) -> Catalog:
        """Read a table with the columns provider, request, image, and maybe ``caption``, the
        picture in words; further columns are ignored.

        It may be CSV, TSV, Parquet or Excel, see :mod:`rlli_jax.tabular`.

        ``image`` is relative to the manifest's folder and must stay inside it. Pairs without a
        row are holes. Providers and requests keep the order of their first row. With
        ``pictures=False`` only names are read: the files need not exist and every pair is a hole,
        yet ``locate`` works.

        Raises InputError, with file and row, for a manifest that is missing, unreadable or
        empty, a missing column, an empty cell, a second row for a pair, and an image that is
        missing or outside the folder.
        """
        path = Path(path)
        entries = []
        for where, (provider, request, image), caption in _manifest_rows(path):
            picture = Picture.from_file(_inside(path.parent, image, where)) if pictures else None
            entries.append(_Entry(where, provider, request, image, picture, caption))
        return cls._from_entries(entries)

    @classmethod
    def from_folder(cls, path: str | Path) -> Catalog:
        """Read ``provider/request.png`` (or .jpg, .jpeg, .webp) below a folder.

        The request's text is the file's name without suffix, with _ and - as spaces; scores may
        name it by the file's name too. Providers and requests are sorted by name. What begins
        with a dot, and ``__MACOSX``, is ignored; other files are left out with a warning.

        Raises InputError for a missing or empty folder, two files for one pair, and a link that
        leads out of the folder.
        """
        root = Path(path)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder: give one that holds provider/request.png.")
        entries: list[_Entry] = []
        others: list[str] = []
        file_names: dict[str, str] = {}
        for file in sorted(root.glob("*/*")):
            if any(part.startswith(".") or part == "__MACOSX" for part in file.parts[-2:]):
                continue
            image = file.relative_to(root).as_posix()
            if file.suffix.lower() not in SUFFIXES:
                others += [image] * (file.is_file() and file.name not in OF_THE_SYSTEM)
                continue
            request = " ".join(file.stem.replace("_", " ").replace("-", " ").split())
            file_names |= {file.stem: request, file.name: request}
            picture = Picture.from_file(_inside(root, image, str(file)))
            entries.append(_Entry(str(file), file.parent.name, request, image, picture))
        left_out = f"files that are no {', '.join(SUFFIXES)} ({len(others)}): {listed(others)}"
        if not entries:
            raise InputError(
                f"{root} holds no images: it needs a folder per provider with request.png inside"
                f"{f' ({left_out})' if others else ''}."
            )
        if others:
            warnings.warn(f"{root}: left out {left_out}.", stacklevel=2)
        catalog = cls._from_entries(entries)
        return replace(catalog, requests=tuple(sorted(catalog.requests)), file_names=file_names)

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
        captions: dict[tuple[str, str], str] = {}
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
            if entry.caption:
                captions[pair] = entry.caption
        requests, providers = (tuple(dict.fromkeys(names)) for names in zip(*first, strict=True))
        return cls(providers, requests, pictures, images, captions=captions)


def near_misses(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` with the known names that are nearest, or some of them."""
    known = list(known)
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), 3)
    if close:
        return f"; did you mean {' or '.join(repr(folded[other]) for other in close)}?"
    return f"; it has {listed(known)}"


@dataclass(frozen=True)
class _Entry:
    where: str  # for messages
    provider: str
    request: str
    image: str
    picture: Picture | None
    caption: str = ""


def _manifest_rows(path: Path) -> Iterable[tuple[str, tuple[str, str, str], str]]:
    """Yield (where it stands, (provider, request, image), caption), stripped of blanks around."""
    from rlli_jax.tabular import read_table  # and with it pandas

    table = read_table(path, "a provider, a request and an image")
    advice = f"a manifest needs the columns {', '.join(COLUMNS)}"
    columns = [table.require(name, advice=advice) for name in COLUMNS]
    told = table.find(CAPTION)
    captions = [""] * len(table.frame) if told is None else table.frame[told].tolist()
    rows = zip(table.frame.index, table.frame[columns].to_numpy(), captions, strict=True)
    for row, cells, caption in rows:
        where = f"{path}, row {row} below the header"
        for name, value in zip(COLUMNS, cells, strict=True):
            if not value:
                raise InputError(
                    f"{where}: {name} is empty; fill it in, or remove the row to leave a hole."
                )
        if len(caption) > LONGEST_CAPTION:
            raise InputError(
                f"{where}: the caption has {len(caption):,} characters; shorten it to at most "
                f"{LONGEST_CAPTION:,}, or leave it empty."
            )
        provider, request, image = cells
        yield where, (provider, request, image), caption


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
