"""A picture in words, for judges that only read: its caption, or what can be measured of it.

The measured features are those that published correlations with the Big Five speak of
(:mod:`rlli_jax.catalog.features`). Each is put into one of a few words; where the words change is
ours, set so that photographs and the studio's styles fall on both sides. A provider's name never
appears: the judge is to rate the picture and not a brand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from rlli_jax.catalog.pictures import Picture

LONGEST_CAPTION = 2000  # characters; a page of text, far beyond what tells one picture from another

# Feature -> where the words change, and the words, from little to much.
GRADES: Mapping[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "brightness_mean": (
        (0.25, 0.4, 0.55, 0.7),
        ("very dark", "rather dark", "of medium brightness", "rather bright", "very bright"),
    ),
    "contrast": (
        (0.12, 0.18, 0.24, 0.3),
        ("very flat", "of low contrast", "of medium contrast", "of high contrast", "very stark"),
    ),
    "colorfulness": (
        (3, 20, 40, 65),
        ("black and white", "muted", "moderately colourful", "colourful", "very colourful"),
    ),
    "saturation_mean": ((0.05, 0.25, 0.5), ("grey", "pale", "clear", "deep")),
    "warm": ((0.15, 0.4, 0.7), ("cool", "mixed, more cool", "mixed, more warm", "warm")),
    "hue_count": ((3, 7), ("few hues", "several hues", "many hues")),
    "level_of_detail": (
        (40, 90, 180),
        ("plain areas", "some detail", "much detail", "very fine detail everywhere"),
    ),
}


def graded(feature: str, value: float) -> str:
    """The word for the value of a feature."""
    cuts, words = GRADES[feature]
    return words[bisect_right(cuts, value)]


def in_words(features: Mapping[str, float]) -> str:
    """One sentence of the features of a picture, by their names in ``features.FEATURES``."""
    word = {name: graded(name, features[name]) for name in GRADES}
    colours = word["colorfulness"]
    if colours != "black and white":
        colours += f", in {word['warm']}, {word['saturation_mean']} colours of {word['hue_count']}"
    faces = int(features["n_faces"])
    seen = "no face" if faces == 0 else "one face" if faces == 1 else f"{faces} faces"
    return (
        f"It is {word['brightness_mean']}, {word['contrast']} and {colours}; it has "
        f"{word['level_of_detail']} and shows {seen}."
    )


def describe(picture: Picture | None, caption: str | None) -> str | None:
    """The caption if there is one, else the picture's features; None where there is neither.

    Raises :class:`InputError` if the picture cannot be read.
    """
    if caption:
        return caption
    return None if picture is None else _measured(picture)


def _measured(picture: Picture) -> str:
    from rlli_jax.catalog.features import FEATURES, picture_features  # and with it scikit-image

    values = picture_features(picture).tolist()
    return in_words(dict(zip(FEATURES, values, strict=True)))
