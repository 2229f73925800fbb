"""The model of QoE: what it predicts from some answers, how sure it is, and what it ignores."""

import tracemalloc

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.qoe.model import fit_model, persona_features

USERS, REQUESTS, PROVIDERS = 150, 4, 4


@pytest.fixture(scope="module")
def people():
    return Population.sample(USERS, group="women 21-40", seed=3)


def simulated(traits, linear, seed=0, user=0.0, noise=0.05):
    """Truth and answers [K, R, L]: provider and picture effects, traits, users' own leanings."""
    rng = np.random.default_rng(seed)
    phi = persona_features(traits, len(traits))[:, 1:6]
    shape = (len(traits), REQUESTS, PROVIDERS)
    truth = 0.5 + rng.normal(0, 0.08, shape[2]) + rng.normal(0, 0.04, shape[1:])
    slopes = rng.normal(0, linear, (shape[2], 5)) + rng.normal(0, linear / 2, (*shape[1:], 5))
    truth = truth + np.einsum("kf,rlf->krl", phi, slopes)
    truth = truth + rng.normal(0, user, (shape[0], 1, shape[2]))
    return truth, np.clip(truth + rng.normal(0, noise, shape), 0, 1)


def left_out(answers, share, seed=0):
    """The answers with all but a share made holes."""
    return np.where(np.random.default_rng(seed).random(answers.shape) < share, answers, np.nan)


def coverage(prediction, answers, given):
    low, high = prediction.interval(0.9)
    return ((answers >= low) & (answers <= high))[np.isnan(given)].mean()


def gain(truth, chosen):
    """Share of what personal choice gains over the best single provider."""
    values = truth.mean(1)
    single, best = values.mean(0).max(), values.max(1).mean()
    return (values[np.arange(len(values)), chosen].mean() - single) / (best - single)


def test_a_tenth_of_the_answers_chooses_almost_as_well_as_knowing_all(people):
    truth, answers = simulated(people.traits, linear=0.05)
    given = left_out(answers, 0.1)
    users = fit_model(given, people.traits).users()
    assert gain(truth, users.mean.mean(1).argmax(-1)) > 0.95
    assert 0.85 < coverage(users, answers, given) < 0.95


def test_intervals_hold_with_users_own_tastes(people):
    truth, answers = simulated(people.traits, linear=0.03, user=0.05)
    given = left_out(answers, 0.3)
    model = fit_model(given, people.traits)
    assert model.variances.user_contrast**0.5 == pytest.approx(0.05, rel=0.3)
    assert model.variances.noise**0.5 == pytest.approx(0.05, rel=0.2)
    users = model.users()
    assert 0.85 < coverage(users, answers, given) < 0.95
    differences = users.mean - users.mean.mean(-1, keepdims=True)
    truly = truth - truth.mean(-1, keepdims=True)
    centre = np.eye(PROVIDERS) - 1 / PROVIDERS
    spread = np.einsum("la,krab,lb->krl", centre, users.covariance, centre) ** 0.5
    assert 0.82 < (np.abs(differences - truly) < 1.645 * spread).mean() < 0.97


def test_intervals_hold_with_very_few_answers(people):
    _, answers = simulated(people.traits, linear=0.05)
    held = []
    for seed in range(12):
        given = left_out(answers, 0.01, seed)  # 24 answers
        held.append(coverage(fit_model(given, people.traits).users(), answers, given))
    assert 0.87 < np.mean(held) < 0.94


def test_traits_that_mean_nothing_are_found_out(people):
    _, answers = simulated(people.traits, linear=0.0, user=0.05)
    model = fit_model(left_out(answers, 0.4), people.traits)
    explained = (model.variances.effects[:, 1] * 5).max()
    assert explained < 0.05 * model.variances.user_contrast


def test_people_nobody_asked_are_predicted_by_their_traits(people):
    everyone = Population.sample(400, group="women 21-40", seed=5).traits
    truth, answers = simulated(everyone, linear=0.05)
    model = fit_model(left_out(answers[:100], 0.5), everyone[:100])
    others = model.people(model.features(everyone[100:], 300))
    assert gain(truth[100:], others.mean.mean(1).argmax(-1)) > 0.95
    nobody = np.full((300, REQUESTS, PROVIDERS), np.nan)
    assert 0.85 < coverage(others, answers[100:], nobody) < 0.95


def test_the_order_of_users_does_not_matter(people):
    _, answers = simulated(people.traits, linear=0.05)
    given = left_out(answers, 0.2)
    order = np.random.default_rng(0).permutation(USERS)
    one = fit_model(given, people.traits).users()
    other = fit_model(given[order], people.traits[order]).users()
    np.testing.assert_allclose(other.mean, one.mean[order], atol=1e-6)


def test_covariances_are_covariances(people):
    _, answers = simulated(people.traits, linear=0.03, user=0.03)
    users = fit_model(left_out(answers, 0.1), people.traits).users()
    np.testing.assert_allclose(users.covariance, users.covariance.swapaxes(-1, -2), atol=1e-12)
    assert np.linalg.eigvalsh(users.covariance).min() > -1e-12


def test_one_user_one_provider_and_equal_answers_give_no_false_certainty(people):
    _, answers = simulated(people.traits, linear=0.05)
    one_user = fit_model(answers[:1], people.traits[:1])
    assert one_user.phi.shape == (1, 1)  # nothing is said of traits
    one_provider = fit_model(answers[..., :1], people.traits).users()
    assert np.isfinite(one_provider.mean).all()
    few = np.full((4, 2, 2), np.nan)
    few[:, :, 0] = 0.5
    equal = fit_model(few, None).users()
    assert equal.interval()[1][0, 0, 1] - equal.interval()[0][0, 0, 1] > 0.1


def test_too_few_answers_are_one_sentence():
    few = np.full((5, 2, 2), np.nan)
    few[0] = 0.5
    with pytest.raises(InputError, match="4 answers are too few"):
        fit_model(few, None)


def test_memory_grows_with_the_cells_alone():
    rng = np.random.default_rng(0)
    answers = rng.random((1500, 10, 4))
    tracemalloc.start()
    fit_model(answers, rng.uniform(1, 5, (1500, 5))).users()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / answers.size < 2e9 / 1e6  # bytes a cell, so that a million take less than 2 GB
