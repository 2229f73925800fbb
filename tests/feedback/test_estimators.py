import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.feedback.estimators import (
    ESTIMATORS,
    Rounds,
    bootstrap,
    empirical_bernstein,
    shrunk_doubly_robust,
    standard_error,
    switch_doubly_robust,
    tuned,
)


@pytest.fixture
def numbers():
    """400 rounds, 3 actions, in double precision: reward, propensity, policy, q, action."""
    rng = np.random.default_rng(0)
    n, actions = 400, 3
    logging = rng.dirichlet(np.ones(actions), n)
    action = np.array([rng.choice(actions, p=p) for p in logging])
    policy = rng.dirichlet(np.ones(actions), n)
    q = rng.uniform(size=(n, actions))
    return rng.uniform(size=n), logging[np.arange(n), action], policy, q, action


def of_jax(estimator, numbers):
    reward, propensity, policy, q, action = numbers
    rows = np.arange(len(reward))
    with jax.enable_x64(True):
        rounds = Rounds(
            *map(
                jnp.asarray,
                (reward, policy[rows, action] / propensity, q[rows, action], (policy * q).sum(1)),
            )
        )
        return float(estimator(rounds, jnp.ones(len(reward))))


def test_every_estimator_equals_its_published_formula(numbers):
    r, p, policy, q, a = numbers
    rows = np.arange(len(r))
    w = policy[rows, a] / p
    direct = (policy * q).sum(1)
    error = r - q[rows, a]
    lam, tau = 3.0, 2.0
    expected = {
        "direct method": direct.mean(),
        "IPS": (w * r).mean(),
        "self-normalised IPS": (w * r).sum() / w.sum(),
        "doubly robust": (direct + w * error).mean(),
        "self-normalised doubly robust": direct.mean() + (w * error).sum() / w.sum(),
    }
    assert expected.keys() == ESTIMATORS.keys()
    for name, value in expected.items():
        assert of_jax(ESTIMATORS[name], numbers) == pytest.approx(value, abs=1e-9), name
    switch = (direct + np.where(w <= tau, w, 0) * error).mean()
    assert of_jax(switch_doubly_robust(tau), numbers) == pytest.approx(switch, abs=1e-9)
    shrunk = (direct + lam * w / (w**2 + lam) * error).mean()
    assert of_jax(shrunk_doubly_robust(lam), numbers) == pytest.approx(shrunk, abs=1e-9)


def test_the_standard_error_is_that_of_a_mean_where_the_estimator_is_a_mean(numbers):
    r, p, policy, _, a = numbers
    terms = policy[np.arange(len(r)), a] / p * r
    with jax.enable_x64(True):
        rounds = Rounds(jnp.asarray(r), jnp.asarray(terms / r), jnp.zeros(400), jnp.zeros(400))
        error = float(standard_error(ESTIMATORS["IPS"], rounds))
    assert error == pytest.approx(terms.std() / np.sqrt(len(r)), rel=1e-9)


def test_the_bootstrap_spreads_as_the_mean_does_and_draws_whole_groups():
    rng = np.random.default_rng(1)
    values = rng.uniform(size=100)
    reward = np.repeat(values, 2)  # two equal rounds of each of 100 people
    rounds = Rounds(jnp.asarray(reward), jnp.ones(200), jnp.zeros(200), jnp.zeros(200))
    groups = jnp.asarray(np.repeat(np.arange(100), 2))
    key = jax.random.key(0)
    together = bootstrap(ESTIMATORS, rounds, groups, key, 2_000)["IPS"].std()
    apart = bootstrap(ESTIMATORS, rounds, jnp.arange(200), key, 2_000)["IPS"].std()
    assert float(together) == pytest.approx(values.std() / 10, rel=0.08)
    assert float(apart) == pytest.approx(values.std() / 10 / np.sqrt(2), rel=0.08)


def test_shrinkage_is_left_alone_where_weights_are_mild_and_used_where_they_are_wild():
    rng = np.random.default_rng(2)
    settings = jnp.asarray([1e6, 100.0, 1.0])
    reward, good = rng.uniform(size=2_000), rng.uniform(0.4, 0.6, size=2_000)
    # A model that is far off: shrinking mild weights is biased, and SLOPE must see it.
    mild = Rounds(jnp.asarray(reward), jnp.ones(2_000), jnp.zeros(2_000) - 3, jnp.zeros(2_000) - 3)
    assert float(tuned(shrunk_doubly_robust, settings, mild)) >= 100
    wild_weight = np.where(rng.uniform(size=2_000) < 0.01, 100.0, 0.0)
    wild = Rounds(*map(jnp.asarray, (reward, wild_weight, good, good)))
    assert float(tuned(shrunk_doubly_robust, settings, wild)) < 1e6


def test_the_safe_interval_covers_a_mean_of_rare_large_terms():
    # 1 in 200 terms is 100, the rest 0: a normal interval of 100 rounds often is [0, 0].
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        terms = 100.0 * (rng.uniform(size=100) < 0.005)
        low, high = empirical_bernstein(terms, 100.0)
        covered += low <= 0.5 <= high
    assert covered >= 0.95 * 300
