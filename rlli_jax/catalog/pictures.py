"""One picture: decoded from its file only when somebody looks at it, and never trusted before.

A picture's identity is its pixels. ``Picture.digest`` is a hash of what was decoded, so the same
picture re-encoded without loss keeps its digest, and one changed pixel gives another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rlli_jax.errors import InputError

Pixels = NDArray[np.uint8]

# 8192 x 8192: above any photograph worth rating, and 192 MiB once decoded.
MAX_PIXELS = 2**26

# Only formats whose decoders run no outside program and that every browser shows.
FORMATS = ("PNG", "JPEG", "WEBP")


class Picture:
    """An RGB picture behind a function that yields its pixels.

    Pixels are decoded anew on each access, so that a catalog of thousands of pictures needs no
    memory for them; the digest is kept. ``name`` says in messages where the picture comes from.
    """

    def __init__(self, name: str, load: Callable[[], Pixels]) -> None:
        self.name = name
        self._load = load

    @classmethod
    def from_file(cls, path: Path) -> Picture:
        """The picture in a PNG, JPEG or WebP file; opened when its pixels are asked for."""
        return cls(str(path), partial(decode, path))

    @property
    def pixels(self) -> Pixels:
        """uint8 [H, W, 3], RGB, upright. Raises InputError as ``decode`` does."""
        return self._load()

    @cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the shape (two little-endian int64: H, W) and the RGB bytes."""
        pixels = self.pixels
        shape = np.asarray(pixels.shape[:2], dtype="<i8")
        return hashlib.sha256(shape.tobytes() + pixels.tobytes()).hexdigest()

    def __repr__(self) -> str:
        return f"Picture({self.name!r})"


def decode(path: Path) -> Pixels:
    """Read a PNG, JPEG or WebP file as upright RGB: uint8 [H, W, 3].

    EXIF orientation is applied, transparency is flattened on white, 16-bit grey keeps its high
    byte, colour profiles are ignored, and of an animation the first frame counts.

    Raises InputError if the file is missing or unreadable, is no such image, has more than
    MAX_PIXELS pixels (known from its header, before anything is decoded), or is damaged.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"is {width} x {height} pixels")
            return _upright_rgb(image)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's own limit is wider, so it meets only what is too large for us as well.
        raise _too_large(path, "is too large to decode") from None
    except FileNotFoundError:
        raise InputError(f"The image {path} is missing: restore it or drop it.") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{path} is not a PNG, JPEG or WebP image: convert it or drop it."
        ) from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise InputError(
            f"The image {path} cannot be decoded ({error}): it is truncated, damaged or "
            "unreadable; replace it."
        ) from error


def _too_large(path: Path, what: str) -> InputError:
    return InputError(
        f"The image {path} {what}, more than the limit of {MAX_PIXELS:,} pixels: scale it down."
    )


def _upright_rgb(image: Image.Image) -> Pixels:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow would clip the 16-bit values at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def shrink(pixels: Pixels, long_side: int) -> Pixels:
    """Scale uint8 [H, W, 3] down, anti-aliased, so that its longer side is at most ``long_side``.

    A picture that is small enough comes back as it is.
    """
    height, width = pixels.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
