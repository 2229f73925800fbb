"""Decoding: what a picture's pixels and digest are, and which files are turned away."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlli_jax.catalog import Picture
from rlli_jax.catalog.pictures import MAX_PIXELS, _without_metadata, decode, shrink
from rlli_jax.errors import InputError


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_digest_is_of_the_pixels_not_of_the_file(tmp_path: Path, noise: np.ndarray) -> None:
    image = Image.fromarray(noise)
    image.save(tmp_path / "a.png", compress_level=0)
    image.save(tmp_path / "b.png", compress_level=9)
    image.save(tmp_path / "c.webp", lossless=True)
    noise[3, 4, 1] ^= 1
    Image.fromarray(noise).save(tmp_path / "d.png")

    a, b, c, d = (
        Picture.from_file(tmp_path / n).digest for n in ("a.png", "b.png", "c.webp", "d.png")
    )
    assert a == b == c
    assert d != a
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_digest_depends_on_the_shape() -> None:
    flat = np.zeros((2, 8, 3), np.uint8)
    assert Picture("a", lambda: flat).digest != Picture("b", lambda: flat.reshape(4, 4, 3)).digest


def test_decoding_waits_until_the_pixels_are_asked_for(tmp_path: Path, noise: np.ndarray) -> None:
    picture = Picture.from_file(tmp_path / "later.png")
    Image.fromarray(noise).save(tmp_path / "later.png")
    np.testing.assert_array_equal(picture.pixels, noise)


def test_exif_orientation_is_applied(tmp_path: Path, noise: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(noise).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png"), np.rot90(noise, -1))


def test_transparency_is_flattened_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(decode(tmp_path / "alpha.png"), [[[200, 0, 0], [255, 255, 255]]])

    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putdata([0, 1])
    palette.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(
        decode(tmp_path / "palette.png"), [[[255, 255, 255], [10, 20, 30]]]
    )


def test_grey_becomes_rgb_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode(tmp_path / "grey.png"), [[[7] * 3, [200] * 3]])
    Image.fromarray(np.array([[0x07FF, 0xC800]], np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(decode(tmp_path / "deep.png"), [[[7] * 3, [200] * 3]])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_truncated_image_is_refused(tmp_path: Path, noise: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"half.{suffix}.*truncated, damaged"):
        decode(path)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


MEGABYTES = zlib.compress(bytes(2**21))
PNG_METADATA = {
    "text": png_chunk(b"zTXt", b"workflow\0\0" + MEGABYTES),
    "international text": png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + MEGABYTES),
    "profile": png_chunk(b"iCCP", b"large\0\0" + MEGABYTES),
    "EXIF that is none": png_chunk(b"eXIf", b"hello"),
    "a wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-1] + b"?",
    "EXIF with a wrong checksum": png_chunk(b"eXIf", b"hello")[:-1] + b"?",
    "a size that is none": png_chunk(b"pHYs", b"?"),
}


@pytest.mark.parametrize("kind", PNG_METADATA)
@pytest.mark.parametrize("place", [33, -12])  # behind the header; before the end
def test_metadata_of_a_png_do_not_matter(
    tmp_path: Path, noise: np.ndarray, kind: str, place: int
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:place] + PNG_METADATA[kind] + content[place:])
    np.testing.assert_array_equal(decode(path), noise)


def test_orientation_is_kept_beside_metadata_that_cannot_be_read(
    tmp_path: Path, noise: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(noise).save(path, exif=exif)
    content = path.read_bytes()
    path.write_bytes(content[:33] + PNG_METADATA["text"] + content[33:])
    np.testing.assert_array_equal(decode(path), np.rot90(noise, -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0hello", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"hello"])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_exif_that_is_none_does_not_matter(
    tmp_path: Path, noise: np.ndarray, suffix: str, exif: bytes
) -> None:
    Image.fromarray(noise).save(tmp_path / f"plain.{suffix}")
    Image.fromarray(noise).save(tmp_path / f"odd.{suffix}", exif=exif)
    np.testing.assert_array_equal(
        decode(tmp_path / f"odd.{suffix}"), decode(tmp_path / f"plain.{suffix}")
    )


# Segments on which Pillow stumbles before it comes to the pixels.
JPEG_METADATA = {
    "a number of pictures that is none": (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "Photoshop's, cut off": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10?"),
    "a profile in no order": (0xE2, b"ICC_PROFILE\0"),
}


@pytest.mark.parametrize("kind", JPEG_METADATA)
def test_metadata_of_a_jpeg_do_not_matter(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path)
    plain, content = decode(path), path.read_bytes()
    marker, body = JPEG_METADATA[kind]
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    path.write_bytes(content[:2] + segment + content[2:])
    np.testing.assert_array_equal(decode(path), plain)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_without_metadata_the_pixels_are_the_same(
    tmp_path: Path, noise: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(noise).save(path, exif=exif, icc_profile=bytes(200))
    lean = _without_metadata(path.read_bytes())
    assert b"a description" not in lean or suffix == "png"
    assert len(lean) < path.stat().st_size
    (tmp_path / f"b.{suffix}").write_bytes(lean)
    np.testing.assert_array_equal(decode(tmp_path / f"b.{suffix}"), decode(path))


CASES = Path(__file__).parents[3] / "shared" / "cases" / "15"


@pytest.mark.skipif(not CASES.is_dir(), reason="the recorded pictures are not beside the project")
@pytest.mark.parametrize("name", ["exif.png", "profile.png", "text.png"])
def test_recorded_pictures_with_odd_metadata(name: str) -> None:
    np.testing.assert_array_equal(decode(CASES / name), np.full((8, 8, 3), (200, 0, 0)))


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8193, 10_000, 60_000])
def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=rf"bomb.png .*limit of {MAX_PIXELS:,} pixels"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"])
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text.png is not a PNG, JPEG or WebP image"):
        decode(path)


def test_a_file_that_went_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.png is missing"):
        decode(tmp_path / "gone.png")


def test_shrink_keeps_the_aspect_and_never_enlarges(noise: np.ndarray) -> None:
    assert shrink(noise, 20).shape == (20, 15, 3)
    assert shrink(noise, 40) is noise
    assert shrink(np.zeros((1000, 1, 3), np.uint8), 10).shape == (10, 1, 3)
