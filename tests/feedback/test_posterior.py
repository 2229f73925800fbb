"""The judge as prior, people as evidence."""

import numpy as np
import pytest
from scipy import stats

from rlli_jax.feedback import Log
from rlli_jax.feedback.posterior import (
    Comparison,
    _designs,
    curve,
    does_the_prior_help,
    fit_posterior,
)
from rlli_jax.statistics import Estimate

WEIGHTS = np.array([[0.2, 0, 0], [0, 0, 0.1], [0, 0, 0], [0, -0.1, 0], [0, 0, 0.0]])


def people(n, seed):
    """Traits [n, 5], true QoE [n, 3], and a log of each served once at random."""
    rng = np.random.default_rng(seed)
    traits = rng.uniform(1, 5, (n, 5))
    truth = 0.5 + np.sin(1.5 * (traits - 3)) @ WEIGHTS + [0, 0.05, -0.05]
    action = rng.integers(3, size=n)
    reward = (truth[np.arange(n), action] + 0.1 * rng.standard_normal(n)).clip(0, 1)
    log = Log(
        providers=("A", "B", "C"), action=action, reward=reward, propensity=np.full(n, 1 / 3),
        context=traits, context_names=tuple("OCEAN"), user=np.arange(n),
        offered=np.ones((n, 3), bool),
    )  # fmt: skip
    return traits, truth, log


def test_a_right_judge_is_trusted_and_a_wrong_one_is_overruled():
    traits, truth, log = people(400, 0)
    wrong = truth[:, ::-1]
    right = fit_posterior(traits, log.action, log.reward, 3, 0.25 + 0.5 * truth)
    assert right.trust == pytest.approx(2, abs=0.4)
    assert fit_posterior(traits, log.action, log.reward, 3, wrong).trust < 0.6
    mean, spread = right.predict(traits, 0.25 + 0.5 * truth)
    assert np.abs(mean - truth).mean() < 0.03
    assert right.noise == pytest.approx(0.1, abs=0.02)
    assert np.mean(np.abs(mean - truth) < 1.96 * spread) > 0.85
    # A provider that nobody rated is the judge's word; of the others wrong ones are told from it.
    some = log.action != 2
    told = fit_posterior(traits[some], log.action[some], log.reward[some], 3, wrong[some])
    learned = told.learned(traits)
    assert (learned[:, 2] < 1e-6).all()
    assert (learned[:, :2] > 0.5).mean() > 0.9
    alone, _ = fit_posterior(traits, log.action, log.reward, 3).predict(traits, None)
    assert np.abs(alone - truth).mean() > 2 * np.abs(mean - truth).mean()


def test_the_evidence_is_that_of_the_normal_distribution_of_the_ratings():
    """The posterior mean by the covariance of the ratings, not of the coefficients."""
    traits, truth, log = people(40, 1)
    posterior = fit_posterior(traits, log.action, log.reward, 3, truth)
    # Conditioning in the space of ratings: an independent route to the same mean.
    design = _designs(traits, truth, 3)[np.arange(40), log.action]
    precision = np.linalg.inv(posterior.covariance) - design.T @ design / posterior.noise**2
    prior = np.linalg.inv(precision)
    assert np.allclose(prior, np.diag(np.diag(prior)), atol=1e-6)
    start = np.zeros(design.shape[1])
    start[0] = 1
    of_ratings = design @ prior @ design.T + posterior.noise**2 * np.eye(40)
    mean = start + prior @ design.T @ np.linalg.solve(of_ratings, log.reward - design @ start)
    assert np.allclose(mean, posterior.mean, atol=1e-5)

    # Among nearby variances none makes the ratings likelier.
    def evidence(scale):
        scaled = np.diag(prior) * np.append(1, np.full(18, scale))  # all but the judge's weight
        covariance = design @ np.diag(scaled) @ design.T + posterior.noise**2 * np.eye(40)
        return stats.multivariate_normal(design @ start, covariance).logpdf(log.reward)

    assert evidence(1.0) >= max(evidence(0.7), evidence(1.4)) - 1e-3


def test_a_judge_that_misleads_is_warned_of_and_one_that_is_right_is_not():
    traits, truth, log = people(150, 2)
    helped = does_the_prior_help(log, truth, traits)
    assert helped.gain.value > 0
    assert helped.warning == ""
    rng = np.random.default_rng(0)
    noise = does_the_prior_help(log, rng.uniform(size=truth.shape), traits)
    assert noise.gain.high > -0.002
    assert noise.gain.value < helped.gain.value / 2
    harmful = Comparison(Estimate(*np.array([-0.01, -0.02, -0.001])), 0.4)
    assert "do not train on it" in harmful.warning


def test_few_ratings_with_a_right_judge_choose_as_well_as_many_without():
    traits, truth, log = people(400, 3)
    none, few, many = curve(log, truth, traits, (0, 20, 250), draws=4)
    best = truth.max(1).mean()
    assert none.with_judge.value > none.without.value + 0.03
    assert few.with_judge.value > few.without.value
    assert many.without.value > none.without.value + 0.03
    assert many.with_judge.value == pytest.approx(best, abs=0.03)
