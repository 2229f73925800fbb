"""The yardstick of 2,000 people is what their answers say, and answers are read rightly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlli_jax.personas.psychometrics import (
    acquiescence,
    alpha,
    describe_people,
    first_half,
    people,
    prediction,
)
from rlli_jax.personas.questionnaire import ipip50

KEY = ipip50()
ANSWERS = Path(__file__).parents[3] / "shared/data/questionnaires/ipip50_answers.tsv"


@pytest.fixture(scope="module")
def answers():
    if not ANSWERS.exists():
        pytest.skip(f"the answers of 2,000 people are not there: {ANSWERS}")
    return pd.read_csv(ANSWERS, sep="\t")[list(KEY.items)].to_numpy(float)


def test_the_yardstick_is_that_of_the_answers(answers):
    found, kept = describe_people(answers, KEY), people()
    assert found.size == kept.size == 2000
    for name in ("alpha", "mean", "sd", "correlations", "split_half", "item_means"):
        np.testing.assert_allclose(getattr(kept, name), getattr(found, name), atol=1e-4)
    assert kept.acquiescence == pytest.approx(found.acquiescence, abs=1e-4)
    assert kept.prediction == pytest.approx(found.prediction, abs=1e-4)


def test_the_yardstick_has_the_published_values():
    """As the README of the data gives them, O C E A N."""
    kept = people()
    np.testing.assert_allclose(kept.alpha, [0.806, 0.833, 0.909, 0.860, 0.887], atol=6e-4)
    np.testing.assert_allclose(kept.mean, [3.94, 3.35, 2.99, 3.87, 3.11], atol=5.1e-3)
    np.testing.assert_allclose(kept.sd, [0.62, 0.75, 0.95, 0.74, 0.87], atol=5.1e-3)
    published = {"EA": 0.37, "EN": -0.29, "CN": -0.23, "CA": 0.13, "AN": -0.13, "OE": 0.11}
    for (a, b), r in published.items():
        assert kept.correlations["OCEAN".index(a), "OCEAN".index(b)] == pytest.approx(r, abs=5e-3)


def test_people_are_predicted_from_people_better_than_by_the_mean():
    assert people().prediction.skill == pytest.approx(0.34, abs=0.005)
    assert people().prediction.r == pytest.approx(0.58, abs=0.005)


def test_alpha_knows_items_that_agree_from_items_that_do_not():
    random = np.random.default_rng(0)
    person = random.normal(size=(500, 1))
    turn = np.where(KEY.reverse, -1, 1)
    consistent = 3 + turn * (person + 0.5 * random.normal(size=(500, 50)))
    assert alpha(consistent, KEY).min() > 0.9
    assert np.abs(alpha(3 + random.normal(size=(500, 50)), KEY)).max() < 0.3
    assert np.isnan(alpha(np.full((5, 50), 3.0), KEY)).all()


def test_acquiescence_is_agreeing_with_everything():
    answers = np.full((2, 50), 4.0)
    answers[1] = np.where(KEY.reverse, 1, 5)  # a clear opinion, which is no agreeing
    np.testing.assert_allclose(acquiescence(answers, KEY), [1.0, 0.0])


def test_halves_have_five_items_of_each_trait():
    half = first_half(KEY)
    assert [int(half[KEY.traits == t].sum()) for t in range(5)] == [5] * 5


def test_always_answering_the_mean_has_no_skill():
    given = np.random.default_rng(0).normal(3, 1, (100, 25))
    means = given.mean(0)
    assert prediction(np.tile(means, (100, 1)), given, means) == pytest.approx((0.0, 0.0))
    assert prediction(given, given, means) == pytest.approx((1.0, 1.0))
