"""One picture: decoded from its file only when somebody looks at it, and never trusted before.

A picture's identity is its pixels. ``Picture.digest`` is a hash of what was decoded, so the same
picture re-encoded without loss keeps its digest, and one changed pixel gives another.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from rlli_jax.errors import InputError, why

Pixels = NDArray[np.uint8]

# 8192 x 8192: above any photograph worth rating, and 192 MiB once decoded.
MAX_PIXELS = 2**26

# Only formats whose decoders run no outside program and that every browser shows.
FORMATS = ("PNG", "JPEG", "WEBP")

# What turns a picture upright, by its EXIF orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def decode(path: Path, content: bytes | None = None) -> Pixels:
    """Read a PNG, JPEG or WebP file as upright RGB: uint8 [H, W, 3].

    ``content``: of the file, if it is at hand; ``path`` is then only its name in messages.

    EXIF orientation is applied, transparency is flattened on white, 16-bit grey keeps its high
    byte, colour profiles are ignored, and of an animation the first frame counts. Other metadata
    do not matter, however large or damaged they are.

    Raises InputError if the file is missing or unreadable, is no such image, has more than
    MAX_PIXELS pixels (known from its header, before anything is decoded), or is damaged.
    """
    try:
        try:
            return _decode(path if content is None else io.BytesIO(content), path)
        except OSError as error:
            if error.errno is not None:  # of the file system
                raise
            first: Exception = error
        except InputError:
            raise
        except Exception as error:  # Pillow's decoders raise almost anything on damaged data
            first = error
        # Metadata that Pillow cannot or will not read may be all that is wrong.
        try:
            content = path.read_bytes() if content is None else content
            return _decode(io.BytesIO(_without_metadata(content)), path)
        except InputError:
            raise
        except Exception:
            raise first from None
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
    except Exception as error:
        raise InputError(
            f"The image {path} cannot be decoded ({why(error)}): it is truncated, damaged or "
            "unreadable; replace it."
        ) from error


def _decode(file: Path | io.BytesIO, path: Path) -> Pixels:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"is {width} x {height} pixels")
        return _upright_rgb(image)


def _without_metadata(content: bytes) -> bytes:
    """The file with what its pixels need, and the orientation where that can be kept."""
    if content.startswith(b"\x89PNG"):
        return content[:8] + b"".join(_png_chunks(content))
    if content.startswith(b"\xff\xd8"):
        return content[:2] + b"".join(_jpeg_segments(content))
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(content))
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    return content


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Critical chunks, transparency, and sound EXIF (PNG specification, third edition, 5)."""
    at = 8
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        kind, chunk = content[at + 4 : at + 8], content[at:end]
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and sound):
            yield chunk
        at = end


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    """All but comments and application data, of which JFIF's (0) and Adobe's (14) tell of colours
    (ITU-T T.81, annex B)."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        marker, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield content[at:end]
        at = end
    yield content[at:]


def _webp_chunks(content: bytes) -> Iterator[bytes]:
    """Pictures, transparency and animation, without profile, EXIF and XMP (RFC 9649, 2.7)."""
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        kind, end = content[at : at + 4], at + 8 + size + size % 2
        if kind == b"VP8X":  # announces what there is: only animation (2) and transparency (16)
            yield content[at : at + 8] + bytes([content[at + 8] & 0x12]) + content[at + 9 : end]
        elif kind not in (b"ICCP", b"EXIF", b"XMP "):
            yield content[at:end]
        at = end


def _too_large(path: Path, what: str) -> InputError:
    return InputError(
        f"The image {path} {what}, more than the limit of {MAX_PIXELS:,} pixels: scale it down."
    )


def _upright_rgb(image: Image.Image) -> Pixels:
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF that is none says nothing
        orientation = None
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
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
