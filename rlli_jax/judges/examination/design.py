"""What an examination asks: which pictures, of whom, and in which words.

The people are always the same, whatever a study's own population is: so an examination of one judge
is asked once for all studies that show it the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.catalog.pictures import Pixels, shrink
from rlli_jax.errors import InputError
from rlli_jax.judges.base import USUAL, Form, Question, Scale, named_scale
from rlli_jax.judges.prompting import ORDERS
from rlli_jax.personas import TRAITS, Persona, Population, Wording
from rlli_jax.personas.norms import load_data, pooled_norm
from rlli_jax.personas.persona import HIGH, LOW
from rlli_jax.personas.psychometrics import first_half, half_traits
from rlli_jax.personas.questionnaire import expected_answers, ipip50, told

ITEM_SCALE = named_scale("1-5")
POLE = 2.0  # standard deviations from the mean
GROUP = "women 21-40"
MOST_REQUESTS = 3
BLANK = "It is a plain grey area with nothing on it."


class Exhibit(NamedTuple):
    """Something to rate."""

    request: str
    provider: str
    picture: Picture | None
    description: str | None


def average(wording: Wording) -> Persona:
    """Somebody at the mean of all traits."""
    return _person("average", pooled_norm().mean, wording)


def _person(name: str, traits: np.ndarray, wording: Wording) -> Persona:
    """Somebody made up, in any wording: told by answers, those that the traits make likeliest."""
    answers: tuple[tuple[str, int], ...] = ()
    if wording == "answers":
        key = ipip50()
        (answers,) = told(expected_answers(traits[None], key), key)
    return Persona(name, tuple(traits.tolist()), wording, answers)


def exhibits(
    catalog: Catalog, count: int, described: bool, requests: int = MOST_REQUESTS
) -> list[Exhibit]:
    """Up to ``count`` pictures of few requests, at least two of each; neighbours share a request.

    Raises:
        InputError: no request has two pictures (or captions, for a judge that reads).
    """
    by_request: list[list[Exhibit]] = []
    for r, request in enumerate(catalog.requests):
        there = []
        for p, provider in enumerate(catalog.providers):
            words = catalog.description(r, p) if described else None
            picture = catalog.picture(r, p)
            if words is not None or (picture is not None and not described):
                there.append(Exhibit(request, provider, picture, words))
        if len(there) > 1:
            by_request.append(there)
        if len(by_request) == requests:
            break
    if not by_request:
        what = "descriptions" if described else "pictures"
        raise InputError(
            f"examination: no request has two {what}, so it cannot be told whether they change an "
            "answer; add some, or set judge.examination to null and judge.require to []."
        )
    each = max(2, -(-count // len(by_request)))
    return [e for there in by_request for e in there[:each]][: max(count, 2)]


def most_different(shown: Sequence[Exhibit]) -> tuple[int, int]:
    """The two of the first request's exhibits that differ the most, or whose words differ."""
    first = [i for i, exhibit in enumerate(shown) if exhibit.request == shown[0].request]
    if shown[0].description is not None:
        return max(combinations(first, 2), key=lambda p: _words_apart(*(shown[i] for i in p)))
    small = {i: _thumbnail(picture.pixels) for i in first if (picture := shown[i].picture)}
    return max(combinations(small, 2), key=lambda p: np.abs(small[p[0]] - small[p[1]]).mean())


def _words_apart(one: Exhibit, other: Exhibit) -> int:
    a, b = (set((e.description or "").split()) for e in (one, other))
    return len(a ^ b)


def _thumbnail(pixels: Pixels) -> np.ndarray:
    small = np.asarray(shrink(pixels, 16), np.float64)
    return np.resize(small, (16, 16, 3)) if small.shape != (16, 16, 3) else small


def blank(like: Exhibit) -> Exhibit:
    """A grey plate in the place of an exhibit, of its size."""
    if like.description is not None:
        return like._replace(picture=None, description=BLANK)
    assert like.picture is not None
    shape = like.picture.pixels.shape
    return like._replace(picture=Picture("blank", lambda: np.full(shape, 128, np.uint8)))


def poles(wording: Wording) -> list[Persona]:
    """Ten people, average but for one trait: low O, high O, low C, ..., high N."""
    norm, people = pooled_norm(), []
    for t, trait in enumerate(TRAITS):
        for side in (-1, 1):
            traits = norm.mean.copy()
            traits[t] = np.clip(traits[t] + side * POLE * norm.sd[t], LOW, HIGH)
            name = f"{'low' if side < 0 else 'high'} {trait}"
            people.append(_person(name, traits, wording))
    return people


def sampled(count: int, wording: Wording) -> list[Persona]:
    """People drawn from published norms, always the same."""
    people = Population.sample(count, group=GROUP, seed=0).personas
    return [_person(one.name, np.array(one.known_traits), wording) for one in people]


def halves(answers: np.ndarray, wording: Wording) -> list[Persona]:
    """People [K] told by the first half of their answers [K, 50]: by the traits that these score
    to, or by the answers themselves."""
    key = ipip50()
    kept = np.where(first_half(key), answers, np.nan)
    people = zip(half_traits(answers, key).tolist(), told(kept, key), strict=True)
    return [
        Persona(f"person {i}", tuple(traits), wording, said)
        for i, (traits, said) in enumerate(people)
    ]


def rating(
    persona: Persona, shown: Exhibit, scale: Scale, form: Form = USUAL, sample: int = 0
) -> Question:
    """How does this person rate it?"""
    request, provider, picture, description = shown
    return Question(persona, request, provider, picture, scale, sample, description, form)


def statements(persona: Persona, items: Sequence[int] | None = None) -> list[Question]:
    """Do the items of the 50 IPIP markers (all, or some by their place) describe this person?"""
    every = load_data("ipip50_items")["items"]
    asked = every if items is None else [every[i] for i in items]
    return [
        Question(persona, item["text"], "", None, ITEM_SCALE, form=Form("statement"))
        for item in asked
    ]


def other_scale(scale: Scale) -> Scale:
    """A second scale: adjectives for numbers, numbers for words."""
    numbers = all(label.strip().lstrip("-").isdigit() for label in scale.labels)
    return named_scale("adjectives" if numbers else "1-5")


def wordings(scale: Scale) -> dict[str, tuple[Scale, Form]]:
    """The ways in which the same is asked; the first is what others are compared to."""
    worst_first, best_first = ORDERS
    return {
        worst_first: (scale, Form(order=worst_first)),
        best_first: (scale, Form(order=best_first)),
        "paraphrase": (scale, Form(order=worst_first, wording="paraphrase")),
        f"scale {other_scale(scale).name}": (other_scale(scale), Form(order=worst_first)),
    }
