"""Intervals over seeds and episodes."""

import numpy as np
import pytest

from rlli_jax.statistics import t_interval
from rlli_jax.two_way import interval_over, two_way_bootstrap, two_way_difference


def draw(rng, seeds=6, episodes=50, of_seeds=1.0, of_episodes=5.0):
    """Returns of truth 0: a seed's level, an episode's level, and noise of either."""
    return (
        rng.normal(0, of_seeds, (seeds, 1))
        + rng.normal(0, of_episodes, episodes)
        + rng.normal(0, 1, (seeds, episodes))
    )


def half(estimate):
    return float(estimate.high - estimate.low) / 2


@pytest.mark.parametrize(("of_seeds", "of_episodes"), [(1.0, 5.0), (0.1, 5.0), (5.0, 1.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(of_seeds, of_episodes):
    rng = np.random.default_rng(0)
    tables = [draw(rng, of_seeds=of_seeds, of_episodes=of_episodes) for _ in range(300)]
    found = [two_way_bootstrap(np.asarray, x, resamples=300) for x in tables]
    covered = np.mean([x.low <= 0 <= x.high for x in found])
    assert 0.91 < covered < 0.99
    if of_episodes > of_seeds:  # an interval over seeds alone knows nothing of the episodes
        seeds_only = [t_interval(x.mean(1)) for x in tables]
        assert np.mean([x.low <= 0 <= x.high for x in seeds_only]) < 0.9


def test_what_all_policies_meet_alike_leaves_their_difference():
    rng = np.random.default_rng(1)
    episodes = rng.normal(0, 50, 50)
    first, second = draw(rng, 8) * 0.01 + episodes + 2, draw(rng, 8) * 0.01 + episodes
    gain = two_way_difference(first, second)
    assert gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(2, abs=0.1)
    assert half(gain) < 0.1 < half(two_way_bootstrap(np.asarray, first))


def test_below_five_seeds_the_interval_is_over_episodes_only():
    rng = np.random.default_rng(2)
    table = draw(rng, 4)
    shifted = table + np.array([[0], [100], [-100], [0]])
    assert interval_over(4, 50) == "episodes"
    for x in (table, shifted):
        expected = 2.01 * x.mean(0).std(ddof=1) / np.sqrt(50)
        assert half(two_way_bootstrap(np.asarray, x)) == pytest.approx(expected, rel=0.1)
    assert interval_over(5, 50) == "seeds and episodes"
    more = draw(rng, 5, of_seeds=100)
    assert half(two_way_bootstrap(np.asarray, more)) > 40


def test_below_five_episodes_there_is_no_interval():
    rng = np.random.default_rng(3)
    assert interval_over(8, 4) is None
    table = draw(rng, 8, 4)
    found = two_way_bootstrap(np.asarray, table)
    assert found.value == pytest.approx(table.mean())
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(two_way_difference(table, table).low)


def test_a_statistic_is_taken_of_sums_over_episodes_seed_by_seed():
    part, whole = np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[2.0, 6.0], [1.0, 3.0]])
    assert two_way_bootstrap(np.divide, part, whole).value == pytest.approx((4 / 8 + 2 / 4) / 2)


def test_what_never_varies_has_an_interval_of_no_width():
    found = two_way_bootstrap(np.asarray, np.full((8, 50), 0.5))
    assert found == pytest.approx((0.5, 0.5, 0.5))
