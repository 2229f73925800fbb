"""The statistics against values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from rlli_jax.statistics import (
    Estimate,
    bootstrap_difference,
    bootstrap_iqm,
    interquartile_mean,
    jain_index,
    performance_profile,
    probability_of_improvement,
    smooth,
    t_interval,
    within,
)


def test_interquartile_mean_cuts_a_quarter_from_each_end():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == 3.5  # of 2, 3, 4, 5
    np.testing.assert_array_equal(interquartile_mean([[0, 2, 4, 99], [1, 1, 1, 1]], 1), [3, 1])


def test_bootstrap_resamples_within_tasks_only():
    # Each task's scores are constant, so that no resample of runs can differ from the data.
    scores = np.tile([0.0, 1.0], (6, 1))
    assert tuple(map(float, bootstrap_iqm(scores))) == (0.5, 0.5, 0.5)


def test_bootstrap_repeats_with_its_seed_and_covers_the_value():
    scores = np.random.default_rng(0).normal(size=(10, 3))
    first, again = bootstrap_iqm(scores, seed=1), bootstrap_iqm(scores, seed=1)
    assert first == again
    assert first.low < first.value < first.high
    assert first.value == interquartile_mean(scores)
    assert bootstrap_iqm(scores, seed=2).low != first.low


def test_the_interval_of_many_runs_is_that_of_the_theory():
    # The 25 % trimmed mean of n normal values has variance 1.1947 / n (Staudte and Sheather 1990).
    scores = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    low, high = bootstrap_iqm(scores, resamples=20_000)[1:]
    np.testing.assert_allclose([low, high], [-0.1074, 0.1074], rtol=0.05)


DRAWS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "skewed": lambda generator, shape: generator.beta(8, 1, shape),
    "heavy tails": lambda generator, shape: generator.standard_t(3, shape),
}


@pytest.mark.parametrize("runs", [5, 10])
@pytest.mark.parametrize("kind", DRAWS)
def test_intervals_of_few_runs_cover_what_they_claim(kind, runs):
    """Of 250 studies 95 % are to hold the truth; two standard errors are 2.8 %."""
    generator, draw = np.random.default_rng(runs), DRAWS[kind]
    truth = float(interquartile_mean(draw(generator, 400_000)))
    mean = float(draw(generator, 400_000).mean())
    covered = np.zeros((250, 3), bool)
    for i in range(len(covered)):
        first, second = draw(generator, (2, runs))
        estimates = (
            (bootstrap_iqm(first, resamples=200, seed=i), truth),
            (bootstrap_difference(first, second, resamples=200, seed=i), 0),
            (t_interval(first), mean),
        )
        covered[i] = [e.low <= right <= e.high for e, right in estimates]
    # Student's t is exact for normal runs, and too narrow for skewed ones.
    least = [0.92, 0.92, 0.85 if kind == "skewed" else 0.92]
    assert (covered.mean(0) >= least).all(), covered.mean(0)
    assert (covered.mean(0) < 0.998).all(), covered.mean(0)


def test_what_seeds_share_at_all_points_is_in_the_interval():
    """A correlation of .2 between points: redrawn point by point, .68 would be covered."""
    generator = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        own, shared = generator.normal(size=(10, 20)), generator.normal(size=(10, 1))
        estimate = bootstrap_iqm(0.8**0.5 * own + 0.2**0.5 * shared, resamples=200, seed=i)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.9 * 200 <= covered < 200


def test_the_interval_over_several_points_covers_what_it_claims():
    """Points that differ far more than their runs do, as in a sweep."""
    generator = np.random.default_rng(0)
    levels = np.linspace(0, 1, 8)
    covered = []
    for i in range(250):
        scores = levels + 0.02 * generator.normal(size=(5, len(levels)))
        estimate = bootstrap_iqm(scores, resamples=200, seed=i)
        covered.append(estimate.low <= 0.5 <= estimate.high)
    assert 0.92 <= np.mean(covered) < 0.998


@pytest.mark.parametrize("runs", [5, 10])
@pytest.mark.parametrize("chance", [0.5, 0.9, 0.98])
def test_the_interval_of_an_improvement_covers_what_it_claims(runs, chance):
    generator = np.random.default_rng(runs)
    ahead = np.sqrt(2) * stats.norm.ppf(chance)
    estimates = [
        probability_of_improvement(generator.normal(ahead, 1, runs), generator.normal(size=runs))
        for _ in range(600)
    ]
    assert np.mean([e.low <= chance <= e.high for e in estimates]) > 0.93


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_of_a_profile_covers_what_it_claims(share):
    generator = np.random.default_rng(1)
    estimates = [performance_profile(generator.random(10), [1 - share]) for _ in range(600)]
    # Shares of ten runs are a few numbers only, so the coverage cannot be 95 % at every share.
    assert np.mean([e.low[0] <= share <= e.high[0] for e in estimates]) > 0.9


@pytest.mark.parametrize("runs", [1, 2, 3, 4])
def test_fewer_than_five_runs_have_no_interval(runs):
    scores, enough = np.arange(runs, dtype=float), np.arange(5.0)
    for estimate in (
        bootstrap_iqm(scores),
        bootstrap_iqm(np.tile(scores[:, None], (1, 30))),
        bootstrap_difference(scores, enough),
        bootstrap_difference(enough, scores),
        probability_of_improvement(scores, enough),
        probability_of_improvement(enough, scores),
        performance_profile(scores, [0.5]),
        t_interval(scores),
    ):
        assert np.isfinite(estimate.value).all()
        assert np.isnan([estimate.low, estimate.high]).all()
    assert np.isfinite(bootstrap_iqm(enough).low)


def test_difference_is_first_minus_second():
    assert tuple(map(float, bootstrap_difference([3.0] * 6, [1.0] * 5))) == (2, 2, 2)
    value, low, high = bootstrap_difference([0.0, 1.0] * 3, [0.0, 1.0] * 3)
    assert value == 0
    assert low == -high < 0


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    # Of six pairs 1 < 2, 1 < 2; 3 > 2, 3 = 3 and so on: (0 + 0 + 1 + 1/2 + 1 + 1) / 6.
    estimate = probability_of_improvement([1, 3, 5], [2, 3])
    assert float(estimate.value) == 3.5 / 6
    # Two tasks of their own: certain on the first, a tie on the second.
    first, second = [[2.0, 1.0]] * 5, [[1.0, 1.0]] * 5
    estimate = probability_of_improvement(first, second)
    assert float(estimate.value) == 0.75
    assert estimate.low < 0.75 < estimate.high
    assert probability_of_improvement([1.0], [0.0, 2.0]).value == 0.5


def test_five_runs_that_all_win_do_not_prove_that_every_run_wins():
    value, low, high = map(float, probability_of_improvement(np.arange(5) + 9.0, np.arange(5)))
    assert (value, high) == (1, 1)
    # Newcombe 2006, method 5, solved by hand for U / mn = 1, m = n = 5.
    p = low
    spread = 1 + 4 * ((1 - p) / (2 - p) + p / (1 + p))
    np.testing.assert_allclose((1 - p) ** 2, 1.959964**2 * p * (1 - p) * spread / 25, rtol=1e-5)
    assert 0.6 < low < 0.7
    assert abs(probability_of_improvement(np.arange(5), np.arange(5) + 9.0).high - (1 - low)) < 1e-9


def test_probability_of_improvement_agrees_with_mann_and_whitney():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 9, 20), generator.integers(0, 9, 13)
    u = stats.mannwhitneyu(first, second).statistic
    estimate = probability_of_improvement(first, second)
    np.testing.assert_allclose(estimate.value, u / (20 * 13))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_performance_profile_is_the_share_of_runs_above():
    scores = np.tile([[0.0, 1.0], [2.0, 3.0]], (3, 1))
    value, low, high = performance_profile(scores, [-1, 0, 1.5, 2.5, 3])
    np.testing.assert_array_equal(value, [1, 0.75, 0.5, 0.25, 0])
    wilson = stats.binomtest(9, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[1], high[1]], [wilson.low, wilson.high])
    np.testing.assert_allclose(low[0], 1 - high[4])
    assert (high[0], low[4]) == (1, 0)


def test_t_interval_matches_the_table_of_students_t():
    values = np.stack([np.arange(1.0, 6), [5, 6, 7, 8, np.nan]], 1)
    mean, low, high = t_interval(values)
    np.testing.assert_array_equal(mean, [3, 6.5])
    half = 2.776445105197793 * np.sqrt(2.5 / 5)  # t(0.975; 4 degrees of freedom), variance 2.5
    np.testing.assert_allclose([low[0], high[0]], [3 - half, 3 + half])
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


def test_an_interval_of_a_share_ends_where_shares_do_and_keeps_its_value():
    shares = np.array([0.99, 0.97, 1.0, 1.0, 0.9])
    value, low, high = t_interval(shares)
    assert high > 1
    assert within(t_interval(shares), 0, 1) == (value, low, 1)
    # A value that chance puts beyond stays within its interval.
    assert within(Estimate(*np.array([1.02, 0.9, 1.1])), 0, 1) == (1.02, 0.9, 1.02)
    none = within(t_interval(shares[:2]), 0, 1)
    assert np.isnan(none[1:]).all()
