"""Features of pictures whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.color import hsv2rgb

from rlli_jax.catalog.features import FEATURES, image_features, picture_features
from rlli_jax.catalog.pictures import Picture

CORRELATIONS = Path(__file__).parents[3] / "shared/data/personas/persona_image_correlations.json"


def features(pixels: np.ndarray) -> dict[str, float]:
    values = image_features(pixels)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    return dict(zip(FEATURES, values, strict=True))


def plain(*colour: int, shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (*shape, 3)).copy()


def test_names_and_order() -> None:
    assert FEATURES == (
        "brightness_mean",
        "saturation_mean",
        "saturation_var",
        "hue_count",
        "colorfulness",
        "gray_entropy",
        "level_of_detail",
        "contrast",
        "n_faces",
        "warm",
    )


@pytest.mark.skipif(not CORRELATIONS.exists(), reason="needs ../shared/data/personas")
def test_names_are_those_of_the_published_tables() -> None:
    tables = json.loads(CORRELATIONS.read_text())["tables"].values()
    published = {name for study in tables for name in study["table"]}
    assert set(FEATURES) <= published


def test_flat_grey() -> None:
    assert features(plain(102, 102, 102)) == pytest.approx(
        {
            "brightness_mean": 0.4,
            "saturation_mean": 0,
            "saturation_var": 0,
            "hue_count": 0,
            "colorfulness": 0,
            "gray_entropy": 0,
            "level_of_detail": 1,
            "contrast": 0,
            "n_faces": 0,
            "warm": 0,
        },
        abs=1e-9,
    )


def test_pure_red() -> None:
    red = features(plain(230, 0, 0))
    assert red["brightness_mean"] == pytest.approx(230 / 255)
    assert red["saturation_mean"] == 1
    assert red["hue_count"] == 1
    assert red["warm"] == 1
    # No deviation; means rg = 230 and yb = 115.
    assert red["colorfulness"] == pytest.approx(0.3 * np.hypot(230, 115))


def test_checkerboard() -> None:
    squares = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((32, 32)))
    board = features((squares[..., None] * [255, 255, 255]).astype(np.uint8))
    assert board["brightness_mean"] == pytest.approx(0.5)
    assert board["contrast"] == pytest.approx(0.5)
    assert board["gray_entropy"] == pytest.approx(1)
    assert board["colorfulness"] == 0
    assert board["level_of_detail"] >= 64


def test_half_warm_half_cold() -> None:
    halves = np.concatenate([plain(220, 120, 20), plain(20, 120, 220)], axis=1)
    both = features(halves)
    assert both["warm"] == pytest.approx(0.5)
    assert both["hue_count"] == 2
    assert both["level_of_detail"] >= 2


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((200, 40, 120), 1), ((200, 190, 30), 1), ((40, 200, 60), 0), ((90, 30, 200), 0)],
    ids=["rose", "yellow", "green", "violet"],
)
def test_which_hues_are_warm(colour: tuple[int, int, int], expected: int) -> None:
    assert features(plain(*colour))["warm"] == expected


def test_saturation_variance_of_half_grey_half_red() -> None:
    halves = np.concatenate([plain(128, 128, 128), plain(230, 0, 0)], axis=1)
    assert features(halves)["saturation_var"] == pytest.approx(0.25)


def test_rainbow_has_all_twenty_hues() -> None:
    hue = np.broadcast_to((np.arange(200) + 0.5) / 200, (50, 200))
    hsv = np.stack([hue, np.full_like(hue, 0.8), np.full_like(hue, 0.8)], axis=2)
    assert features((hsv2rgb(hsv) * 255).round().astype(np.uint8))["hue_count"] == 20


def test_the_astronaut_has_one_face_and_the_coffee_none() -> None:
    assert features(data.astronaut())["n_faces"] == 1
    assert features(data.coffee())["n_faces"] == 0


def test_features_hardly_depend_on_the_resolution() -> None:
    astronaut = data.astronaut()
    large, small = features(astronaut), features(astronaut[::2, ::2])
    for name in ("brightness_mean", "saturation_mean", "contrast", "warm"):
        assert large[name] == pytest.approx(small[name], abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 3)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    assert features(plain(10, 20, 30, shape=shape))["n_faces"] == 0


def test_a_picture_is_measured_once_and_its_features_cannot_be_changed():
    loads = []
    pixels = np.full((9, 7, 3), 81, np.uint8)

    def load():
        loads.append(1)
        return pixels

    first, second = (picture_features(Picture(name, load)) for name in ("a", "b"))
    assert first is second
    np.testing.assert_array_equal(first, image_features(pixels))
    assert len(loads) == 3  # the digest of each, and to measure
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
