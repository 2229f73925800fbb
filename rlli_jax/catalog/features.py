"""What can be measured of a picture: ten numbers that studies relate to the Big Five.

Published trait-feature correlations (Ferwerda et al. 2016, Segalin et al. 2017 and others) speak
of such features; a name here is the name that those tables use. Everything is measured on the
picture scaled down to at most LONG_SIDE pixels, so that counts and entropies compare across
resolutions and a picture takes a fraction of a second, most of it to look for faces and regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from skimage import color, data, feature, measure, segmentation

from rlli_jax.catalog.pictures import Picture, Pixels, shrink

LONG_SIDE = 256


@dataclass(frozen=True)
class _View:
    """One picture in the forms that the features share."""

    rgb: Pixels  # [H, W, 3]
    hsv: NDArray[np.float64]  # [H, W, 3] in [0, 1]
    grey: NDArray[np.float64]  # [H, W] in [0, 1], Rec. 709 luminance weights


def picture_features(picture: Picture) -> NDArray[np.float64]:
    """:func:`image_features` of a picture, measured once in a process: float64 [F], read-only.

    Raises :class:`InputError` if the picture cannot be read.
    """
    if picture.digest not in _MEASURED:
        measured = image_features(picture.pixels)
        measured.flags.writeable = False
        _MEASURED[picture.digest] = measured
    return _MEASURED[picture.digest]


_MEASURED: dict[str, NDArray[np.float64]] = {}  # by digest, 80 bytes each


def image_features(pixels: Pixels) -> NDArray[np.float64]:
    """The features of a picture, uint8 [H, W, 3] -> float64 [F], in the order of FEATURES."""
    rgb = shrink(pixels, LONG_SIDE)
    view = _View(rgb, color.rgb2hsv(rgb), color.rgb2gray(rgb))
    return np.array([function(view) for function in _FUNCTIONS], dtype=np.float64)


def brightness_mean(view: _View) -> float:
    """Mean of HSV value, in [0, 1] (Ferwerda et al. 2016)."""
    return view.hsv[..., 2].mean()


def saturation_mean(view: _View) -> float:
    """Mean of HSV saturation, in [0, 1] (Machajdik & Hanbury 2010; Ferwerda et al. 2016)."""
    return view.hsv[..., 1].mean()


def saturation_var(view: _View) -> float:
    """Variance of HSV saturation, in [0, 0.25] (Ferwerda et al. 2016)."""
    return view.hsv[..., 1].var()


def hue_count(view: _View) -> float:
    """Number of distinct hues, 0 to 20 (Ke, Tang & Jing, CVPR 2006, section 4.3).

    Bins of a 20-bin hue histogram that hold more than 5 % of the fullest bin, over pixels with
    saturation above 0.2 and value in [0.15, 0.95]. Ke et al. subtract it from 20; this does not.
    """
    hue, saturation, value = np.moveaxis(view.hsv, 2, 0)
    chromatic = (saturation > 0.2) & (value >= 0.15) & (value <= 0.95)
    counts, _ = np.histogram(hue[chromatic], bins=20, range=(0, 1))
    return float((counts > 0.05 * counts.max()).sum())


def colorfulness(view: _View) -> float:
    """Hasler & Süsstrunk, SPIE 2003, metric M(3): 0 for grey, about 109 for "extremely colourful".

    With rg = R - G and yb = (R + G) / 2 - B on 0-255: the length of their standard deviations
    plus 0.3 times the length of their means. Never above 298.
    """
    red, green, blue = np.moveaxis(view.rgb.astype(np.float64), 2, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    deviation, mean = opponents.std(axis=1), opponents.mean(axis=1)
    return float(np.hypot(*deviation) + 0.3 * np.hypot(*mean))


def gray_entropy(view: _View) -> float:
    """Shannon entropy of the 256 grey levels, in [0, 8] bits (Segalin et al. 2017)."""
    return measure.shannon_entropy((view.grey * 255).round().astype(np.uint8))


def level_of_detail(view: _View) -> float:
    """Number of regions that the picture falls into, at least 1.

    Machajdik & Hanbury, ACM MM 2010, count the regions of a waterfall segmentation; these are the
    regions of Felzenszwalb & Huttenlocher, IJCV 2004 (scale 200, sigma 0.8, at least 30 pixels).
    """
    regions = segmentation.felzenszwalb(view.rgb, scale=200, sigma=0.8, min_size=30)
    return float(regions.max() + 1)


def contrast(view: _View) -> float:
    """Root-mean-square contrast, the standard deviation of grey, in [0, 0.5] (Peli 1990)."""
    return view.grey.std()


def n_faces(view: _View) -> float:
    """Number of frontal faces found, 0 and up.

    The local-binary-pattern cascade that ships with scikit-image (trained for OpenCV), for faces
    of at least 24 of the LONG_SIDE pixels. The step sizes were chosen on the studio's pictures; a
    cascade misses turned faces and sometimes sees one in a texture.
    """
    found = _face_cascade().detect_multi_scale(
        img=view.rgb,
        scale_factor=1.1,
        step_ratio=1.5,
        min_size=(24, 24),
        max_size=(LONG_SIDE, LONG_SIDE),
    )
    return float(len(found))


def warm(view: _View) -> float:
    """Share of warm pixels, in [0, 1] (after Ferwerda et al. 2016; the bounds are ours).

    Warm are hues from rose over red and orange to yellow, 315° to 75°: four of the twelve hues
    30° apart. Pixels with saturation or value of at most 0.15 have no hue to speak of and count
    as not warm.
    """
    hue, saturation, value = np.moveaxis(view.hsv, 2, 0)
    warm_hue = (hue >= 315 / 360) | (hue < 75 / 360)
    return (warm_hue & (saturation > 0.15) & (value > 0.15)).mean()


@cache
def _face_cascade() -> feature.Cascade:
    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


_FUNCTIONS: tuple[Callable[[_View], float], ...] = (
    brightness_mean,
    saturation_mean,
    saturation_var,
    hue_count,
    colorfulness,
    gray_entropy,
    level_of_detail,
    contrast,
    n_faces,
    warm,
)

FEATURES = tuple(function.__name__ for function in _FUNCTIONS)
