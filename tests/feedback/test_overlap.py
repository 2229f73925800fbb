import numpy as np
import pytest

from rlli_jax.feedback.overlap import overlap


def of(probability, action, propensity):
    """Overlap where every provider was offered."""
    return overlap(
        probability, np.asarray(action), np.asarray(propensity), np.ones(probability.shape, bool)
    )


def uniform_log(n=1_000, providers=20):
    action = np.random.default_rng(0).integers(providers, size=n)
    return action, np.full(n, 1 / providers)


def skewed_log(probability, n=1_000):
    action = np.random.default_rng(0).choice(len(probability), n, p=probability)
    return action, np.asarray(probability)[action]


def test_equal_weights_make_every_round_effective_and_one_heavy_one_makes_it_one():
    action, propensity = uniform_log(50, 5)
    assert of(np.full((50, 5), 0.2), action, propensity).effective_sample == pytest.approx(50)
    once = np.zeros((50, 5))
    once[3, action[3]] = 1.0
    told = of(once, action, propensity)
    assert told.effective_sample == pytest.approx(1)
    assert (told.largest_weight, told.largest_share) == (5, 1)
    elsewhere = np.eye(5)[(action + 1) % 5]  # never what was logged
    told = of(elsewhere, action, propensity)
    assert (told.effective_sample, told.of_uniform, told.largest_share, told.rare) == (0, 0, 0, 0)


def test_a_policy_that_never_hesitates_is_not_flagged_by_a_long_random_log():
    action, propensity = uniform_log(4_000)
    always = np.tile(np.eye(20)[7], (4_000, 1))
    told = of(always, action, propensity)
    assert told.effective_sample / 4_000 < 0.06  # it meets one round in twenty
    assert told.of_uniform == pytest.approx(1, abs=0.1)
    assert told.warnings(4_000) == ()


def test_a_policy_much_like_the_one_that_logged_is_not_flagged():
    probability = np.array([0.5, 0.3, 0.15, 0.05])
    action, propensity = skewed_log(probability)
    told = of(np.tile([0.3, 0.4, 0.2, 0.1], (1_000, 1)), action, propensity)
    assert told.warnings(1_000) == ()


def test_choices_that_the_log_made_rarely_are_flagged_with_their_share():
    action, propensity = skewed_log(np.array([0.97, 0.03]), 20_000)  # .03 is below .1 of two
    told = of(np.tile([0.5, 0.5], (20_000, 1)), action, propensity)
    assert told.rare == pytest.approx(0.5, abs=0.05)
    (why,) = told.warnings(20_000)
    assert why.startswith("poor overlap: 5")
    assert "less than 0.2 of the probability of chance" in why


def test_few_effective_rounds_and_one_heavy_round_are_flagged():
    propensity = np.full(400, 0.5)
    propensity[0] = 1e-3
    told = of(np.full((400, 2), 0.5), np.arange(400) % 2, propensity)
    warnings = " ".join(told.warnings(400))
    assert "worth only 3 of its 400 rounds" in warnings
    assert "one round carries 56% of all weight" in warnings
    assert "a uniformly random log would need 0.8%" in warnings
