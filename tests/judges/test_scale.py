"""Scales, answers and identities."""

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import SCALES, JudgeIdentity, Scale, named_scale


@pytest.mark.parametrize("scale", SCALES.values(), ids=str)
def test_presets_map_their_ends_to_zero_and_one(scale):
    assert scale.qoe(scale.low) == 0
    assert scale.qoe(scale.high) == 1
    assert scale.qoe((scale.low + scale.high) / 2) == 0.5


def test_presets_are_worst_first():
    assert named_scale("adjectives").labels == ("bad", "poor", "fair", "good", "excellent")
    assert named_scale("1-10").labels[-1] == "10"
    assert (named_scale("1-10").low, named_scale("1-10").high) == (1, 10)
    assert named_scale("good-poor").labels == ("poor", "good")


def test_expected_rating_is_the_mean_under_the_softmax():
    scale = named_scale("1-5")
    p = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    assert scale.expected_rating(np.log(p) + 7) == pytest.approx(p @ [1, 2, 3, 4, 5])
    assert scale.expected_rating(np.zeros((2, 3, 5))).shape == (2, 3)
    assert scale.expected_rating([-1e4, -1e4, -1e4, -1e4, 1e4]) == 5


def test_expected_rating_of_two_labels_is_the_logistic_of_the_difference():
    poor, good = 15.5, 16.4
    rating = named_scale("good-poor").expected_rating([poor, good])
    assert rating == pytest.approx(1 / (1 + np.exp(poor - good)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a",), 0, 1), "at least two labels"),
        ((("a", "a"), 0, 1), "all different"),
        ((("a", "b"), 1, 1), "below high"),
        ((("a", "b"), 0, float("nan")), "below high"),
    ],
)
def test_impossible_scales(arguments, message):
    with pytest.raises(InputError, match=message):
        Scale("mine", *arguments)


def test_unknown_scale_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'1-7' is unknown.*adjectives, 1-5"):
        named_scale("1-7")


def test_identity_describes_itself_in_one_line():
    identity = JudgeIdentity("x", {"b": 2, "a": "word", "c": None})
    assert identity.describe() == "x [a: word; b: 2; c: null]"
    assert JudgeIdentity("x").describe() == "x"
    assert "stand-in for a language model" in JudgeIdentity("x", stand_in=True).describe()
