"""The built-in studio: complete, repeatable, and four styles that differ as they say."""

import numpy as np
import pytest

from rlli_jax.catalog import Catalog, studio
from rlli_jax.catalog.features import FEATURES, image_features


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.studio()


def test_every_pair_has_its_own_picture(catalog: Catalog) -> None:
    assert (len(catalog.requests), len(catalog.providers)) == (6, 4)
    catalog.check()
    assert len({picture.digest for picture in catalog.pictures.values()}) == 24
    for picture in catalog.pictures.values():
        height, width, channels = picture.pixels.shape
        assert picture.pixels.dtype == np.uint8
        assert channels == 3
        assert 400 < max(height, width) <= studio.LONG_SIDE


def test_rendering_again_gives_the_same_pixels(catalog: Catalog) -> None:
    for provider in catalog.providers:
        again = studio.paint(catalog.requests[0], provider)
        np.testing.assert_array_equal(again, studio.render(catalog.requests[0], provider))


def test_pixels_cannot_be_overwritten(catalog: Catalog) -> None:
    picture = catalog.picture(0, 0)
    assert picture is not None
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0, 0] = 1


def test_each_style_is_what_it_says(catalog: Catalog) -> None:
    by_provider = {
        provider: dict(
            zip(FEATURES, image_features(studio.render(catalog.requests[2], provider)), strict=True)
        )
        for provider in catalog.providers
    }
    prism, film, gouache, noir = (by_provider[p] for p in ("Prism", "Celluloid", "Gouache", "Noir"))
    assert prism["colorfulness"] == max(f["colorfulness"] for f in by_provider.values())
    assert film["contrast"] == min(f["contrast"] for f in by_provider.values())
    assert 0 < film["saturation_mean"] < gouache["saturation_mean"]
    assert gouache["level_of_detail"] < prism["level_of_detail"]
    assert noir["saturation_mean"] == 0
    assert noir["contrast"] == max(f["contrast"] for f in by_provider.values())
    # Faded blacks: nothing on film is as dark as in the others.
    darkest = {p: studio.render(catalog.requests[2], p).max(axis=2).min() for p in by_provider}
    assert darkest["Celluloid"] > 10 > darkest["Noir"]


def test_a_damaged_copy_in_the_cache_is_painted_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(studio, "_cache_folder", lambda: tmp_path)
    request, provider = studio.REQUESTS[0], studio.PROVIDERS[0]
    painted = studio.render.__wrapped__(request, provider)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(studio.render.__wrapped__(request, provider), painted)
    assert kept.read_bytes() == whole


def test_without_a_folder_to_write_to_pictures_are_painted(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(studio, "_cache_folder", lambda: tmp_path / "file" / "folder")
    pixels = studio.render.__wrapped__(studio.REQUESTS[0], studio.PROVIDERS[0])
    assert pixels.shape[2] == 3
