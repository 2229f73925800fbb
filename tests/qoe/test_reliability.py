"""Reliability and shrinkage, against hand computation and simulated tables of known variance."""

import numpy as np
import pytest
from scipy.special import ndtr

from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import (
    intraclass_correlation,
    pool,
    reliability,
    repeat_spread,
    shrink,
    standard_scores,
    variance_components,
)

EFFECTS = (
    ("user",),
    ("request",),
    ("provider",),
    ("user", "request"),
    ("user", "provider"),
    ("request", "provider"),
    ("user", "request", "provider"),
)
AXES = ("user", "request", "provider")


def make_table(qoe, valid=None, **fields):
    qoe = np.asarray(qoe, float)
    return QoETable(
        qoe=qoe,
        valid=np.ones(qoe.shape, bool) if valid is None else valid,
        users=tuple(f"u{i}" for i in range(qoe.shape[0])),
        requests=tuple(f"r{i}" for i in range(qoe.shape[1])),
        providers=tuple(f"p{i}" for i in range(qoe.shape[2])),
        judge="test",
        stand_in=True,
        **fields,
    )


def simulate(shape, variances, noise, seed, holes=0.0):
    """A table from the random-effects model, and its true cells [K, R, L]."""
    rng = np.random.default_rng(seed)
    truth = np.full(shape[:3], 0.5)
    for effect, variance in variances.items():
        size = [n if axis in effect else 1 for n, axis in zip(shape, AXES, strict=False)]
        truth = truth + rng.normal(0, np.sqrt(variance), size)
    qoe = truth[..., None] + rng.normal(0, np.sqrt(noise), shape)
    valid = rng.random(shape) >= holes
    valid[:, :, 0, 0] = True
    return make_table(np.clip(qoe, 0, 1), valid), truth


VARIANCES = {
    ("user",): 0.004,
    ("request",): 0.002,
    ("provider",): 0.006,
    ("user", "request"): 0.001,
    ("user", "provider"): 0.003,
    ("request", "provider"): 0.002,
    ("user", "request", "provider"): 0.001,
}


# The worked example of Shrout and Fleiss (1979), table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


def test_icc_is_that_of_shrout_and_fleiss():
    icc = intraclass_correlation(SHROUT_FLEISS, np.ones((6, 4), bool))
    assert icc.single == pytest.approx(0.1657, abs=5e-5)
    assert icc.average == pytest.approx(0.4428, abs=5e-5)


def test_icc_by_hand_with_unequal_numbers_of_ratings():
    # Targets (0, 2) and (5); a third without ratings. Grand mean 7/3.
    # Between: 2 (1 - 7/3)² + (5 - 7/3)² = 32/3 with 1 degree of freedom; within: 2 with 1.
    # k = (3 - 5/3) / 1 = 4/3.
    ratings = np.array([[0, 2], [5, 9], [7, 7]])
    valid = np.array([[True, True], [True, False], [False, False]])
    icc = intraclass_correlation(ratings, valid)
    assert icc.single == pytest.approx((32 / 3 - 2) / (32 / 3 + 2 / 3))
    assert icc.average == pytest.approx((32 / 3 - 2) / (32 / 3))


@pytest.mark.parametrize("ratings", [[[1.0], [2.0]], [[1.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_icc_of_nothing_to_compare_is_nan(ratings):
    icc = intraclass_correlation(np.array(ratings), np.ones(np.shape(ratings), bool))
    assert np.isnan(icc).all()


def test_reliability_by_hand():
    # One user, two requests, two providers, two repeats. (r1, p0) has one rating, (r1, p1) has no
    # picture.
    qoe = np.array([[[[0.1, 0.3], [0.6, 0.6]], [[0.4, 0.0], [0.0, 0.0]]]])
    valid = np.array([[[[True, True], [True, True]], [[True, False], [False, False]]]])
    missing = np.array([[[0, 0], [1, 0]]])
    mass = np.array([[[0.9, 1.0], [0.8, 0.0]]])
    table = make_table(qoe, valid, missing=missing, valid_mass=mass)
    spread = repeat_spread(table)[0]
    np.testing.assert_allclose(spread[0], [np.sqrt(0.02), 0], atol=1e-7)
    assert np.isnan(spread[1]).all()
    measured = reliability(table)
    assert (measured.ratings, measured.imputed) == (5, 0)
    assert measured.invalid == pytest.approx(1 / 6)
    assert measured.valid_mass == pytest.approx((2 * 0.9 + 2 * 1.0 + 0.8) / 5)
    assert measured.repeat_sd == pytest.approx(np.sqrt((0.02 + 0) / 2))
    use = measured.scale_use["u0"]
    assert use.mean == pytest.approx(0.4)
    shares = np.array([1, 1, 1, 2]) / 5  # 0.1, 0.3, 0.4, and 0.6 twice
    assert use.entropy == pytest.approx(-(shares * np.log10(shares)).sum())
    assert np.isnan(measured.agreement)
    assert "16.7% of the answers invalid" in str(measured)
    assert "users: one only" in str(measured)


def test_imputed_answers_are_no_ratings():
    """All measures and estimates are those of the table in which they are holes."""
    table, _ = simulate((3, 5, 4, 2), VARIANCES, 0.01, seed=0)
    seen = np.ones((3, 5, 4), bool)
    seen[0, 1, 2] = seen[2, 3, 1] = False
    rated = np.repeat(seen[..., None], 2, -1)
    imputed = make_table(np.where(rated, table.qoe, 0.99), missing=2 * ~seen)
    holes = make_table(table.qoe, rated, missing=2 * ~seen)
    measured, expected = reliability(imputed), reliability(holes)
    assert (measured.imputed, expected.imputed) == (4, 0)
    assert measured.invalid == expected.invalid == pytest.approx(4 / 120)
    assert str(measured).replace("4 imputed", "0 imputed") == str(expected)
    np.testing.assert_array_equal(measured.correlations, expected.correlations)
    filled, left = shrink(imputed), shrink(holes)
    np.testing.assert_array_equal(filled.mean[seen], left.mean[seen])
    np.testing.assert_array_equal(filled.missing, ~seen)
    assert filled.legal.all()
    assert (filled.mean < 0.95).all()  # predicted, not the imputed 0.99
    np.testing.assert_array_equal(left.legal, seen)
    for shrunk in (False, True):
        np.testing.assert_array_equal(
            pool(imputed, shrunk=shrunk).mean, pool(holes, shrunk=shrunk).mean
        )
    nothing = make_table(table.qoe, missing=np.array([0, 2, 0])[:, None, None] + 0 * seen)
    with pytest.raises(InputError, match="user 'u1' has only imputed answers"):
        shrink(nothing)


def test_pool_keeps_the_valid_mass_and_what_nobody_rated():
    valid = np.ones((2, 2, 2, 1), bool)
    valid[:, 0, 1] = valid[0, 1, 1] = False
    mass = np.array([[[0.8, 0], [0.9, 0]], [[0.6, 0], [0.5, 0.7]]])
    pooled = pool(
        make_table(
            np.arange(8).reshape(valid.shape) / 8, valid, valid_mass=mass, missing=~valid[..., 0]
        )
    )
    np.testing.assert_allclose(pooled.valid_mass, [[[0.7, 0], [0.7, 0.7]]], rtol=1e-6)
    np.testing.assert_array_equal(pooled.missing, [[[0, 1], [0, 0]]])


def test_scale_use_of_a_compressed_judge():
    even = np.linspace(0.05, 0.95, 10).reshape(1, 10, 1, 1)
    table = make_table(np.concatenate([even, np.full_like(even, 0.9)]))
    wide, narrow = reliability(table).scale_use.values()
    assert wide.entropy == pytest.approx(1)
    assert (wide.low, wide.high) == pytest.approx((0.095, 0.905))
    assert narrow == pytest.approx((0.9, 0.9, 0.9, 0))


def test_agreement_is_pearsons_correlation_over_shared_cells():
    rng = np.random.default_rng(0)
    qoe = rng.random((4, 6, 5, 1))
    qoe[3] = 0.5  # has no opinion
    valid = rng.random(qoe.shape) < 0.7
    valid[:, :, 0] = True
    measured = reliability(make_table(qoe, valid))
    for i in range(3):
        for j in range(3):
            both = valid[i] & valid[j]
            expected = np.corrcoef(qoe[i][both], qoe[j][both])[0, 1]
            assert measured.correlations[i, j] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(measured.correlations[3]).all()
    upper = measured.correlations[:3, :3][np.triu_indices(3, 1)]
    assert measured.agreement == pytest.approx(upper.mean())


def test_components_without_holes_are_the_analysis_of_variance():
    """Brennan (2001), ch. 3: mean squares of the p x i design, solved by hand."""
    rng = np.random.default_rng(1)
    y = rng.random((1, 7, 4, 1)).astype(np.float32)
    table = y[0, :, :, 0].astype(float)
    rows, columns = table.mean(1), table.mean(0)
    ms_rows = 4 * rows.var(ddof=1)
    ms_columns = 7 * columns.var(ddof=1)
    left = table - rows[:, None] - columns + table.mean()
    ms_left = (left**2).sum() / (6 * 3)
    components = variance_components(make_table(y))
    assert components.residual == pytest.approx(ms_left)
    assert components.effects == pytest.approx(
        {("request",): (ms_rows - ms_left) / 4, ("provider",): (ms_columns - ms_left) / 7}
    )


def test_components_are_unbiased_with_holes():
    """The mean over 200 small tables is within 4 standard errors of the truth."""
    estimates = []
    for seed in range(200):
        table, _ = simulate((6, 8, 5, 2), VARIANCES, 0.004, seed, holes=0.3)
        found = variance_components(table)
        assert tuple(found.effects) == EFFECTS
        estimates.append([*found.effects.values(), found.residual])
    truth = np.array([*VARIANCES.values(), 0.004])
    error = np.std(estimates, 0) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, 0) - truth) < 4 * error).all()
    assert (error < 0.2 * truth + 2e-4).all()  # so that the line above says something


def test_effects_that_cannot_be_told_apart_are_left_out():
    qoe = np.random.default_rng(0).random((3, 4, 5, 2))
    assert tuple(variance_components(make_table(qoe)).effects) == EFFECTS
    assert tuple(variance_components(make_table(qoe[..., :1])).effects) == EFFECTS[:-1]
    one_user = variance_components(make_table(qoe[:1]))
    assert tuple(one_user.effects) == (("request",), ("provider",), ("request", "provider"))
    assert variance_components(make_table(qoe[:1, :1, :1])).effects == {}
    shares = one_user.shares
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {"request", "provider", "request:provider", "residual"}


def dense_prediction(table):
    """Best linear unbiased prediction with the covariance of all answers written out."""
    components = variance_components(table)
    index = np.argwhere(table.valid)
    y = table.qoe[table.valid].astype(float)
    cells = np.argwhere(np.ones(table.mean.shape, bool))

    def covariance(a, b):
        total = np.zeros((len(a), len(b)))
        for effect, variance in components.effects.items():
            axes = [AXES.index(axis) for axis in effect]
            same = (a[:, None, axes] == b[None][..., axes]).all(-1)
            total += max(variance, 0) * same
        return total

    v = covariance(index, index) + components.residual * np.eye(len(y))
    ones = np.linalg.solve(v, np.ones(len(y)))
    mean = ones @ y / ones.sum()
    predicted = mean + covariance(cells, index) @ np.linalg.solve(v, y - mean)
    return predicted.reshape(table.mean.shape)


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (4, 6, 3, 1), (1, 6, 4, 3), (1, 6, 4, 1)])
def test_shrunk_cells_are_the_best_linear_prediction(shape):
    table, _ = simulate(shape, VARIANCES, 0.004, seed=3, holes=0.2)
    shrunk = shrink(table)
    expected = np.where(table.legal, np.clip(dense_prediction(table), 0, 1), 0)
    np.testing.assert_allclose(shrunk.mean, expected, atol=1e-6)
    np.testing.assert_array_equal(shrunk.legal, table.legal)
    assert (shrunk.users, shrunk.requests) == (table.users, table.requests)
    assert (shrunk.providers, shrunk.stand_in) == (table.providers, True)
    assert shrunk.judge == "test, shrunk toward user and provider means"


def test_nothing_is_shrunk_without_noise_and_all_is_with_noise_only():
    effects = {e: v for e, v in VARIANCES.items() if e != ("user", "request", "provider")}
    table, truth = simulate((5, 6, 4, 2), effects, 0.0, seed=0)
    np.testing.assert_allclose(shrink(table).mean, np.clip(truth, 0, 1), atol=1e-4)
    constant = make_table(np.full((2, 3, 4, 2), 0.25))
    np.testing.assert_array_equal(shrink(constant).mean, 0.25)
    noise, _ = simulate((8, 20, 6, 2), {}, 0.02, seed=0)
    assert shrink(noise).mean.std() < 0.2 * noise.mean.std()


def choices_value(scores, truth, legal):
    choice = np.where(legal, scores, -np.inf).argmax(-1)
    return np.take_along_axis(truth, choice[..., None], -1).mean()


@pytest.mark.parametrize("samples", [1, 3])
def test_choices_by_shrunk_scores_are_truly_better(samples):
    gains = []
    for seed in range(30):
        table, truth = simulate((6, 12, 5, samples), VARIANCES, 0.02, seed, holes=0.1)
        raw = choices_value(table.mean, truth, table.legal)
        gains.append(choices_value(shrink(table).mean, truth, table.legal) - raw)
    print({"samples": samples, "gain": np.mean(gains)})
    assert np.mean(gains) > 4 * np.std(gains) / np.sqrt(len(gains))


def test_shrunk_cells_are_nearer_to_the_truth():
    table, truth = simulate((6, 12, 5, 2), VARIANCES, 0.02, seed=0)
    raw, shrunk = (np.mean((t.mean - truth) ** 2) for t in (table, shrink(table)))
    assert shrunk < 0.5 * raw


def test_standard_scores():
    table, _ = simulate((3, 5, 4, 2), VARIANCES, 0.02, seed=0, holes=0.2)
    z = standard_scores(table)
    for k in range(3):
        assert z[k][table.valid[k]].mean() == pytest.approx(0, abs=1e-9)
        assert z[k][table.valid[k]].std() == pytest.approx(1)
    assert (z[~table.valid] == 0).all()
    assert (standard_scores(make_table(np.full((1, 2, 2, 1), 0.7))) == 0).all()


def test_pool_is_the_mean_of_the_standardised_judges_who_answered():
    table, _ = simulate((3, 5, 4, 1), VARIANCES, 0.02, seed=0, holes=0.3)
    pooled = pool(table)
    z = np.where(table.valid, standard_scores(table), np.nan)[..., 0]
    legal = table.legal.any(0)
    np.testing.assert_allclose(pooled.mean[0][legal], ndtr(np.nanmean(z[:, legal], 0)), atol=1e-6)
    np.testing.assert_array_equal(pooled.legal[0], legal)
    assert pooled.users == ("pool",)
    assert pooled.judge == "test, pooled over 3 standardised judges"
    assert pooled.stand_in


@pytest.mark.parametrize("shrunk", [False, True])
def test_pool_does_not_depend_on_a_judges_scale(shrunk):
    table, _ = simulate((4, 8, 5, 1), VARIANCES, 0.02, seed=0, holes=0.2)
    squeezed = table.qoe * np.array([1, 0.1, 0.5, 1])[:, None, None, None]
    squeezed += np.array([0, 0.85, 0.25, 0])[:, None, None, None]
    other = pool(make_table(squeezed, table.valid), shrunk=shrunk)
    np.testing.assert_allclose(other.mean, pool(table, shrunk=shrunk).mean, atol=1e-5)


def test_shrunk_pool_beats_pool_and_single_judges():
    """Judges who share a truth, lean to providers of their own, and are noisy."""
    leaning = {("user", "provider"): 0.002, ("provider",): 0.006, ("request", "provider"): 0.001}
    rows = []
    for seed in range(30):
        table, truth = simulate((4, 25, 6, 1), leaning, 0.02, seed, holes=0.05)
        # What the judges have in common: their mean, up to their own leaning over four judges.
        common, legal = truth.mean(0), table.legal.any(0)
        single = choices_value(table.mean[0], common, table.legal[0])
        rows.append(
            [
                single,
                choices_value(pool(table).mean[0], common, legal),
                choices_value(pool(table, shrunk=True).mean[0], common, legal),
            ]
        )
    single, pooled, shrunk = np.array(rows).T
    for better, worse in ((pooled, single), (shrunk, pooled)):
        gain = better - worse
        assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))


def test_many_users_are_summed_up_in_the_text():
    table = make_table(np.random.default_rng(0).random((30, 3, 2, 2)))
    text = str(reliability(table))
    assert "the median of 30 users" in text
    assert len(text.splitlines()) == 5
