"""Scales, answers and identities."""

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import SCALES, JudgeIdentity, Scale, named_scale, scale_of


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


@pytest.mark.parametrize(
    ("name", "first", "last", "low", "high"),
    [
        ("1-7", "1", "7", 1, 7),
        ("0-100", "0", "100", 0, 100),
        ("1-3", "1", "3", 1, 3),
        ("-3-3", "-3", "3", -3, 3),
        ("1 – 9", "1", "9", 1, 9),
        ("6-1", "6", "1", 1, 6),  # school grades, of which 1 is the best
    ],
)
def test_two_whole_numbers_are_a_scale(name, first, last, low, high):
    scale = scale_of(name)
    assert (scale.labels[0], scale.labels[-1], scale.low, scale.high) == (first, last, low, high)
    assert len(scale.labels) == high - low + 1


@pytest.mark.parametrize(
    ("labels", "low", "high"),
    [
        (["never", "sometimes", "always"], 1, 3),
        (["0.5", "1", "1.5", "2"], 0.5, 2),  # equal steps: the numbers are kept
        (["1", "2", "5", "10"], 1, 4),  # labels are equally spaced all the same
        (["3", "2", "1"], 1, 3),
    ],
)
def test_own_labels_are_a_scale_from_worst_to_best(labels, low, high):
    scale = scale_of(labels)
    assert (scale.labels, scale.low, scale.high) == (tuple(labels), low, high)
    np.testing.assert_allclose(scale.ratings(labels), np.linspace(low, high, len(labels)))


def test_scores_are_read_as_labels_or_as_numbers_on_the_scale():
    adjectives = scale_of("adjectives").ratings([" Good", "excellent", "3.5", "0.9", "fine", ""])
    np.testing.assert_array_equal(adjectives, [4, 5, 3.5, np.nan, np.nan, np.nan])
    grades = scale_of("6-1").ratings(["1", "1.5", "6", "7"])
    np.testing.assert_array_equal(grades, [6, 5.5, 1, np.nan])
    uneven = scale_of(["1", "2", "5", "10"]).ratings(["2", "3.5", "10"])
    np.testing.assert_array_equal(uneven, [2, 2.5, 4])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("stars", r"'stars' is unknown.*such as 1-7.*adjectives, 1-5"),
        ("1-1", "has 1 labels; give from 2"),
        ("0-100000", "has 100001 labels"),
        (["bad"], "at least two labels"),
        (["bad", "Bad"], "empty or there twice"),
        (["bad", " "], "empty or there twice"),
        (["1", "3", "2"], "go up and down"),
    ],
)
def test_what_is_no_scale_is_refused(what, message):
    with pytest.raises(InputError, match=message):
        scale_of(what)


def test_identity_describes_itself_in_one_line():
    identity = JudgeIdentity("x", {"b": 2, "a": "word", "c": None})
    assert identity.describe() == "x [a: word; b: 2; c: null]"
    assert JudgeIdentity("x").describe() == "x"
    assert "stand-in for a language model" in JudgeIdentity("x", stand_in=True).describe()
