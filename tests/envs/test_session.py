"""Session: how tastes move and satiate, what is believed, and what sessions are worth, exactly."""

from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.policy import evaluate, random
from rlli_jax.envs.session import Session, belief, make_params
from rlli_jax.envs.session import references as known
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable


def table(people=3, requests=2, providers=3, samples=2, seed=0):
    shape = people, requests, providers, samples
    return QoETable(
        qoe=np.random.default_rng(seed).random(shape).astype(np.float32),
        valid=np.ones(shape, bool),
        users=tuple(f"u{i}" for i in range(people)),
        requests=tuple(f"r{i}" for i in range(requests)),
        providers=tuple(f"p{i}" for i in range(providers)),
        judge="random numbers",
        stand_in=True,
    )


def params_of(rated, **numbers):
    return jax.tree.map(
        jnp.asarray, make_params(rated, np.full((len(rated.users), 5), 3.0), **numbers)
    )


@pytest.fixture(scope="module")
def params():
    return params_of(table(), taste_spread=0.3, satiation_weight=0.4)


def brute_force(env, params, value):
    """The best sequence of choices of a session with one request, ``value`` [turns, L]."""

    def worth(sequence):
        total, memory = 0.0, float(params.satiation_memory)
        for turn, provider in enumerate(sequence):
            lately = sequence[max(0, turn - env.window) : turn][::-1]
            weary = sum(memory**age for age, shown in enumerate(lately) if shown == provider)
            total += value[turn, provider] - float(params.satiation_weight) * weary
        return total

    every = [worth(s) for s in product(range(value.shape[1]), repeat=env.turns)]
    return max(every), float(np.mean(every))


def test_the_plan_and_random_choices_are_worth_what_all_sequences_say():
    params = params_of(table(requests=1), satiation_weight=0.3)
    env = Session(params, turns=5, window=2)
    value = np.tile(np.asarray(params.mean).mean((0, 1)), (5, 1))
    best, mean = brute_force(env, params, value)
    assert known.plan(env, params).value == pytest.approx(best, abs=1e-6)
    assert known.uniform(env, params) == pytest.approx(mean, abs=1e-6)
    one = params_of(table(1, 1).select(users=["u0"]), known=table(2, 1), satiation_weight=0.3)
    alone = Session(one, turns=5, window=2)
    still = one.replace(taste_spread=jnp.float32(0))
    found = known.hindsight(alone, still, jax.random.key(0), 3)
    assert found == pytest.approx(np.full(3, known.known_person(alone, one)), abs=1e-5)


def test_hindsight_bounds_knowing_the_person_and_that_bounds_the_plan(params):
    env = Session(params, turns=6, window=2)
    values = [
        known.uniform(env, params),
        known.plan(env, params).value,
        known.known_person(env, params),
        known.hindsight(env, params, jax.random.key(0), 400).mean(),
    ]
    assert (np.diff(values) > 0.05).all()


def test_policies_that_do_not_adapt_are_paid_their_exact_value_and_adapting_ones_more(params):
    env = Session(params, turns=6, window=2, observation=("belief",))
    plan, sessions = known.plan(env, params), 4_000
    calm = params.replace(satiation_weight=jnp.float32(0))  # then greed does not tire anybody

    @jax.jit
    def play(key):
        each = [(known.fixed(plan), params), (random(), params), (known.by_belief(env), calm)]
        return [evaluate(env, policy, key, played, sessions) for policy, played in each]

    fixed, anything, greedy = jax.device_get(play(jax.random.key(1)))
    for found, value in ((fixed, plan.value), (anything, known.uniform(env, params))):
        error = found.returns.std() / np.sqrt(sessions)
        assert abs(found.returns.mean() - value) < 4 * error
        assert found.statistics["felt"].sum() / sessions == pytest.approx(value, abs=4 * error)
        assert (found.lengths == 6).all()
    more = greedy.returns.mean() - known.plan(env, calm).value
    assert more > 4 * greedy.returns.std() / np.sqrt(sessions)


def test_tastes_are_stationary_with_the_stated_memory(params):
    env = Session(params, turns=30)

    @jax.jit
    @jax.vmap
    def tastes(key):
        _, state = env.reset_env(key, params)

        def step(state, key):
            return env.step_env(key, state, jnp.int32(0), params)[1], state.taste

        return jax.lax.scan(step, state, jax.random.split(key, 30))[1]

    found = np.asarray(tastes(jax.random.split(jax.random.key(2), 2_000)))  # [N, 30, L]
    assert found[:, 0].std() == pytest.approx(0.3, rel=0.05)
    assert found[:, -1].std() == pytest.approx(0.3, rel=0.05)
    lagged = np.corrcoef(found[:, 10].ravel(), found[:, 13].ravel())[0, 1]
    assert lagged == pytest.approx(0.9**3, abs=0.03)


def test_the_belief_is_the_conditional_of_the_joint_normal(params):
    """Against one large normal over u, all z and all felt QoE, conditioned at once."""
    prior = belief.learned_prior(table(6))
    memory, spread, providers = 0.8, 0.5, 3
    shown, felt = [0, 2, 0, 1, 1], np.array([0.4, -0.3, 0.2, 0.1, -0.5])
    state = belief.start(prior, spread)
    step = jax.jit(lambda b, provider, x: belief.update(b, prior, provider, x, memory, spread))
    for provider, x in zip(shown, felt, strict=True):
        state = step(state, provider, x)
    turns = len(shown) + 1  # beliefs are about the turn that comes
    ages = np.abs(np.subtract.outer(np.arange(turns), np.arange(turns)))
    people = np.asarray(prior.people, np.float64)
    joint = np.tile(people, (turns, turns)) + np.kron(
        spread**2 * memory**ages, np.eye(providers)
    )  # of u + z at each turn
    places = [turn * providers + provider for turn, provider in enumerate(shown)]
    seen = joint[np.ix_(places, places)] + np.diag(np.asarray(prior.noise)[shown])
    last = slice((turns - 1) * providers, None)
    gain = np.linalg.solve(seen, joint[places, last]).T
    mean, deviation = belief.expected(state)
    np.testing.assert_allclose(mean, gain @ felt, atol=1e-5)
    covariance = joint[last, last] - gain @ joint[places, last]
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(covariance)), atol=1e-5)


def test_the_prior_finds_the_moments_that_people_were_made_with():
    rng = np.random.default_rng(0)
    people = np.array([[0.04, 0.02], [0.02, 0.02]])
    own = rng.multivariate_normal([0, 0], people, 4_000)
    qoe = 0.5 + own[:, None, :, None] + rng.normal(0, 0.1, (4_000, 2, 2, 3))
    made = belief.learned_prior(QoETable.from_array(np.clip(qoe, -9, 9) / 4 + 0.5))
    np.testing.assert_allclose(16 * made.people, people + np.eye(2) * 0.01 / 6, rtol=0.1)
    # Of the mean over six ratings, each of which adds the variance that it does not explain.
    np.testing.assert_allclose(16 * (made.noise - belief.LEAST_NOISE), 0.01 * 5 / 6, rtol=0.05)


def test_what_was_shown_satiates_until_it_is_forgotten(params):
    env = Session(params, turns=9, window=2, observation=("satiation", "history", "action"))
    _, state = env.reset_env(jax.random.key(0), params)
    step = jax.jit(env.step_env)
    rewards = []
    for action in (1, 1, 0, 2):
        observation, state, reward, terminated, _ = step(jax.random.key(1), state, action, params)
        rewards.append(float(reward))
    last, satiation, history = np.split(np.asarray(observation), [3, 6])
    np.testing.assert_allclose(satiation, [0.7, 0, 1])  # the ones of two turns ago are forgotten
    np.testing.assert_allclose(last, [0, 0, 1])
    sums = [rewards[2], rewards[0] + rewards[1], rewards[3]]
    np.testing.assert_allclose(history, [1, 2, 1, *sums], rtol=1e-6)
    assert not terminated
    rows, rest = env.by_action(observation)
    np.testing.assert_allclose(rows[1], [0, 0, 2, sums[1]], rtol=1e-6)
    assert rest.shape == (0,)


def test_a_session_ends_after_its_turns_and_the_next_one_begins_afresh(params):
    env = Session(params, turns=2, observation=("turn", "belief", "persona"))
    _, state = env.reset(jax.random.key(0), params)
    step = jax.jit(chex.assert_max_traces(env.step, n=1))
    ends = []
    for i in range(4):
        other = params.replace(taste_memory=jnp.float32(0.5 + 0.1 * i))
        observation, state, _, terminated, truncated, info = step(
            jax.random.key(i), state, jnp.int32(i % 3), other
        )
        ends.append((bool(terminated), bool(truncated), int(state.time)))
        if terminated:
            assert float(info["final_observation"][0]) == 1
            assert (np.asarray(state.recent) == -1).all()
            np.testing.assert_allclose(state.belief.mean, 0)
    assert ends == [(False, False, 1), (True, False, 0)] * 2
    assert observation.shape == env.observation_space(params).shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: make_params(table(), taste_memory=1.5), "taste_memory is 1.5; it must lie in"),
        (lambda: make_params(table(1)), "table to learn from has 1 person"),
        (
            lambda: make_params(QoETable.from_array(np.array([[[[0.5], [np.nan]]]] * 2))),
            "has not rated .*; a session may offer anything",
        ),
        (
            lambda: Session(make_params(table()), observation=("persona",)),
            "persona needs personas",
        ),
        (lambda: Session(turns=0), "turns is 0 and window 3"),
        (
            lambda: known.plan(Session(window=12), Session().default_params),
            "session.satiation.turns is 12 and there are 4 providers: 244,140,625 situations",
        ),
    ],
)
def test_a_mistake_is_one_sentence(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        wrong()
    assert "\n" not in str(error.value)
