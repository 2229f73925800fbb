"""The edge market in periods: what goals pay, and which situation it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.edge_market import Fleet, GoalMarket, make_params, make_users
from rlli_jax.envs.edge_market.goals import SITUATIONS
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable

FLAT = [0.0, 0.0, 100.0, 0.5]  # worth 0.5 from 100 steps on
# [user, request, provider, sample]: ann likes provider 0, bob provider 1.
TASTE = QoETable(
    qoe=np.array([[[[0.8], [0.2]]], [[[0.1], [0.9]]]], np.float32),
    valid=np.ones((2, 1, 2, 1), bool),
    users=("ann", "bob"),
    requests=("cat",),
    providers=("ink", "oil"),
    judge="made up for a test",
    stand_in=True,
)


def market(**options):
    users = make_users(TASTE, None)
    params = make_params(Fleet([400, 400], [FLAT] * 2), users=users, demands=(100, 400))
    return GoalMarket(params, vips=1, vip_weight=3.0, period=2, **options)


def waiting(env, user, goal=0, **changes):
    """A state in which a task of 100 steps of a user waits, nothing runs."""
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    task = state.market.task.replace(user=jnp.int32(user), demand=jnp.int32(100))
    inner = state.market.replace(task=task)
    return state.replace(market=inner, goal=jnp.int32(goal)).replace(**changes)


def test_a_goal_pays_for_what_it_names_and_a_crash_costs_the_same_in_all():
    env, plain = market(by_goal=True), market()
    step, plainly = jax.jit(env.step_env), jax.jit(plain.step_env)
    key = jax.random.key(0)
    for user, worth in ((0, 0.4), (1, 0.05)):  # at provider 0
        states = [waiting(env, user, goal) for goal in range(3)]
        paid = [float(step(key, state, 0, env.default_params)[2]) for state in states]
        np.testing.assert_allclose(paid, [0.75, worth, worth if user == 0 else 0], rtol=1e-6)
        whole = plainly(key, waiting(plain, user), 0, plain.default_params)[2]
        assert whole == pytest.approx(worth * (3 if user == 0 else 1))
    state = waiting(env, 0, 1)
    task = state.market.task.replace(demand=jnp.int32(800))
    state = state.replace(market=state.market.replace(task=task))
    for goal in range(3):
        crash = step(key, state.replace(goal=jnp.int32(goal)), 0, env.default_params)[2]
        assert crash == -2


def test_the_situation_follows_load_hour_and_who_came_lately():
    env = market()
    params = env.default_params

    def told(state):
        return SITUATIONS[int(env.situation(state, params))]

    state = waiting(env, 0)
    assert told(state) == (
        "The providers are almost idle; many tasks come and more are to come. "
        "Few of the last tasks were of VIP users."
    )
    full = state.market.replace(
        until=state.market.until.at[:, 0].set(10**6),
        demand=state.market.demand.at[:, 0].set(350),
    )
    assert told(state.replace(market=full)).startswith("The providers are almost full;")
    late = state.market.task.replace(arrival=jnp.int32(0.6 * 86_400))
    later = state.replace(market=state.market.replace(task=late), lately=jnp.float32(0.9))
    assert told(later) == (
        "The providers are almost idle; few tasks come and fewer are to come. "
        "Many of the last tasks were of VIP users."
    )


def test_after_a_period_the_goal_is_drawn_anew_and_vips_are_counted_anew():
    env = market(by_goal=True)
    step = jax.jit(env.step_env)
    state, goals = waiting(env, 0, vips=jnp.int32(0)), []
    for t in range(1, 41):
        was = state
        _, state, *_ = step(jax.random.key(t), state, 0, env.default_params)
        vips = int(was.vips) + int(was.market.task.user == 0)
        if t % 2:
            assert state.goal == was.goal
            assert int(state.vips) == vips
        else:
            goals.append(int(state.goal))
            assert int(state.vips) == 0
            assert float(state.lately) == vips / 2
    assert set(goals) == {0, 1, 2}


def test_an_observation_tells_of_vips_the_hour_and_the_goal():
    env, plain = market(by_goal=True), market()
    seen = env.observe(waiting(env, 0, 2), env.default_params)
    assert seen[-6:].tolist() == [1, 0, 1, 0, 0, 1]
    assert seen.shape == env.observation_space(env.default_params).shape
    bare = plain.observe(waiting(plain, 1), plain.default_params)
    assert bare[-3:].tolist() == [0, 0, 1]
    assert bare.shape == plain.observation_space(plain.default_params).shape


def test_a_market_without_users_or_with_vips_alone_is_refused():
    bare = make_params(Fleet([400, 400], [FLAT] * 2))
    with pytest.raises(InputError, match="has no users, of whom some could be VIPs"):
        GoalMarket(bare)
    with pytest.raises(InputError, match="vips is 2; of 2 users, 1 to 1 can be VIPs"):
        GoalMarket(
            make_params(Fleet([400, 400], [FLAT] * 2), users=make_users(TASTE, None)), vips=2
        )
