"""The embedded default judge: a linear model of personality and picture. NOT a language model.

It is a stand-in, so that the whole pipeline runs without a download, and says so in every
description. For persona u with standardised traits z_t(u) and picture p with standardised
features x_f(p)::

    quality(p)    = standardised mean of x_contrast, x_level_of_detail, x_colorfulness
    persona(u, p) = sum_tf W[t, f] z_t(u) x_f(p) / c
    latent        = quality(p) + strength * persona(u, p) + noise * e(u, p, sample),  e ~ N(0, 1)
    rating        = middle + half_range * latent / 3, clipped to the scale

- x_f: features of :mod:`rlli_jax.catalog.features`, z-scored over the distinct pictures of the
  catalog that the judge is made for; a feature that is the same everywhere is left out.
- z_t: traits, z-scored by the pooled norms of the IPIP-NEO-120 (``personas.norms.pooled_norm``).
- W: published correlations of traits with the pictures that people post or favour, read as
  preferences. **They are quoted through a secondary review and were not checked against the
  primary papers.** Most samples are of posted, not of rated, pictures.
- c: makes the persona term of standard deviation 1 over the catalog for people whose traits are
  independent and at the norms. So ``strength`` is the weight of personality beside the common
  quality term. Correlations of .05-.20, as found for self-reported traits, mean a strength of
  about 0.05-0.2; the default of 1 exaggerates it on purpose, so that users visibly differ.
- The quality term (contrast, detail and colour please everybody) is an assumption of this model.
- e: drawn from a hash of seed, persona, picture and sample, so an answer never depends on how
  questions are ordered or batched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.special import ndtri

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.catalog.features import FEATURES, picture_features
from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Invalid, JudgeIdentity, Question, Rated
from rlli_jax.personas import TRAITS, Persona
from rlli_jax.personas.norms import pooled_norm

QUALITY_FEATURES = ("contrast", "level_of_detail", "colorfulness")

# The tables' names for a feature, the closest first, where they differ from ours.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "brightness_mean": ("brightness_mean", "brightness"),
    "saturation_mean": ("saturation_mean", "saturation"),
    "n_faces": ("n_faces", "pct_with_people"),
}

# Signs found in at least three samples, for the features that we measure. The same list names
# art-like and sports content and the rule of thirds, for which there is no feature here.
REPLICATED_SIGNS: Mapping[tuple[str, str], int] = {
    ("n_faces", "O"): -1,
    ("n_faces", "C"): +1,
    ("n_faces", "E"): +1,
    ("n_faces", "A"): +1,
    ("n_faces", "N"): -1,
    ("saturation_mean", "C"): +1,
    ("saturation_mean", "A"): +1,
    ("saturation_mean", "N"): -1,
    ("hue_count", "O"): -1,
}


@cache
def published_tables() -> dict[str, Any]:
    """The published trait x feature correlations, one table for each study."""
    name = "data/persona_image_correlations.json"
    text = files("rlli_jax.judges").joinpath(name).read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)["tables"]
    return tables


def study_correlations(study: str) -> np.ndarray:
    """Correlations of one study: float64 [traits O C E A N, FEATURES], NaN where not reported."""
    table = published_tables()[study]["table"]
    correlations = np.full((len(TRAITS), len(FEATURES)), np.nan)
    for f, feature in enumerate(FEATURES):
        for column in ALIASES.get(feature, (feature,)):
            if column in table:
                correlations[:, f] = [np.nan if r is None else r for r in table[column]]
                break
    return correlations


def presets() -> tuple[str, ...]:
    """``replicated`` and every single study that reports at least one of our features."""
    studies = published_tables()
    return ("replicated", *(s for s in studies if np.isfinite(study_correlations(s)).any()))


def preset_weights(preset: str) -> np.ndarray:
    """W: float64 [traits O C E A N, FEATURES], 0 where a preset says nothing.

    ``replicated``: for each sign in REPLICATED_SIGNS the median correlation of the samples with
    that sign; a single study: its correlations.

    Raises:
        InputError: ``preset`` is unknown.
    """
    if preset not in presets():
        raise InputError(
            f"psychometric preset {preset!r} is unknown; choose one of {', '.join(presets())}."
        )
    if preset != "replicated":
        return np.nan_to_num(study_correlations(preset))
    studies = np.stack([study_correlations(study) for study in published_tables()])
    weights = np.zeros((len(TRAITS), len(FEATURES)))
    for (feature, trait), sign in REPLICATED_SIGNS.items():
        t, f = TRAITS.index(trait), FEATURES.index(feature)
        samples = studies[:, t, f]
        weights[t, f] = np.median(samples[samples * sign > 0])
    return weights


class PsychometricJudge:
    """The linear model of this module's docstring, fitted to the pictures of one catalog.

    Args:
        catalog: its distinct pictures set the mean and spread of every feature.
        preset: which published correlations to use, one of :func:`presets`.
        strength: standard deviation of the persona term beside the quality term's 1.
        noise: standard deviation of the rater noise, same unit.
        seed: seed of the rater noise.

    Raises:
        InputError: an unknown preset, a negative strength or noise, a catalog without pictures.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        preset: str = "replicated",
        strength: float = 1.0,
        noise: float = 0.3,
        seed: int = 0,
    ) -> None:
        for name, value in (("strength", strength), ("noise", noise)):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"psychometric judge: {name} is {value}; give a number from 0.")
        weights = preset_weights(preset)
        pictures = _distinct_pictures(catalog)
        if not pictures:
            raise InputError("psychometric judge: the catalog has no pictures to look at.")
        self._strength, self._noise, self._seed = strength, noise, seed
        raw = np.stack([picture_features(p) for p in pictures.values()])  # [pictures, features]
        self._mean, self._spread = raw.mean(0), raw.std(0)
        x = self._standardise(raw)
        quality = self._raw_quality(x)
        self._quality_mean, self._quality_spread = quality.mean(), quality.std()
        # For independent traits of variance 1, E[(z W x)^2] = |W x|^2.
        size = np.sqrt(((x @ weights.T) ** 2).sum(-1).mean())
        self._weights = _divide(weights, size)
        self.identity = JudgeIdentity(
            name="psychometric",
            parameters={
                "model": "linear, version 1",
                "weights": "published correlations quoted through a secondary review",
                "preset": preset,
                "strength": strength,
                "noise": noise,
                "seed": seed,
                "catalog": hashlib.sha256("".join(sorted(pictures)).encode()).hexdigest()[:16],
            },
            stand_in=True,
        )

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """A continuous rating of each question; Invalid("no picture") where there is none."""
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        picture, scale = question.picture, question.scale
        if picture is None:
            return Invalid("no picture")
        latent = (
            self._quality(picture)
            + self._strength * self._persona_term(question.persona, picture)
            + self._noise * self._rater_noise(question.persona, picture, question.sample)
        )
        middle, half_range = (scale.high + scale.low) / 2, (scale.high - scale.low) / 2
        rating = middle + half_range * latent / 3
        return Rated(float(np.clip(rating, scale.low, scale.high)))

    def _standardise(self, raw: np.ndarray) -> np.ndarray:
        return _divide(raw - self._mean, self._spread)

    def _x(self, picture: Picture) -> np.ndarray:
        """Standardised features of a picture: float64 [features]."""
        return self._standardise(picture_features(picture))

    @staticmethod
    def _raw_quality(x: np.ndarray) -> np.ndarray:
        return x[..., [FEATURES.index(name) for name in QUALITY_FEATURES]].mean(-1)

    def _quality(self, picture: Picture) -> float:
        quality = self._raw_quality(self._x(picture)) - self._quality_mean
        return float(_divide(quality, self._quality_spread))

    def _persona_term(self, persona: Persona, picture: Picture) -> float:
        norm = pooled_norm()
        z = (np.array(persona.known_traits) - norm.mean) / norm.sd
        return float(z @ self._weights @ self._x(picture))

    def _rater_noise(self, persona: Persona, picture: Picture, sample: int) -> float:
        """Standard normal from a hash: the same on every platform, in every order."""
        traits = [float(trait) for trait in persona.known_traits]
        key = [self._seed, persona.name, traits, picture.digest, sample]
        digest = hashlib.sha256(json.dumps(key).encode()).digest()
        # 52 bits and a half, so that the float is exact and strictly between 0 and 1.
        uniform = ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2**52
        return float(ndtri(uniform))


def _distinct_pictures(catalog: Catalog) -> dict[str, Picture]:
    """digest -> picture."""
    every = (
        catalog.picture(r, p)
        for r in range(len(catalog.requests))
        for p in range(len(catalog.providers))
    )
    return {picture.digest: picture for picture in every if picture is not None}


def _divide(value: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """``value / spread``, and 0 where there is no spread beyond rounding."""
    usable = np.asarray(spread) > 1e-9
    return np.where(usable, value / np.where(usable, spread, 1.0), 0.0)
