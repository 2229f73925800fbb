"""How answers to a questionnaire hang together: reliability, spread, agreeing, prediction.

The values of 2,000 people (:func:`people`) are what answers of a language model as personas are
held against.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from rlli_jax.personas.norms import load_data
from rlli_jax.personas.persona import HIGH, LOW, TRAITS
from rlli_jax.personas.questionnaire import Key, ipip50, score


def alpha(answers: np.ndarray, key: Key) -> np.ndarray:
    """Cronbach's alpha of each trait, float64 [5]; NaN where answers do not vary.

    ``answers``: [K, items] from 1 to 5 without gaps, as they were given (not turned).
    Cronbach 1951, *Psychometrika* 16, 297-334.
    """
    turned = _turned(answers, key)
    result = np.full(len(TRAITS), np.nan)
    for trait in range(len(TRAITS)):
        items = turned[:, key.traits == trait]
        n, total = items.shape[1], items.sum(1).var(ddof=1)
        if total > 0:
            result[trait] = n / (n - 1) * (1 - items.var(0, ddof=1).sum() / total)
    return result


def acquiescence(answers: np.ndarray, key: Key) -> np.ndarray:
    """How far each person agrees with items whatever they say: float64 [K], 0 for not at all.

    The mean of the answers to items for and against a trait, each side weighing alike, less the
    middle of the scale, averaged over traits (unit: points of the scale 1-5).
    """
    sides = [
        answers[:, (key.traits == trait) & (key.reverse == against)].mean(1)
        for trait in range(len(TRAITS))
        for against in (False, True)
    ]
    return np.mean(sides, 0) - (LOW + HIGH) / 2


def first_half(key: Key) -> np.ndarray:
    """Every other item of each trait: bool [items]."""
    half = np.zeros(len(key.items), bool)
    for trait in range(len(TRAITS)):
        half[np.flatnonzero(key.traits == trait)[::2]] = True
    return half


def half_traits(answers: np.ndarray, key: Key) -> np.ndarray:
    """Traits [K, 5] from the first half of the items."""
    return score(np.where(first_half(key), answers, np.nan), key, max_missing=0.6)


class Prediction(NamedTuple):
    """How well answers that were not shown are predicted."""

    skill: float
    """1 - squared error / squared error of always answering the items' means; 1 is perfect, 0 no
    better than the means."""
    r: float
    """Correlation over people and items of predicted and given answers, both less the items'
    means."""


def prediction(predicted: np.ndarray, given: np.ndarray, means: np.ndarray) -> Prediction:
    """``predicted`` and ``given`` are [K, items], ``means`` [items], on one scale."""
    error, spread = ((predicted - given) ** 2).mean(), ((given - means) ** 2).mean()
    a, b = (predicted - predicted.mean(0)).ravel(), (given - means).ravel()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    r = float(a @ b / size) if size > 1e-12 else 0.0
    return Prediction(float(1 - error / spread), r)


def people_from_people(answers: np.ndarray, key: Key) -> Prediction:
    """The second half of the items from the traits of the first, by a regression over people.

    Fitted to the first half of the people, held against the second: what can be known of somebody
    from five numbers, and so the most that a persona made of them can be asked for.
    """
    second, fitted = ~first_half(key), len(answers) // 2
    traits = np.column_stack([np.ones(len(answers)), half_traits(answers, key)])
    weights = np.linalg.lstsq(traits[:fitted], answers[:fitted, second], rcond=None)[0]
    means = answers[:fitted, second].mean(0)
    return prediction(traits[fitted:] @ weights, answers[fitted:, second], means)


class People(NamedTuple):
    """What a group of people's answers look like; traits in order O C E A N."""

    size: int  # how many people
    alpha: np.ndarray  # float64 [5]
    mean: np.ndarray  # float64 [5], of the traits on the 1-5 scale
    sd: np.ndarray  # float64 [5]
    correlations: np.ndarray  # float64 [5, 5]
    acquiescence: float  # mean over people
    acquiescence_sd: float
    item_means: np.ndarray  # float64 [items]
    split_half: np.ndarray  # float64 [5]: correlation of a trait's two halves
    prediction: Prediction  # of one half of the items from the other, see people_from_people


def describe_people(answers: np.ndarray, key: Key) -> People:
    """The yardstick of a group of people: answers [K, items] from 1 to 5 without gaps."""
    traits, half = score(answers, key), first_half(key)
    other = score(np.where(half, np.nan, answers), key, max_missing=0.6)
    agreeing = acquiescence(answers, key)
    first = half_traits(answers, key)
    return People(
        size=len(answers),
        alpha=alpha(answers, key),
        mean=traits.mean(0),
        sd=traits.std(0, ddof=1),
        correlations=np.corrcoef(traits.T),
        acquiescence=float(agreeing.mean()),
        acquiescence_sd=float(agreeing.std(ddof=1)),
        item_means=answers.mean(0),
        split_half=np.array([np.corrcoef(first[:, t], other[:, t])[0, 1] for t in range(5)]),
        prediction=people_from_people(answers, key),
    )


@cache
def people() -> People:
    """The yardstick of 2,000 people who answered the 50 IPIP markers (``data/README.md``)."""
    kept = load_data("ipip50_people")
    return People(
        size=kept["size"],
        **{
            name: np.array(kept[name], np.float64)
            for name in ("alpha", "mean", "sd", "correlations", "split_half")
        },
        acquiescence=kept["acquiescence"],
        acquiescence_sd=kept["acquiescence_sd"],
        item_means=np.array([kept["item_means"][item] for item in ipip50().items]),
        prediction=Prediction(**kept["prediction"]),
    )


def _turned(answers: np.ndarray, key: Key) -> np.ndarray:
    return np.where(key.reverse, LOW + HIGH - answers, answers)
