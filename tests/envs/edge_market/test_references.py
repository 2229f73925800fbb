from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.edge_market import (
    EdgeMarket,
    Fleet,
    follow,
    given_tasks,
    load_recording,
    make_params,
    play,
    references,
    sample_fleet,
)
from rlli_jax.envs.edge_market.optimum import offline_optimum


@pytest.fixture(scope="module")
def env():
    return EdgeMarket()


def the_return(env, params, tasks, policy):
    return float(play(env, params, tasks, policy).reward.sum())


@pytest.mark.parametrize(
    ("name", "policy"),
    [("round_robin", references.round_robin), ("crash_avoid", references.least_loaded)],
)
def test_policies_choose_as_recorded(env, agod, name, policy):
    recording = load_recording(agod / f"{name}_1.npz")
    params = make_params(recording.fleet)
    played = play(env, params, recording.tasks, policy(env))
    np.testing.assert_array_equal(played.action, recording.action)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_is_prophet_up_to_ties(env, agod, seed):
    """Where providers pay the same, AGOD's choice hangs on float64 rounding, ours is the first."""
    recording = load_recording(agod / f"prophet_{seed}.npz")
    params = make_params(recording.fleet)

    def best_and_chosen(key, state, params):
        value = jnp.where(env.room(state, params), env.value(state, params), -jnp.inf)
        return value.max() - value[taken[state.time]]

    taken = jnp.asarray(recording.action)
    first = jax.tree.map(lambda x: x[0], recording.tasks)

    @jax.jit
    def shortfall():
        def body(state, task):
            lost = best_and_chosen(None, state, params)
            state, _, _ = env.serve(state, taken[state.time], params)
            return env.arrive(state, task), lost

        later = jax.tree.map(lambda x: x[1:], recording.tasks)
        return jax.lax.scan(body, env.start(first, params), later)[1]

    assert np.abs(shortfall()).max() < 1e-6
    ours = the_return(env, params, recording.tasks, references.greedy(env))
    assert ours == pytest.approx(recording.reward.sum(), rel=0.01)


def test_random_is_uniform_and_keeps_to_the_mask():
    params = make_params(Fleet([100, 250, 250], [[0.0, 0.0, 100.0, 0.5]] * 3))
    tasks = given_tasks([0, 1], [200, 100])
    state = EdgeMarket(params).start(jax.tree.map(lambda x: x[0], tasks), params)
    for mask, expected in ((False, [1 / 3] * 3), (True, [0, 1 / 2, 1 / 2])):
        policy = references.random(EdgeMarket(params, mask=mask))
        keys = jax.random.split(jax.random.key(0), 3_000)
        actions = jax.vmap(policy, (0, None, None))(keys, state, params)
        np.testing.assert_allclose(np.bincount(actions, minlength=3) / 3_000, expected, atol=0.03)


def test_rollouts_keep_room_for_the_tasks_to_come_while_some_are_to_come():
    # The first provider pays .45 for a small task and .9 for a large one, for which it must be
    # empty; the second has much room and pays .4 for either.
    params = make_params(
        Fleet([200, 9_000], [[0, 0, 200, 0.9], [0, 0, 100, 0.4]]),
        demands=(100, 200),
        runtime=(0, 20, 0),
        arrival_rate=5e-3,
    )
    env = EdgeMarket(params, mask=True)
    rollout = jax.jit(references.rollout(env, futures=16, length=20))

    def chosen(policy, demand, params):
        tasks = given_tasks([0, 1], [demand, demand])
        state = env.start(jax.tree.map(lambda x: x[0], tasks), params)
        return int(policy(jax.random.key(0), state, params))

    assert [chosen(references.greedy(env), t, params) for t in (100, 200)] == [0, 0]
    assert [chosen(rollout, t, params) for t in (100, 200)] == [1, 0]
    assert chosen(rollout, 100, params.replace(horizon=1)) == 0


def test_best_single_is_the_best_of_all_singles(env):
    params = make_params(Fleet([900, 900], [[0, 0.4, 150, 0.5], [0, 0.0, 150, 0.9]]))
    tasks = given_tasks([0, 50_000, 100_000, 150_000], [200, 200, 200, 200])
    provider, value = references.best_single(env, params, tasks)
    assert provider == 1
    assert value == pytest.approx(2.7)


def brute_force(env, params, tasks):
    """The best return over all assignments without a crash; provider L stands for dropping."""
    count, providers = len(tasks.arrival) - 1, len(params.capacity)
    value = np.asarray(
        jax.vmap(lambda task: env.value(env.start(task, params), params))(
            jax.tree.map(lambda x: x[:-1], tasks)
        )
    )
    end = tasks.arrival + np.round(tasks.demand * float(params.runtime[1])).astype(int)
    best = 0.0
    for choice in product(range(providers + 1), repeat=count):
        fits = all(
            sum(
                tasks.demand[j]
                for j in range(i + 1)
                if choice[j] == provider and end[j] > tasks.arrival[i]
            )
            <= params.capacity[provider]
            for i in range(count)
            for provider in range(providers)
        )
        if fits:
            served = [(i, c) for i, c in enumerate(choice) if c < providers]
            best = max(best, sum(value[i, c] for i, c in served))
    return best


@pytest.mark.parametrize("seed", [0, 1])
def test_the_offline_optimum_is_that_of_brute_force(env, seed):
    rng = np.random.default_rng(seed)
    utility = sample_fleet(seed, providers=2).utility
    params = make_params(Fleet([400, 300], utility), runtime=(0.0, 1.0, 0.0))
    tasks = given_tasks(np.sort(rng.integers(0, 400, 7)), rng.integers(10, 26, 7) * 10)
    best = brute_force(env, params, tasks)
    assert offline_optimum(env, params, tasks, whole=True).value == pytest.approx(best, rel=1e-5)
    assert offline_optimum(env, params, tasks).value >= best - 1e-5


def test_the_bound_lies_above_greedy_on_a_recorded_fleet(env, agod):
    recording = load_recording(agod / "prophet_0.npz")
    params = make_params(recording.fleet)
    tasks = jax.tree.map(lambda x: x[:201], recording.tasks)
    bound = offline_optimum(env, params, tasks)
    assert 0.85 * bound.value < recording.reward[:200].sum() <= bound.value
    assert bound.shares.sum(1).max() < 1 + 1e-6


def test_following_a_list_takes_its_actions(env):
    params = make_params(sample_fleet(0))
    played = play(env, params, given_tasks([0, 1, 2], [100, 100, 100]), follow([4, 7]))
    assert played.action.tolist() == [4, 7]
