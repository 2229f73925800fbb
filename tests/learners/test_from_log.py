"""Policies learned from logs alone, valued on people that they did not learn from."""

import chex
import jax
import numpy as np
import pytest
from made_log import made_log

from rlli_jax.errors import InputError
from rlli_jax.feedback import cross_fitted, value_policies
from rlli_jax.learners import from_log
from rlli_jax.learners.from_log import FromLogConfig, doubly_robust_scores, learned_policy

CONFIG = FromLogConfig(hidden=(8,), iterations=150)


def test_scores_of_the_logging_policy_average_to_what_it_earned():
    log, _ = made_log(n=400, slope=0.1)
    scores = doubly_robust_scores(log, cross_fitted(log))
    one = np.eye(3)[log.action]
    plain = (one * log.reward[:, None] / log.propensity[:, None]).mean(0)
    # Doubly robust and inverse propensities estimate the same values of the three providers.
    np.testing.assert_allclose(scores.mean(0), plain, atol=0.08)
    exact = doubly_robust_scores(log, np.tile(log.reward[:, None], (1, 3)))
    np.testing.assert_allclose(exact, np.tile(log.reward[:, None], (1, 3)))


def test_where_the_best_provider_depends_on_the_person_it_is_found_and_valued_on_others():
    log, mean = made_log(n=900, slope=0.25)
    policy = learned_policy(log, CONFIG)
    assert policy.sum(1) == pytest.approx(1)
    value, best = (policy * mean).sum(1).mean(), mean.max(1).mean()
    assert value > mean.mean(0).max() + 0.7 * (best - mean.mean(0).max())
    (valued,) = value_policies(log, {"learned": policy}, draws=100)
    assert valued.best.low <= value <= valued.best.high


def test_where_it_does_not_nothing_is_gained_and_nothing_is_claimed():
    gains = []
    for seed in range(2):
        log, mean = made_log(n=300, seed=seed)
        policy = learned_policy(log, CONFIG)
        (valued,) = value_policies(log, {"learned": policy}, draws=20)
        gains.append(valued.best.value - (policy * mean).sum(1).mean())
    assert abs(np.mean(gains)) < 0.02  # what is claimed is what is had


def test_a_fold_has_no_part_in_the_policy_that_is_valued_on_it():
    log, _ = made_log(n=300, slope=0.1)  # as many as above, which compiles once
    before = learned_policy(log, CONFIG)
    from rlli_jax.feedback.reward_model import folds

    changed = folds(log) == 2
    other = type(log)(**{**log.__dict__, "reward": np.where(changed, 1 - log.reward, log.reward)})
    after = learned_policy(other, CONFIG)
    np.testing.assert_array_equal(before[changed], after[changed])


def test_what_is_not_offered_is_not_chosen_and_hyperparameters_compile_once():
    log, _ = made_log(n=300, slope=0.1)
    offered = log.offered.copy()
    offered[:, 2] = log.action == 2
    log = type(log)(**{**log.__dict__, "offered": offered})
    policy = learned_policy(log, CONFIG)
    assert (policy[~offered] == 0).all()
    chex.clear_trace_counter()
    counted = jax.jit(chex.assert_max_traces(n=1)(lambda h: h.learning_rate * 2))
    for rate in (0.1, 0.2):
        counted(from_log.FromLogHyperparams(learning_rate=rate))
    with pytest.raises(InputError, match="FromLogConfig"):
        FromLogConfig(hidden=(0,))
