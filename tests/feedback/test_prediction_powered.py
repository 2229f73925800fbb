"""A judge and some people together: valid whatever the judge says, narrower where it is right."""

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.feedback import Log
from rlli_jax.feedback.prediction_powered import prediction_powered_mean, provider_values


def drawn(seed, right, n=80, others=1_000):
    """Ratings, predictions of them, predictions of others; the true mean rating is .5."""
    rng = np.random.default_rng(seed)
    quality = 0.5 + 0.2 * rng.standard_normal(n + others)
    noise = 0.05 * rng.standard_normal(n + others)
    judge = 0.3 + (quality if right else rng.permutation(quality)) + noise
    return quality[:n], judge[:n], judge[n:]


# By ppi-python 0.2.3: ppi_mean_ci(y, f, others, alpha=0.05) and ppi_mean_pointestimate.
ANCHOR = {
    True: (0.4834489226174411, 0.46789140110268467, 0.49900644413219764),
    False: (0.5240684138516174, 0.4818366612070756, 0.5663001664961592),
}


@pytest.mark.parametrize("right", [True, False])
def test_estimates_equal_those_of_ppi_python(right):
    powered = prediction_powered_mean(*drawn(0, right))
    assert tuple(map(float, powered.estimate)) == pytest.approx(ANCHOR[right], abs=1e-9)


def test_intervals_cover_whether_the_judge_is_right_or_not_and_narrow_where_it_is():
    for right in (True, False):
        found = [prediction_powered_mean(*drawn(seed, right)) for seed in range(400)]
        covered = np.mean([x.estimate.low <= 0.5 <= x.estimate.high for x in found])
        assert 0.92 <= covered <= 0.98
        worth = np.mean([x.worth for x in found])
        assert worth > 5 if right else 0.95 < worth < 1.1


def log_of(seed, n=300, propensities=(0.5, 0.3, 0.2)):
    rng = np.random.default_rng(seed)
    trait = rng.standard_normal(n)
    truth = 0.5 + 0.1 * np.outer(trait, [1, 0, -1]) + [0.0, 0.05, 0.1]
    action = rng.choice(3, n, p=propensities)
    reward = (truth[np.arange(n), action] + 0.05 * rng.standard_normal(n)).clip(0, 1)
    log = Log(
        providers=("A", "B", "C"), action=action, reward=reward,
        propensity=np.array(propensities)[action], context=trait[:, None], context_names=("x",),
        user=np.arange(n), offered=np.ones((n, 3), bool),
    )  # fmt: skip
    return log, truth


@pytest.mark.parametrize("right", [True, False])
def test_values_of_providers_cover_and_a_useless_judge_does_no_harm(right):
    covered, widths = np.zeros(3), []
    for seed in range(200):
        log, truth = log_of(seed)
        judge = 0.8 * truth if right else np.random.default_rng(seed).uniform(size=truth.shape)
        values = provider_values(log, judge)
        for place, (powered, expected) in enumerate(
            zip(values.values(), (0.5, 0.55, 0.6), strict=True)
        ):
            covered[place] += powered.estimate.low <= expected <= powered.estimate.high
        widths.append(powered.worth)  # of the last, the one that was chosen least
    assert (covered >= 0.91 * 200).all()
    assert np.median(widths) > 2 if right else 0.95 < np.median(widths) < 1.1


def test_where_all_said_the_same_a_judge_is_worth_nothing_more():
    powered = prediction_powered_mean(np.zeros(5), np.arange(5.0), np.arange(9.0))
    assert (powered.trust, powered.worth) == (0, 1)


def test_too_few_people_and_other_shapes_are_refused():
    with pytest.raises(InputError, match="at least 2 people"):
        prediction_powered_mean(np.ones(1), np.ones(1), np.ones(5))
    log, truth = log_of(0)
    with pytest.raises(InputError, match="give one of each of 3 providers"):
        provider_values(log, truth[:, :2])
