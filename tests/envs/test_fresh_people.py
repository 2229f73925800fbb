"""New people in every episode: who they are, and that their QoE is what the model believes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.provider_selection import ProviderSelection, make_params
from rlli_jax.envs.provider_selection.fresh_people import fresh_people
from rlli_jax.errors import InputError
from rlli_jax.personas import Population, norms
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import fit_model

K, R, L = 40, 2, 3
NORMS = ("women 21-40", "davies_2015_r_observed")


@pytest.fixture(scope="module")
def model():
    traits = Population.sample(K, group=NORMS[0], seed=3).traits
    rng = np.random.default_rng(0)
    answers = 0.5 + np.einsum("kf,rlf->krl", traits - 3.3, rng.normal(0, 0.1, (R, L, 5)))
    return fit_model(np.clip(answers + rng.normal(0, 0.03, answers.shape), 0, 1), traits)


def table(users=3, hole=None):
    valid = np.ones((users, R, L, 1), bool)
    if hole is not None:
        valid[hole] = False
    return QoETable(
        qoe=np.zeros(valid.shape),
        valid=valid,
        users=tuple(f"u{k}" for k in range(users)),
        requests=("a", "b"),
        providers=("x", "y", "z"),
        judge="none",
        stand_in=True,
    )


@pytest.fixture(scope="module")
def env(model):
    params = make_params(table(), rounds=2, fresh=fresh_people(model, *NORMS))
    return ProviderSelection(params, observation=("action", "reward", "persona"))


@jax.jit
def _believed(fresh, traits):
    requests, providers = jnp.meshgrid(jnp.arange(R), jnp.arange(L), indexing="ij")
    return jax.vmap(lambda one: jax.vmap(fresh.believed, (None, 0, 0))(
        one, requests.reshape(-1), providers.reshape(-1)
    ))(traits)  # fmt: skip


def episode(env, params, key, steps):
    """-> traits [steps, 5], requests [steps], rewards [steps], of always the provider y."""

    def step(state, key):
        seen = env.personas(state, params), env.requests(state, params)
        _, state, reward, _, _ = env.step_env(key, state, jnp.int32(1), params)
        return state, (*seen, reward)

    def play(key):
        _, state = env.reset_env(key, params)
        return jax.lax.scan(step, state, jax.random.split(jax.random.fold_in(key, 1), steps))[1]

    return jax.device_get(jax.jit(jax.vmap(play))(key))


def test_what_is_believed_of_people_is_what_the_model_predicts(env, model):
    traits = Population.sample(50, group="men 21-40", seed=9).traits
    mean, spread = _believed(env.default_params.fresh, jnp.asarray(traits))
    expected = model.people(model.features(traits, 50))
    np.testing.assert_allclose(mean.reshape(50, R, L), expected.mean, atol=2e-6)
    np.testing.assert_allclose(spread.reshape(50, R, L), expected.sd, atol=2e-6)


def test_where_nothing_is_uncertain_a_reward_is_the_models_prediction(env, model):
    fresh = env.default_params.fresh
    sure = fresh.replace(covariance=0 * fresh.covariance, own=0 * fresh.own)
    params = env.default_params.replace(fresh=sure)
    traits, requests, rewards = episode(env, params, jax.random.split(jax.random.key(0), 5), 6)
    features = model.features(traits.reshape(-1, 5), 30)
    predicted = model.people(features).mean[np.arange(30), requests.reshape(-1), 1]
    np.testing.assert_allclose(rewards.reshape(-1), np.clip(predicted, 0, 1), atol=2e-6)


def test_rewards_are_drawn_from_what_is_believed(env, model):
    fresh = env.default_params.fresh
    chance = jnp.asarray((np.arange(8) + 0.5) / 8, jnp.float32)
    traits = jnp.asarray([3.5, 3.0, 3.2, 3.9, 2.8])
    drawn = jax.vmap(fresh.drawn, (None, None, None, 0))(traits, 0, 1, chance)
    mean, spread = fresh.believed(traits, 0, 1)
    np.testing.assert_allclose(drawn.mean(), mean, atol=1e-6)
    # The octiles' midpoints spread a little less than the normal that they stand for.
    assert 0.9 * spread < drawn.std() < spread


def test_people_stay_for_an_episode_and_others_come_to_the_next(env):
    params = env.default_params
    traits, *_ = episode(env, params, jax.random.split(jax.random.key(1), 4), 6)
    np.testing.assert_array_equal(traits[:, :3], traits[:, 3:])  # the second round
    assert len(np.unique(traits[:, :3].reshape(-1, 5), axis=0)) == 12
    state = env.reset_env(jax.random.key(0), params)[1]
    people = [state.people]
    for key in jax.random.split(jax.random.key(2), 6):
        _, state, *_ = env.step(key, state, jnp.int32(0), params)
        people.append(state.people)
    assert len({float(x) for x in people[:6]}) == 1
    assert people[6] != people[0]


def test_those_who_come_are_as_the_norms_say(env):
    fresh = env.default_params.fresh
    people = jax.random.uniform(jax.random.key(0), (4000,))
    drawn = jax.jit(jax.vmap(fresh.traits, (0, None)))(people, jnp.arange(3)).reshape(-1, 5)
    sample = Population.sample(12_000, group=NORMS[0], seed=0).traits
    mean, covariance = norms.traits_of(*NORMS)
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(drawn.mean(0), sample.mean(0), atol=0.03)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.04)
    np.testing.assert_allclose(drawn.std(0), deviations, rtol=0.04)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(sample.T), atol=0.04)
    assert drawn.min() >= 1
    assert drawn.max() <= 5


def test_models_of_one_shape_share_a_compilation(env):
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(env.step_env, n=1))
    for scale in (1.0, 2.0):
        fresh = env.default_params.fresh
        params = env.default_params.replace(fresh=fresh.replace(level=scale * fresh.level))
        _, state = env.reset_env(jax.random.key(0), params)
        step(jax.random.key(1), state, jnp.int32(0), params)


def test_whatever_somebody_may_choose_is_open_to_new_people(model):
    fresh = fresh_people(model, *NORMS)
    params = make_params(table(hole=(0, 0, 1)), fresh=fresh)
    assert (np.asarray(params.count) == 1).all()
    params = make_params(table(hole=(slice(None), 0, 1)), fresh=fresh)
    np.testing.assert_array_equal(params.count[0], [[1, 0, 1], [1, 1, 1]])


def test_what_new_people_cannot_do_is_one_sentence(env, model):
    with pytest.raises(InputError, match="observe persona instead"):
        ProviderSelection(env.default_params, observation=("user",))
    wrong = fit_model(np.random.default_rng(0).random((9, 1, 3)), None)
    with pytest.raises(InputError, match=r"QoE of \(1, 3\) requests and providers"):
        make_params(table(), fresh=fresh_people(wrong, *NORMS))
