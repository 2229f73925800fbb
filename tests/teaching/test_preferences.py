"""Raters, reward models and policies from preferences, against what is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.teaching import preferences as prefs

CONTEXTS, PROVIDERS, FEATURES = 6, 4, 3


@pytest.fixture(scope="module")
def world():
    """Gold is linear in the features; one provider is not legal in the first context."""
    key_features, key_weights = jax.random.split(jax.random.key(0))
    features = jax.random.normal(key_features, (CONTEXTS, PROVIDERS, FEATURES))
    legal = jnp.ones((CONTEXTS, PROVIDERS), bool).at[0, 1].set(False)
    gold = 0.5 + 0.1 * features @ jax.random.normal(key_weights, (FEATURES,))
    gold = jnp.where(legal, gold, 0)
    return prefs.World(gold, legal, features, prefs.reference_policy(gold, legal, 0.2))


def rater(noise=0.1, bias=0.0):
    return prefs.Rater(jnp.float32(noise), jnp.float32(bias))


@pytest.fixture(scope="module")
def many(world):
    return jax.jit(lambda: prefs.compare(jax.random.key(1), world, rater(), 40_000, 40_000))()


def test_pairs_are_drawn_from_the_reference_and_rated_by_their_gap(world, many):
    p = np.where(world.legal, np.exp(world.reference), 0)
    assert float(many.total.sum()) == 40_000
    for q, (a, b) in enumerate(prefs.pairs_of(PROVIDERS)):
        drawn = p[:, a] * p[:, b] / (1 - p[:, a]) + p[:, b] * p[:, a] / (1 - p[:, b])
        share = many.total[:, q] / 40_000
        np.testing.assert_allclose(share, drawn / CONTEXTS, atol=4e-3)
        preferred = jax.nn.sigmoid((world.gold[:, a] - world.gold[:, b]) / 0.1)
        known = np.asarray(many.total[:, q]) > 0
        won = (many.wins[:, q] / jnp.maximum(many.total[:, q], 1))[known]
        np.testing.assert_allclose(won, preferred[known], atol=0.06)
    assert float(many.total[0, 0]) == 0  # the provider that is not legal


def test_both_orders_undo_what_being_first_is_worth(world):
    flat = world._replace(gold=jnp.where(world.legal, 0.5, 0.0))
    found = prefs.compare(jax.random.key(2), flat, rater(bias=0.2), 20_000, 20_000)
    p = float(jax.nn.sigmoid(2.0))
    assert float(found.wins.sum()) == pytest.approx(10_000, rel=0.01)
    assert float(found.ties) == pytest.approx(p * p + (1 - p) * (1 - p), abs=0.01)


def test_a_reward_model_of_many_pairs_is_gold_up_to_a_constant(world, many):
    w, gradient = prefs.bradley_terry(world.features, many, 1e-3)
    reward = 0.1 * world.features @ w
    gap = np.where(world.legal, reward - world.gold, np.nan)
    assert np.nanmax(np.abs(gap - np.nanmean(gap))) < 0.02
    assert float(gradient) < 0.05


def test_the_exact_policy_is_the_best_for_its_weight_of_divergence(world):
    beta = jnp.float32(0.05)
    reward = jnp.where(world.legal, world.gold, 0)

    def objective(log_policy):
        return (jnp.exp(log_policy) * reward).sum(-1) - beta * prefs.kl_to(
            world.reference, log_policy
        )

    best = prefs.regularised(world, reward, beta)
    value = beta * jax.nn.logsumexp(world.reference + reward / beta, axis=-1)
    np.testing.assert_allclose(objective(best), value, rtol=1e-4)
    for key in jax.random.split(jax.random.key(3), 5):
        other = jax.nn.log_softmax(best + 0.3 * jax.random.normal(key, best.shape))
        assert (objective(other) <= value + 1e-6).all()


def test_dpo_ends_at_the_policy_of_its_reward_model(world):
    """Rafailov et al. 2023: where the reward model is of the policy's form, both are one."""
    found = prefs.compare(jax.random.key(4), world, rater(), 500, 500)
    w, _ = prefs.bradley_terry(world.features, found, 1e-6)
    reward = world.features @ w
    path = jax.jit(lambda: prefs.dpo_path(world, world.features, found, reward, 0.5, 3000, 0.05))()
    best = prefs.regularised(world, reward, jnp.float32(0.5))
    kl = prefs.kl_to(world.reference, best).mean()
    np.testing.assert_allclose(path.kl[-1], kl, rtol=1e-2)
    np.testing.assert_allclose(
        path.gold[-1], (jnp.exp(best) * world.gold).sum(-1).mean(), rtol=1e-3
    )


def test_ppo_climbs_the_proxy_and_gold_turns_where_the_proxy_is_wrong(world):
    best = world.gold.max(-1).mean()
    path = jax.jit(lambda: prefs.ppo_path(world, world.gold, 80, 0.1))()
    assert (jnp.diff(path.proxy) > -1e-4).all()
    np.testing.assert_allclose(path.gold[-1], best, atol=2e-3)
    # One provider, rare and bad, is promised most: worth trying only as far as nobody takes it.
    rare = jnp.where(world.legal, world.gold, 9).argmin(-1)
    wrong = world.gold + jax.nn.one_hot(rare, PROVIDERS) * 2
    reference = jax.nn.log_softmax(
        jnp.where(world.legal, world.reference - 6 * jax.nn.one_hot(rare, PROVIDERS), -1e9)
    )
    path = jax.jit(lambda: prefs.ppo_path(world._replace(reference=reference), wrong, 80, 0.2))()
    peak = int(path.gold.argmax())
    assert path.gold[-1] < path.gold[peak] - 0.05
    assert path.proxy[-1] > path.proxy[peak]
    assert 0 < path.kl[peak] < path.kl[-1]


def test_given_comparisons_are_drawn_with_replacement():
    place, won = jnp.array([0, 5, 5, 35]), jnp.array([1.0, 0.5, 0.5, 0.0])
    shape = (CONTEXTS, 6)
    found = prefs.resampled(jax.random.key(0), place, won, jnp.int32(3), shape)
    assert float(found.total.sum()) == 3
    assert set(np.flatnonzero(found.total)) <= {0, 5, 35}
    np.testing.assert_allclose(found.wins.ravel()[5], 0.5 * found.total.ravel()[5])
    draws = jax.vmap(lambda key: prefs.resampled(key, place, won, jnp.int32(4), shape).total)(
        jax.random.split(jax.random.key(1), 400)
    )
    mean = np.asarray(draws.mean(0)).ravel()
    np.testing.assert_allclose(mean[[0, 5, 35]], [1, 2, 1], atol=0.2)
    assert float(draws.std(0).max()) > 0.5
