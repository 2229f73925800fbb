"""Newcomers: by their traits, and by a few ratings of their own."""

import numpy as np
import pytest

from rlli_jax.personas import Population
from rlli_jax.qoe.model import fit_model, persona_features
from rlli_jax.qoe.newcomers import foresee

SHAPE = (260, 3, 4)


@pytest.fixture(scope="module")
def traits():
    return Population.sample(SHAPE[0], group="women 21-40", seed=3).traits


@pytest.fixture(scope="module")
def truth(traits):
    """Tastes by traits, and users' own."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(0, 0.06, (4, 5)) + rng.normal(0, 0.02, (3, 4, 5))
    explained = np.einsum("kf,rlf->krl", persona_features(traits, SHAPE[0])[:, 1:6], slopes)
    return 0.5 + explained + rng.normal(0, 0.05, (SHAPE[0], 1, 4))


@pytest.fixture(scope="module")
def answers(truth):
    return np.clip(truth + np.random.default_rng(1).normal(0, 0.05, SHAPE), 0, 1)


@pytest.fixture(scope="module")
def model(answers, traits):
    return fit_model(answers[:200], traits[:200])


CELLS = np.array([[0, 0], [1, 1], [2, 2], [0, 3]])


def errors(model, truth, foreseen):
    values = truth[200:].mean(1)
    held = [(f.low <= v) & (v <= f.high) for f, v in zip(foreseen, values, strict=True)]
    off = [np.abs(f.mean - v).mean() for f, v in zip(foreseen, values, strict=True)]
    return np.mean(off), np.mean(held)


def test_each_thing_known_of_a_newcomer_helps_and_intervals_hold(model, answers, traits, truth):
    rated = answers[200:][:, CELLS[:, 0], CELLS[:, 1]]
    found = [
        errors(model, truth, foreseen)
        for foreseen in (
            [foresee(model, None)] * 60,
            [foresee(model, None, CELLS, ratings) for ratings in rated],
            [foresee(model, person) for person in traits[200:]],
            [foresee(model, p, CELLS, r) for p, r in zip(traits[200:], rated, strict=True)],
        )
    ]
    nothing, ratings, persona, both = (error for error, _ in found)
    assert both < persona < nothing
    assert both < ratings < nothing
    for _, held in found:
        assert 0.8 < held <= 0.99


def test_a_persona_without_ratings_is_as_the_model_predicts(model, traits):
    person = traits[205]
    people = model.people(model.features(person[None], 1))
    np.testing.assert_allclose(foresee(model, person).mean, people.mean[0].mean(0), atol=1e-9)


def test_people_without_traits_are_foreseen_by_their_ratings_alone(answers, truth):
    model = fit_model(answers[:200], None)
    before = foresee(model, None)
    after = foresee(model, None, CELLS[:1], np.array([1.0]))
    assert after.mean[0] > before.mean[0]
    assert after.high[0] - after.low[0] < before.high[0] - before.low[0]
