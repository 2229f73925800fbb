"""Denoising steps that groups of requests share, and providers of different pace."""

import numpy as np
import pytest

from rlli_jax.envs.edge_market import (
    EdgeMarket,
    Fleet,
    follow,
    given_tasks,
    load_fleet,
    make_params,
    make_users,
    play,
)
from rlli_jax.envs.edge_market.optimum import offline_optimum
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable

FLAT = [0.0, 0.0, 100.0, 0.5]  # worth 0.5 from 100 steps on
TABLE = QoETable(
    qoe=np.ones((1, 2, 2, 1), np.float32),
    valid=np.ones((1, 2, 2, 1), bool),
    users=("ann",),
    requests=("a cat", "a dog"),
    providers=("alone", "sharing"),
    judge="made up for a test",
    stand_in=True,
)
SHARED = np.array([[0.0, 0.5], [0.0, 1.0]])  # [request, provider]


def market(shared=SHARED, pace=None, capacity=250):
    fleet = Fleet([capacity] * 2, [FLAT] * 2, pace)
    users = make_users(TABLE, None)
    params = make_params(fleet, runtime=(0.0, 1.0, 0.0), users=users, shared=shared)
    return EdgeMarket(params, observation=("room", "latency")), params


def played(arrival, demand, actions, request=None, **options):
    env, params = market(**options)
    tasks = given_tasks(arrival, demand, request=request)
    return play(env, params, tasks, follow(actions))


def test_what_a_group_shares_takes_no_room_and_no_time_but_is_worth_as_much():
    # "sharing" runs 100 of each task's 200 steps, so two fit its 250; "alone" crashes.
    sharing = played([0, 1, 2], [200, 200, 200], [1, 1])
    assert sharing.crashed.tolist() == [False, False]
    assert sharing.reward.tolist() == [0.5, 0.5]
    assert sharing.statistics["load"].tolist() == [0, 200]
    assert sharing.statistics["saved"] == 200
    alone = played([0, 1, 2], [200, 200, 200], [0, 0])
    assert alone.crashed.tolist() == [False, True]
    assert alone.statistics["saved"] == 0
    # Room, and latency over that of the longest task, of 250 steps.
    np.testing.assert_allclose(sharing.observation[0], [1, 1, 0.8, 0.4], rtol=1e-6)


def test_a_shared_task_ends_when_its_own_steps_have_run():
    just = played([0, 100, 101], [200, 200, 200], [1, 1], capacity=150)
    early = played([0, 99, 101], [200, 200, 200], [1, 1], capacity=150)
    assert just.crashed.tolist() == [False, False]
    assert early.crashed.tolist() == [False, True]
    np.testing.assert_allclose(early.reward[1], -2 * (1 + 1 / 100), rtol=1e-6)


def test_a_request_whose_steps_are_all_shared_is_served_at_once():
    done = played([0, 0, 0, 0, 1], [200] * 5, [1] * 4, request=[1] * 5)
    assert done.crashed.tolist() == [False] * 4
    assert done.statistics["saved"] == 800
    assert done.statistics["load"].tolist() == [0, 0]


def test_sharing_nothing_changes_nothing():
    rng = np.random.default_rng(0)
    arrival, demand = np.sort(rng.integers(0, 2_000, 40)), rng.choice([100, 150, 200], 40)
    actions, request = rng.integers(0, 2, 39), rng.integers(0, 2, 40)
    plain = played(arrival, demand, actions, request, shared=None)
    zero = played(arrival, demand, actions, request, shared=np.zeros((2, 2)))
    assert plain.crashed.any()
    np.testing.assert_array_equal(plain.reward, zero.reward)
    np.testing.assert_array_equal(plain.observation, zero.observation)


def test_a_provider_of_half_the_pace_takes_twice_as_long(tmp_path):
    fleet = Fleet([250, 250], [FLAT] * 2, [1.0, 2.0])
    fleet.save(tmp_path / "fleet.json")
    np.testing.assert_array_equal(load_fleet(tmp_path / "fleet.json").pace, [1, 2])
    slow = {"shared": None, "pace": [1.0, 2.0]}
    assert played([0, 200, 201], [200] * 3, [0, 0], **slow).crashed.tolist() == [False, False]
    assert played([0, 399, 401], [200] * 3, [1, 1], **slow).crashed.tolist() == [False, True]
    assert played([0, 400, 401], [200] * 3, [1, 1], **slow).crashed.tolist() == [False, False]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"shared is of shape \(1, 2\)"):
        market(np.zeros((1, 2)))
    with pytest.raises(InputError, match="part in"):
        market(np.full((2, 2), 1.5))
    with pytest.raises(InputError, match="pace of the fleet"):
        market(pace=[1.0, 0.0])
    env, params = market()
    with pytest.raises(InputError, match="without shared steps and paces"):
        offline_optimum(env, params, given_tasks([0, 1], [200, 200]))
