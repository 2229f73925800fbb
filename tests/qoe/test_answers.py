"""Answers as columns are the answers as objects."""

import numpy as np
import pytest

from rlli_jax.judges import Failed, Invalid, Rated, Usage
from rlli_jax.qoe.answers import Answers

GIVEN = [Rated(2.5, 0.9, "x", Usage(cost=0.1)), Invalid("odd", "y"), Failed("late"), Rated(4.0)]


def test_columns_hold_the_same_answers():
    columns = Answers.of(GIVEN)
    assert columns == GIVEN
    assert columns == GIVEN
    assert columns != GIVEN[::-1]
    assert Answers.of(columns) is columns
    assert columns.rated.tolist() == [True, False, False, True]
    assert columns.rating.tolist() == [2.5, 0.0, 0.0, 4.0]
    assert columns.valid_mass.tolist() == [0.9, 0.0, 0.0, 1.0]
    assert columns[0].usage == Usage(cost=0.1)
    assert columns[-1] == GIVEN[-1]
    assert columns[1:3] == GIVEN[1:3]
    with pytest.raises(IndexError):
        columns[4]


def test_putting_and_taking():
    columns = Answers.empty(4)
    assert columns.unknown.all()
    columns.put(1, GIVEN[1])
    columns.put_ratings(
        np.array([3, 0]), np.array([4.0, 2.5]), np.array([1.0, 0.9]), np.array(["", "x"])
    )
    assert columns.unknown.tolist() == [False, False, True, False]
    columns.put(2, GIVEN[2])
    assert not columns.unknown.any()
    assert columns == GIVEN
    assert columns.take([3, 1, 1]) == [GIVEN[3], GIVEN[1], GIVEN[1]]
    columns.put(3, GIVEN[2])
    assert not columns.rated[3]
    assert columns[3] == GIVEN[2]
