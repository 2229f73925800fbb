"""Which questions are asked next, and what choices are expected to lose."""

import numpy as np
import pytest
from scipy.stats import norm

from rlli_jax.personas import Population
from rlli_jax.qoe.choosing import (
    STRATEGIES,
    Belief,
    belief,
    expected_regret,
    first_questions,
    next_questions,
)
from rlli_jax.qoe.model import fit_model, persona_features

SHAPE = (80, 3, 4)


@pytest.fixture(scope="module")
def traits():
    return Population.sample(SHAPE[0], group="women 21-40", seed=3).traits


@pytest.fixture(scope="module")
def truth(traits):
    rng = np.random.default_rng(0)
    slopes = rng.normal(0, 0.06, (4, 5)) + rng.normal(0, 0.02, (3, 4, 5))
    return 0.5 + np.einsum("kf,rlf->krl", persona_features(traits, 80)[:, 1:6], slopes)


@pytest.fixture(scope="module")
def answers(truth):
    return np.clip(truth + np.random.default_rng(1).normal(0, 0.05, SHAPE), 0, 1)


@pytest.fixture(scope="module")
def given(answers):
    return np.where(np.random.default_rng(2).random(SHAPE) < 0.1, answers, np.nan)


@pytest.fixture(scope="module")
def model(given, traits):
    return fit_model(given, traits)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("choice", ["user", "user request", "request"])
def test_questions_are_new_distinct_and_picture_by_picture(given, model, strategy, choice):
    unasked = np.isnan(given)
    places = next_questions(model, unasked, 40, strategy, choice, seed=1)
    assert len(set(places.tolist())) == 40
    assert unasked.reshape(-1)[places].all()
    assert (np.diff(places % 12) >= 0).all()
    again = next_questions(model, unasked, 40, strategy, choice, seed=1)
    np.testing.assert_array_equal(places, again)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_first_questions_are_of_every_picture(strategy):
    unasked = np.ones(SHAPE, bool)
    unasked[:, 0, 0] = False
    places = first_questions(unasked, 22, strategy, seed=0)
    assert len(set(places.tolist())) == 22
    assert 0 not in places % 12
    if strategy != "random":
        assert set(places % 12) == set(range(1, 12))


def test_no_more_is_asked_than_there_is(model):
    unasked = np.zeros(SHAPE, bool)
    unasked[3, 1, :2] = True
    assert sorted(next_questions(model, unasked, 40, "decision")) == [3 * 12 + 4, 3 * 12 + 5]


def test_the_least_sure_cell_is_asked_first(given, model):
    unasked = np.isnan(given)
    first = next_questions(model, unasked, 1, "variance")[0]
    spread = np.where(unasked, model.users().sd, 0)
    assert spread.reshape(-1)[first] == pytest.approx(spread.max(), rel=1e-6)


def test_providers_that_nobody_would_choose_are_not_asked_about(traits, truth):
    rng = np.random.default_rng(3)
    poor = truth.copy()
    poor[..., 3] -= 0.35
    given = np.where(
        rng.random(SHAPE) < 0.15, np.clip(poor + rng.normal(0, 0.05, SHAPE), 0, 1), np.nan
    )
    model = fit_model(given, traits)
    unasked = np.isnan(given)
    asked = next_questions(model, unasked, 60, "decision") % 4
    sure = next_questions(model, unasked, 60, "variance") % 4
    assert (asked == 3).mean() < 0.5 * (sure == 3).mean()


def test_expected_regret_of_two_providers_is_the_formula():
    gap, spread = 0.03, 0.05
    believed = Belief(
        np.tile([0.5, 0.5 + gap], (3000, 1)), np.tile(np.eye(2) * spread**2 / 2, (3000, 1, 1))
    )
    loss = spread * norm.pdf(gap / spread) - gap * norm.cdf(-gap / spread)
    expected = expected_regret(believed)
    assert expected.regret == pytest.approx(loss, abs=5 * expected.standard_error)


def test_expected_regret_is_near_what_is_lost(model, truth):
    believed = belief(model, "user")
    values = truth.mean(1)
    lost = (values.max(1) - values[np.arange(len(values)), believed.mean.argmax(1)]).mean()
    assert expected_regret(believed).regret == pytest.approx(lost, rel=1, abs=0.002)


def test_large_tables_look_at_some_users(given, model, monkeypatch):
    monkeypatch.setattr("rlli_jax.qoe.choosing.CELLS", 20 * 12)
    places = next_questions(model, np.isnan(given), 30, "decision")
    assert len(set(places.tolist())) == 30
    assert len(set(places // 12)) <= 20
    assert np.isnan(given).reshape(-1)[places].all()
