import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.contract import by_action
from rlli_jax.envs.edge_market import (
    EdgeMarket,
    Fleet,
    follow,
    given_tasks,
    load_recording,
    make_params,
    play,
    sample_fleet,
    sample_tasks,
)
from rlli_jax.errors import InputError

FLAT = [0.0, 0.0, 100.0, 0.5]  # worth 0.5 from 100 steps on
AGOD_EPISODES = [
    f"{policy}_{seed}"
    for policy in ("random", "round_robin", "crash_avoid", "prophet")
    for seed in (0, 1, 2)
]


@pytest.fixture(scope="module")
def env():
    return EdgeMarket()


@pytest.mark.parametrize("name", AGOD_EPISODES)
def test_recorded_episodes_replay(env, agod, name):
    recording = load_recording(agod / f"{name}.npz")
    params = make_params(recording.fleet)
    played = play(env, params, recording.tasks, follow(recording.action))
    np.testing.assert_array_equal(played.crashed, recording.crashed)
    np.testing.assert_allclose(played.reward, recording.reward, rtol=2e-7, atol=1.2e-7)
    np.testing.assert_allclose(played.observation, recording.observation, rtol=0, atol=6e-8)


def small_market(arrival, demand, actions, capacity=(250, 200)):
    fleet = Fleet(list(capacity), [FLAT] * len(capacity))
    params = make_params(fleet, runtime=(0.0, 1.0, 0.0))  # one second a step
    tasks = given_tasks(arrival, demand)
    return play(EdgeMarket(params), params, tasks, follow(actions))


def test_a_crash_kills_what_runs_and_drops_the_task():
    # At 40 s provider 0 runs tasks of 100 s from 0 s (0.6 to come) and from 10 s (0.7 to come).
    played = small_market([0, 10, 40, 50, 60], [100, 100, 150, 200, 100], [0, 0, 0, 0])
    np.testing.assert_allclose(played.reward, [0.5, 0.5, -2 * (1 + 0.6 + 0.7), 0.5], rtol=1e-6)
    assert played.crashed.tolist() == [False, False, True, False]
    counts = {name: float(value) for name, value in played.statistics.items() if name != "load"}
    assert counts == pytest.approx(
        {"tasks": 4, "assigned": 3, "lost": 1, "crashed": 2, "finished": 0, "utility": 1.5}
    )
    assert played.statistics["load"].tolist() == [400, 0]


def test_a_task_is_finished_in_the_second_its_runtime_ends():
    # 250 steps fill provider 0 until 250 s; a second earlier it crashes.
    just = small_market([0, 250, 251], [250, 250, 100], [0, 0])
    early = small_market([0, 249, 251], [250, 250, 100], [0, 0])
    assert just.crashed.tolist() == [False, False]
    assert just.statistics["finished"] == 1
    assert early.crashed.tolist() == [False, True]


def test_observation_parts(env):
    fleet = Fleet([900, 450], [FLAT, [150.0, 0.2, 250.0, 1.0]])
    params = make_params(fleet)
    env = EdgeMarket(params, observation=("providers", "task", "room", "utility"))
    tasks = given_tasks([0, 1, 2], [250, 225, 100])
    observation = play(env, params, tasks, follow([1, 0])).observation
    runtime = (0.06 * 225**2 + 150 * 225 - 840) / 40410
    expected = [1, 1, 0.5, 200 / 450, 0.9, runtime, 1, 0, 0.5, 0.6]
    np.testing.assert_allclose(observation[1], expected, rtol=1e-6)
    assert env.observation_space(params).shape == observation[1].shape


def test_the_forecast_is_what_is_left_when_the_task_is_taken_and_what_runs_has_ended():
    params = make_params(Fleet([900, 450], [FLAT, FLAT]), horizon=50_000)
    env = EdgeMarket(params, observation=("providers", "task", "forecast", "remaining"))
    tasks = given_tasks([0, 30_000, 30_001], [250, 225, 100])
    observation = play(env, params, tasks, follow([1, 0])).observation[1]
    rows, rest = env.by_action(observation)
    # The first task runs 40,410 s, a quarter of which is to come: more than 0.2 of the longest.
    forecast = [[675] * 5, [-25, -25, -25, 225, 225]]
    np.testing.assert_allclose(rows[:, 2:], np.array(forecast) / 900, rtol=1e-6)
    np.testing.assert_allclose(rows[:, :2], [[1, 1], [0.5, 200 / 450]], rtol=1e-6)
    np.testing.assert_allclose(rest, [*observation[4:6], 20_000 / 40_410], rtol=1e-6)
    assert env.observation_space(params).contains(observation)


def test_mask_leaves_those_with_room_or_all(agod):
    params = make_params(Fleet([100, 250], [FLAT, FLAT]))
    masked, free = EdgeMarket(params, mask=True), EdgeMarket(params)
    task = jax.tree.map(lambda x: x[0], given_tasks([0, 1], [200, 100]))
    state = masked.start(task, params)
    assert masked.legal_actions(state, params).tolist() == [False, True]
    assert free.legal_actions(state, params).tolist() == [True, True]
    state, _, _ = masked.serve(state, jnp.int32(1), params)
    assert masked.legal_actions(state, params).tolist() == [True, True]


def sampled_arrivals(env, params, episodes, steps):
    """Arrival times [episodes, steps + 1] without restarts, and when each episode ended."""

    def episode(key):
        def body(state, key):
            _, state, _, terminated, _ = env.step_env(key, state, jnp.int32(0), params)
            return state, (state.task.arrival, state.task.demand, terminated)

        _, state = env.reset_env(key, params)
        first = (state.task.arrival, state.task.demand, jnp.bool_(False))
        _, rest = jax.lax.scan(body, state, jax.random.split(key, steps))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes))


def test_arrivals_have_the_law_of_agod(env):
    """N ~ Poisson(rate horizon) sorted uniform times, cut to whole seconds, after one at 0."""
    params = make_params(sample_fleet(0), horizon=30_000)
    arrival, demand, ended = map(np.asarray, sampled_arrivals(env, params, 4_000, 70))
    assert (arrival[:, 0] == 0).all()
    assert (np.diff(arrival) >= 0).all()
    last = ended.argmax(1)
    assert ended.any(1).all()
    # Within three standard errors of N ~ Poisson(30): of its mean, and of its variance (1.5).
    assert abs(last.mean() - 30) < 3 * np.sqrt(30 / 4_000)
    assert abs(last.var() - 30) < 4.5
    before_end = np.arange(71) <= last[:, None]
    times = arrival[before_end & (np.arange(71) > 0)]
    assert times.max() < 30_000
    # Given N the times are uniform: compare with the generator of AGOD itself.
    rng = np.random.default_rng(0)
    theirs = [np.sort(rng.random(n) * 30_000).astype(int) for n in rng.poisson(30, 4_000)]
    ours_gaps = np.diff(arrival)[before_end[:, 1:]]
    their_gaps = np.concatenate([np.diff(np.append(0, t)) for t in theirs])
    quantiles = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        np.quantile(times, quantiles), np.quantile(np.concatenate(theirs), quantiles), atol=300
    )
    np.testing.assert_allclose(
        np.quantile(ours_gaps, quantiles), np.quantile(their_gaps, quantiles), rtol=0.04, atol=6
    )
    values, counts = np.unique(demand[before_end], return_counts=True)
    assert values.tolist() == list(range(100, 260, 10))
    np.testing.assert_allclose(counts / counts.sum(), 1 / 16, rtol=0.05)


def test_sampled_tasks_are_those_of_an_episode(env):
    params = make_params(sample_fleet(0), horizon=30_000)
    tasks = [sample_tasks(jax.random.key(i), params) for i in range(200)]
    counts = np.array([len(t.arrival) - 1 for t in tasks])
    assert abs(counts.mean() - 30) < 3 * np.sqrt(30 / 200)
    assert all(t.arrival[0] == 0 and t.arrival[-1] < 30_000 for t in tasks)
    assert all((np.diff(t.arrival) >= 0).all() for t in tasks)


def test_a_market_that_nobody_visits_serves_its_first_task_and_ends(env):
    params = make_params(sample_fleet(0), arrival_rate=1e-12)
    _, state = env.reset(jax.random.key(0), params)
    assert env.step(jax.random.key(1), state, jnp.int32(0), params)[3]
    assert len(sample_tasks(jax.random.key(0), params).arrival) == 2


def test_the_rate_swings_with_its_period(env):
    params = make_params(
        sample_fleet(0), arrival_rate=0.1, rate_amplitude=0.8, rate_period=10_000, horizon=10_000
    )
    arrival, _, _ = sampled_arrivals(env, params, 20, 1_200)
    busy, quiet = np.asarray((arrival < 5_000).sum(1)), np.asarray((arrival < 10_000).sum(1))
    # The integral of 1 + 0.8 sin over the first half: 1 + 1.6 / pi times the average.
    share = busy.mean() / quiet.mean()
    assert share == pytest.approx((1 + 1.6 / np.pi) / 2, abs=0.02)


def test_an_episode_ends_when_the_last_task_comes_and_starts_again(env):
    params = make_params(sample_fleet(0), horizon=3_000)
    key = jax.random.key(1)
    _, state = env.reset(key, params)
    for step in range(50):
        expected = state.next_arrival
        key, key_step = jax.random.split(key)
        _, after, _, terminated, truncated, _ = env.step(key_step, state, jnp.int32(0), params)
        assert not truncated
        if terminated:
            assert after.time == 0
            assert after.task.arrival == 0
            assert not after.until.any()
            break
        assert after.time == step + 1
        assert after.task.arrival == expected < 3_000
        state = after
    assert terminated


def test_parameters_are_traced(env):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, key):
        state = env.reset(key, params)[1]
        return env.step(key, state, jnp.int32(3), params)[2]

    base = make_params(sample_fleet(0))
    rewards = [float(step(make_params(sample_fleet(seed)), jax.random.key(0))) for seed in (0, 1)]
    assert rewards[0] != rewards[1]
    step(base.replace(arrival_rate=2e-3, crash_penalty=5.0, horizon=10), jax.random.key(0))


def test_fleets_vmap(env):
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(make_params(sample_fleet(i)) for i in (0, 1)))
    observation, _ = jax.vmap(env.reset, (None, 0))(jax.random.key(0), stacked)
    assert observation.shape == (2, 42)
    assert not (observation[0] == observation[1]).all()


def test_more_tasks_at_once_than_slots_are_refused(env):
    fleet = Fleet([1_000], [FLAT])
    with pytest.raises(InputError, match=r"can run 10 tasks at once, .* made for 9"):
        env.check(make_params(fleet))
    params = make_params(fleet)
    with pytest.raises(InputError, match="task 1 asks for 90 denoising steps"):
        play(EdgeMarket(params), params, given_tasks([0, 1, 2], [100, 90, 100]), follow([0, 0]))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (([0, 20, 10], [100] * 3), "task 2 arrives at 10 s, before task 1 at 20 s"),
        (([0], [100]), "at least two times"),
        (([0, 1], [100]), r"demand of the tasks has shape \(1,\) but there are 2 arrivals"),
        (([0, 1], [100, 0]), "task 1 has demand 0"),
        (([0, np.nan], [100, 100]), "task 1 has arrival nan"),
        (([0, 1], [100, 100], [0, -1]), "task 1 has user -1"),
        (([0, 1], [100, 100], None, None, [0.5, 1.0]), "task 1 has draw 1"),
        (([0, 1], [100, 100], None, None, None, np.ones(2)), r"fading of the tasks has shape"),
    ],
)
def test_impossible_tasks_are_refused(tasks, message):
    with pytest.raises(InputError, match=message):
        given_tasks(*tasks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arrival_rate": 0.0}, "arrival_rate is 0.0"),
        ({"rate_amplitude": 1.0}, "rate_amplitude is 1.0"),
        ({"rate_period": -1.0}, "rate_period is -1.0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"crash_penalty": float("nan")}, "crash_penalty is nan"),
        ({"capacity_scale": 0}, "capacity_scale is 0"),
        ({"demands": ()}, "demands is"),
        ({"demands": (100.5,)}, "demands is"),
        ({"runtime": (1.0, 2.0)}, "runtime has 2 numbers"),
        ({"runtime": (0.0, 0.0, 0.0)}, "runtime gives 0 s for a demand of 100 steps"),
    ],
)
def test_impossible_parameters_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_params(sample_fleet(0), **options)


@pytest.mark.parametrize("parts", [(), ("task", "task"), ("weather",)])
def test_impossible_observations_are_refused(parts):
    with pytest.raises(InputError, match="observation is"):
        EdgeMarket(observation=parts)


def test_a_missing_recording_is_refused(tmp_path):
    with pytest.raises(InputError, match="no recorded episode can be read"):
        load_recording(tmp_path / "none.npz")


def test_an_observation_that_tells_nothing_of_providers_has_no_rows():
    env = EdgeMarket(observation=("task",))
    rows, rest = env.by_action(jnp.arange(2.0))
    assert (rows.shape, rest.tolist()) == ((20, 0), [0, 1])
    with pytest.raises(InputError, match="tells nothing of each action"):
        by_action(env)(jnp.zeros(2))
