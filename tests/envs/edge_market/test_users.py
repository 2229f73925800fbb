import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.edge_market import (
    Drift,
    EdgeMarket,
    Fleet,
    follow,
    given_tasks,
    make_params,
    make_users,
    play,
    references,
)
from rlli_jax.envs.edge_market.optimum import offline_optimum
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable

FLAT = [0.0, 0.0, 100.0, 0.5]  # worth 0.5 from 100 steps on
PERSONAS = np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], float)


def table(qoe, valid=None):
    """Two users; QoE [2, R, L, S]."""
    qoe = np.asarray(qoe, np.float32)
    _, asked, providers, _ = qoe.shape
    return QoETable(
        qoe=qoe,
        valid=np.ones(qoe.shape, bool) if valid is None else np.asarray(valid),
        users=("ann", "bob"),
        requests=tuple(f"request {i}" for i in range(asked)),
        providers=tuple(f"provider {i}" for i in range(providers)),
        judge="made up for a test",
        stand_in=True,
    )


# [user, request, provider, sample]: ann likes provider 0, bob provider 1.
TASTE = table([[[[0.8], [0.2]]], [[[0.1], [0.9]]]])


def market(qoe_table=TASTE, *, observation=("providers", "task"), mask=False, **options):
    users = make_users(qoe_table, PERSONAS, **options)
    fleet = Fleet([1_000] * users.qoe.shape[2], [FLAT] * users.qoe.shape[2])
    params = make_params(fleet, users=users)
    return EdgeMarket(params, observation=observation, mask=mask), params


def test_the_reward_is_utility_times_qoe():
    env, params = market()
    tasks = given_tasks([0, 1, 2, 3, 4], [100] * 5, user=[0, 1, 0, 1, 0])
    played = play(env, params, tasks, follow([0, 0, 1, 1]))
    np.testing.assert_allclose(played.reward, [0.4, 0.05, 0.1, 0.45], rtol=1e-6)
    counts = played.statistics
    np.testing.assert_allclose(counts["qoe_of_user"], [1.0, 1.0], rtol=1e-6)
    assert counts["assigned_of_user"].tolist() == [2, 2]
    assert counts["qoe"] == pytest.approx(2.0)
    assert counts["utility"] == pytest.approx(2.0)


def test_a_crash_is_not_weighed_by_qoe():
    env, params = market()
    played = play(env, params, given_tasks([0, 1], [1_100, 100], user=[1, 0]), follow([0]))
    assert played.reward.tolist() == [-2.0]
    assert played.statistics["qoe"] == 0


def test_the_draw_picks_a_valid_sample():
    qoe = np.full((2, 1, 2, 3), 0.5)
    qoe[0, 0, 0] = [0.1, 0.2, 0.6]
    valid = np.ones(qoe.shape, bool)
    valid[0, 0, 0, 1] = False
    env, params = market(table(qoe, valid))
    tasks = given_tasks([0, 1, 2, 3], [100] * 4, draw=[0.0, 0.49, 0.51, 0])
    rewards = play(env, params, tasks, follow([0, 0, 0])).reward
    np.testing.assert_allclose(rewards, [0.05, 0.05, 0.3], rtol=1e-6)


def test_holes_are_no_choice_and_never_a_number():
    qoe, valid = np.full((2, 1, 3, 1), 0.8), np.ones((2, 1, 3, 1), bool)
    valid[0, 0, 1] = False
    env, params = market(table(qoe, valid))
    tasks = given_tasks([0, 1, 2], [100] * 3, user=[0, 0, 1])
    played = play(env, params, tasks, follow([1, 1]))
    np.testing.assert_allclose(played.reward, [0.4, 0.4], rtol=1e-6)
    assert played.statistics["load"].tolist() == [0, 0, 200]  # the next one with a rating
    state = env.start(jax.tree.map(lambda x: x[0], tasks), params)
    assert env.legal_actions(state, params).tolist() == [True, False, True]


def test_a_full_market_with_holes_still_has_a_legal_choice():
    qoe, valid = np.full((2, 1, 2, 1), 0.8), np.ones((2, 1, 2, 1), bool)
    valid[0, 0, 1] = False
    env, params = market(table(qoe, valid), mask=True)
    task = jax.tree.map(lambda x: x[0], given_tasks([0, 1], [1_100, 100]))
    assert env.legal_actions(env.start(task, params), params).tolist() == [True, False]


def test_persona_and_request_join_the_observation():
    env, params = market(
        table(np.full((2, 3, 2, 1), 0.5)),
        observation=("task", "utility", "persona", "request"),
    )
    tasks = given_tasks([0, 1], [250, 100], user=[1, 0], request=[2, 0])
    observation = play(env, params, tasks, follow([0])).observation
    expected = [1, 1, 0.25, 0.25, 1, 0.5, 0, -0.5, -1, 0, 0, 1]
    np.testing.assert_allclose(observation[0], expected, rtol=1e-6)
    assert env.observation_space(params).shape == (12,)


def test_users_and_requests_come_by_their_weights():
    env, params = market(
        table(np.full((2, 3, 2, 1), 0.5)), user_mix=[0.2, 0.8], request_mix=[0, 3, 1]
    )

    def body(state, key):
        _, state, *_ = env.step(key, state, jnp.int32(0), params)
        return state, (state.task.user, state.task.request, state.task.draw)

    _, state = env.reset(jax.random.key(0), params)
    _, (user, request, draw) = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 4_000))
    np.testing.assert_allclose(np.bincount(user) / 4_000, [0.2, 0.8], atol=0.025)
    np.testing.assert_allclose(np.bincount(request) / 4_000, [0, 0.75, 0.25], atol=0.025)
    np.testing.assert_allclose(np.quantile(draw, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_greedy_knows_the_tastes_and_the_bound_lies_above_it():
    env, params = market()
    rng = np.random.default_rng(0)
    tasks = given_tasks(np.arange(40) * 1_000, [200] * 40, user=rng.integers(0, 2, 40))
    greedy = play(env, params, tasks, references.greedy(env))
    blind = play(env, params, tasks, references.least_loaded(env))
    assert greedy.action[:2].tolist() == tasks.user[:2].tolist()
    bound = offline_optimum(env, params, tasks).value
    assert blind.reward.sum() < greedy.reward.sum() <= bound * (1 + 1e-6)


def test_drift_off_changes_nothing():
    env, params = market()
    still, same = market(drift=Drift())
    tasks = given_tasks(np.arange(9), [100] * 9, user=[0, 1] * 4 + [0])
    actions = follow([0, 0, 1, 1] * 2)
    np.testing.assert_array_equal(
        play(env, params, tasks, actions).reward, play(still, same, tasks, actions).reward
    )


def test_interest_moves_with_what_was_served():
    drift = Drift(interest_rate=0.5, interest_weight=0.2)
    env, params = market(drift=drift, observation=("tastes",))
    tasks = given_tasks([0, 1, 2, 3], [100] * 4)
    played = play(env, params, tasks, follow([0, 0, 1]))
    # Of ann for provider 0, q = 0.8: interest 0, 0.3, 0.45; for provider 1, q = 0.2: -0.3 at last.
    np.testing.assert_allclose(
        played.observation[:, :2], [[0, 0], [0.3, 0], [0.45, 0], [0.45, -0.3]], atol=1e-6
    )
    np.testing.assert_allclose(played.reward, [0.4, 0.5 * (0.8 + 0.06), 0.1], rtol=1e-5)


def test_satiation_with_a_repeated_provider():
    drift = Drift(satiation_weight=0.5, satiation_memory=0.5)
    env, params = market(drift=drift, observation=("tastes",))
    tasks = given_tasks([0, 1, 2, 3, 4], [100] * 5, user=[0, 0, 1, 0, 0])
    played = play(env, params, tasks, follow([0, 0, 0, 1]))
    # ann's satiation with provider 0: 0, 1, 1.5; bob has his own.
    expected = [0.4, 0.4 / 1.5, 0.05, 0.1]
    np.testing.assert_allclose(played.reward, expected, rtol=1e-5)
    np.testing.assert_allclose(played.observation[-1], [0, 0, 0.75, 1.0], atol=1e-6)
    rows, rest = env.by_action(played.observation)
    np.testing.assert_allclose(rows[-1], [[0, 0.75], [0, 1.0]], atol=1e-6)
    assert rest.shape == (5, 0)


def test_a_crash_leaves_the_tastes():
    env, params = market(drift=Drift(0.5, 0.2, 0.5, 0.5), observation=("tastes",))
    played = play(env, params, given_tasks([0, 1], [1_100, 100]), follow([0]))
    assert played.crashed.all()
    assert not played.observation.any()


@pytest.mark.parametrize(
    ("personas", "options", "message"),
    [
        (PERSONAS[:1], {}, "user 'bob' has no persona"),
        ([[1, 2, 3, 4, 5], [1, 2, np.nan, 4, 5]], {}, "user 'bob' has no persona"),
        ([[0, 2, 3, 4, 5], [1, 2, 3, 4, 5]], {}, "user 'ann' has no persona"),
        (np.ones((3, 5)), {}, r"personas have shape \(3, 5\)"),
        (PERSONAS, {"user_mix": [1.0]}, "user_mix is .*: give 2 weights"),
        (PERSONAS, {"user_mix": [1.0, -1.0]}, "user_mix is"),
        (PERSONAS, {"request_mix": [0.0]}, "request_mix is"),
        (PERSONAS, {"request_features": np.ones((2, 3))}, "request features have shape"),
        (PERSONAS, {"drift": Drift(interest_rate=1.5)}, "interest_rate of the drift is 1.5"),
        (PERSONAS, {"drift": Drift(satiation_weight=-1.0)}, "satiation_weight of the drift"),
    ],
)
def test_impossible_users_are_refused(personas, options, message):
    with pytest.raises(InputError, match=message):
        make_users(TASTE, personas, **options)


def test_more_providers_than_the_table_knows_are_refused():
    users = make_users(TASTE, PERSONAS)
    with pytest.raises(InputError, match="fleet has 3 providers but the QoE table knows 2"):
        make_params(Fleet([500] * 3, [FLAT] * 3), users=users)


@pytest.mark.parametrize(
    ("column", "message"),
    [({"user": [0, 2]}, "task 1 has user 2"), ({"request": [1, 0]}, "task 0 has request 1")],
)
def test_tasks_of_unknown_users_and_requests_are_refused(column, message):
    env, params = market()
    with pytest.raises(InputError, match=message):
        play(env, params, given_tasks([0, 1], [100, 100], **column), follow([0]))


def test_observation_parts_without_users_are_refused():
    with pytest.raises(InputError, match="part persona needs users"):
        EdgeMarket(observation=("persona",))
    with pytest.raises(InputError, match="part tastes needs users whose tastes drift"):
        market(observation=("tastes",))


def test_the_optimum_is_refused_where_tastes_drift():
    env, params = market(drift=Drift())
    with pytest.raises(InputError, match="not defined where tastes drift"):
        offline_optimum(env, params, given_tasks([0, 1], [100, 100]))
