"""The statistics against values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from rlli_jax.experiments.statistics import (
    bootstrap_difference,
    interquartile_mean,
    jain_index,
    performance_profile,
    probability_of_improvement,
    smooth,
    stratified_bootstrap,
    t_interval,
)


def test_interquartile_mean_cuts_a_quarter_from_each_end():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == 3.5  # of 2, 3, 4, 5
    np.testing.assert_array_equal(interquartile_mean([[0, 2, 4, 99], [1, 1, 1, 1]], 1), [3, 1])


def test_bootstrap_interval_of_two_runs_is_their_range():
    # Resampled means of (0, 1) are 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    assert tuple(map(float, stratified_bootstrap([0.0, 1.0]))) == (0.5, 0.0, 1.0)


def test_bootstrap_resamples_within_strata_only():
    # Each stratum is constant, so that no stratified resample can differ from the data.
    scores = np.tile([0.0, 1.0], (6, 1))
    assert tuple(map(float, stratified_bootstrap(scores))) == (0.5, 0.5, 0.5)


def test_bootstrap_repeats_with_its_seed_and_covers_the_value():
    scores = np.random.default_rng(0).normal(size=(10, 3))
    first, again = stratified_bootstrap(scores, seed=1), stratified_bootstrap(scores, seed=1)
    assert first == again
    assert first.low < first.value < first.high
    assert first.value == interquartile_mean(scores)
    assert stratified_bootstrap(scores, seed=2).low != first.low


def test_bootstrap_interval_has_its_nominal_coverage():
    generator = np.random.default_rng(3)
    estimates = [
        stratified_bootstrap(generator.normal(size=40), resamples=400, seed=i) for i in range(300)
    ]
    coverage = np.mean([e.low <= 0 <= e.high for e in estimates])
    assert 0.89 < coverage < 0.99


def test_one_run_has_no_interval():
    for estimate in (stratified_bootstrap([2.0]), t_interval([2.0])):
        assert estimate.value == 2
        assert np.isnan([estimate.low, estimate.high]).all()
    assert np.isnan(bootstrap_difference([1.0, 2.0], [3.0]).low)


def test_difference_is_first_minus_second():
    assert tuple(map(float, bootstrap_difference([3.0] * 4, [1.0] * 5))) == (2, 2, 2)
    low, high = bootstrap_difference([0.0, 1.0], [0.0, 1.0])[1:]
    assert low == -high == -1


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    # Of six pairs 1 < 2, 1 < 2; 3 > 2, 3 = 3 and so on: (0 + 0 + 1 + 1/2 + 1 + 1) / 6.
    estimate = probability_of_improvement([1, 3, 5], [2, 3])
    assert float(estimate.value) == 3.5 / 6
    # Two tasks of their own: certain on the first, a tie on the second.
    first, second = [[2.0, 1.0]] * 3, [[1.0, 1.0]] * 3
    assert tuple(map(float, probability_of_improvement(first, second))) == (0.75, 0.75, 0.75)
    assert probability_of_improvement([1.0], [0.0, 2.0]).value == 0.5
    assert np.isnan(probability_of_improvement([1.0], [0.0, 2.0]).low)


def test_probability_of_improvement_agrees_with_mann_and_whitney():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 9, 20), generator.integers(0, 9, 13)
    u = stats.mannwhitneyu(first, second).statistic
    estimate = probability_of_improvement(first, second, resamples=300)
    np.testing.assert_allclose(estimate.value, u / (20 * 13))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_bootstrap_of_an_improvement_is_that_of_its_pairs():
    # Two runs against one value: both, one or none of the redrawn runs are above it.
    estimate = probability_of_improvement([0.0, 2.0], [1.0, 1.0])
    assert tuple(map(float, estimate)) == (0.5, 0.0, 1.0)


def test_performance_profile_is_the_share_of_runs_above():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    value, low, high = performance_profile(scores, [-1, 0, 1.5, 2.5, 3])
    np.testing.assert_array_equal(value, [1, 0.75, 0.5, 0.25, 0])
    # Above 1.5 is one run of two in each task; both tasks may redraw it twice or never.
    np.testing.assert_array_equal([low[2], high[2]], [0, 1])
    np.testing.assert_array_equal([low[0], high[0], low[4], high[4]], [1, 1, 0, 0])
    assert np.isnan(performance_profile([1.0], [0.5]).low).all()


def test_t_interval_matches_the_table_of_students_t():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan]])
    mean, low, high = t_interval(values)
    np.testing.assert_array_equal(mean, [2, 5])
    half = 4.302652729911275 / np.sqrt(3)  # t(0.975; 2 degrees of freedom), standard deviation 1
    np.testing.assert_allclose([low[0], high[0]], [2 - half, 2 + half])
    assert np.isnan([low[1], high[1]]).all()
    assert np.isnan(t_interval([[np.nan], [np.nan]]).value).all()


def test_smooth_leaves_out_nan_and_keeps_the_ends():
    np.testing.assert_allclose(smooth([0.0, 3.0, 6.0, 3.0], 3), [1.5, 3, 4, 4.5])
    np.testing.assert_allclose(smooth([1.0, np.nan, 5.0, np.nan, np.nan, np.nan, 2.0], 3),
                               [1, 3, 5, 5, np.nan, 2, 2])  # fmt: skip
    np.testing.assert_array_equal(smooth([[1.0, 2.0], [3.0, 4.0]], 1), [[1, 2], [3, 4]])


def test_jain_index():
    assert jain_index([1, 1, 1, 1]) == 1
    assert jain_index([1, 0, 0, 0]) == 0.25
    assert jain_index([0, 0]) == 1
    np.testing.assert_allclose(jain_index([[1, 2, 3], [4, 4, 4]]), [36 / 42, 1])
    with pytest.raises(ValueError, match="not negative"):
        jain_index([1, -1])
