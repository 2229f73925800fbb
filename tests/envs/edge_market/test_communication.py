from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.edge_market import (
    EdgeMarket,
    Fleet,
    Link,
    follow,
    given_tasks,
    make_params,
    play,
    references,
    sample_distances,
    sample_fleet,
)
from rlli_jax.envs.edge_market.communication import earliest_start, power_gain, rate
from rlli_jax.envs.edge_market.optimum import offline_optimum
from rlli_jax.errors import InputError

FLAT = [0.0, 0.0, 100.0, 0.5]  # worth 0.5 from 100 steps on
ONE_A_STEP = (0.0, 1.0, 0.0)  # a task of t steps runs t seconds


def link(**options):
    return Link(distance=np.array([[500.0, 100.0]]), **options)


def linked_market(**options):
    return make_params(Fleet([400, 400], [FLAT, FLAT]), runtime=ONE_A_STEP, link=link(), **options)


def test_the_rate_is_shannons():
    """By hand: 128.1 + 37.6 log10(0.5) = 116.78 dB; noise -174 + 9 + 60 = -105 dBm."""
    ours = rate(link(), 0.2, jnp.float32(500), jnp.float32(1))
    received = 10 * np.log10(200) - (128.1 + 37.6 * np.log10(0.5))  # dBm
    expected = 1e6 * np.log2(1 + 10 ** ((received + 105) / 10))
    assert ours == pytest.approx(expected, rel=1e-4)
    assert rate(link(), 0.2, jnp.float32(500), jnp.float32(0)) == 0


def test_latency_discounts_what_is_paid_and_energy_is_counted():
    params = linked_market(patience=1_000.0)
    env = EdgeMarket(params, observation=("latency",))
    fading = np.array([[1.0, 0.5], [1.0, 1.0]])
    played = play(env, params, given_tasks([0, 1], [200, 100], fading=fading), follow([1]))
    up = 2_464 / float(rate(link(), 0.2, 100.0, 0.5))
    down = 65_536 / float(rate(link(), 1.0, 100.0, 0.5))
    latency = 200 + up + down
    assert played.statistics["latency"] == pytest.approx(latency, rel=1e-5)
    energy = 0.2 * up + 1.0 * down + 350 * 200
    assert played.statistics["energy"] == pytest.approx(energy, rel=1e-5)
    assert played.reward[0] == pytest.approx(0.5 * np.exp(-latency / 1_000), rel=1e-5)
    assert played.observation[0, 1] == pytest.approx(latency / 250, rel=1e-5)
    priced = params.replace(link=params.link.replace(energy_price=1e-6))
    tasks = given_tasks([0, 1], [200, 100], fading=fading)
    cheaper = play(env, priced, tasks, follow([1])).reward[0]
    assert float(played.reward[0] - cheaper) == pytest.approx(1e-6 * energy, rel=1e-4)


def test_greedy_sees_the_channel():
    params = linked_market(patience=1.0)
    params = params.replace(link=params.link.replace(image_bits=1e7, compute_power=0.0))
    params = params.replace(runtime=params.runtime * 1e-2)
    env = EdgeMarket(params)
    tasks = given_tasks([0, 10, 20], [200] * 3, fading=[[1, 1], [1, 1e-6], [1, 1]])
    assert play(env, params, tasks, references.greedy(env)).action.tolist() == [1, 0]


def test_fading_is_exponential_with_mean_one():
    params = linked_market()
    env = EdgeMarket(params)

    def body(state, key):
        _, state, *_ = env.step(key, state, jnp.int32(0), params)
        return state, state.task.fading

    _, state = env.reset(jax.random.key(0), params)
    _, gains = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 4_000))
    quantiles = np.array([0.1, 0.5, 0.9])
    expected = np.repeat(-np.log(1 - quantiles)[:, None], 2, axis=1)
    np.testing.assert_allclose(np.quantile(gains, quantiles, axis=0), expected, rtol=0.12)
    assert gains.mean() == pytest.approx(1, abs=0.05)


def test_the_link_is_traced():
    env = EdgeMarket(linked_market())

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params):
        state = env.reset(jax.random.key(0), params)[1]
        return env.step(jax.random.key(1), state, jnp.int32(0), params)[2]

    params = linked_market(patience=1_000.0)
    base = step(params)
    assert step(params.replace(link=params.link.replace(bandwidth=jnp.float32(1e3)))) < base
    assert step(params.replace(patience=500.0)) < base


def test_a_queue_waits_where_there_was_a_crash():
    params = make_params(Fleet([250], [FLAT]), runtime=ONE_A_STEP)
    env = EdgeMarket(params, queue=2, observation=("providers", "room", "latency"))
    # Runs 0-200; waits 200-350; 100 steps would fit at 350 only, as nobody overtakes; then full.
    tasks = given_tasks([0, 10, 20, 30, 500], [200, 150, 150, 100, 100])
    played = play(env, params, tasks, follow([0, 0, 0, 0]))
    assert played.crashed.tolist() == [False, False, False, True]
    assert played.statistics["latency"] == pytest.approx(200 + 340 + 480)
    # At 30 s: 170 of 200 s to come, and two tasks that have not begun.
    np.testing.assert_allclose(played.reward, [0.5, 0.5, 0.5, -2 * (1 + 0.85 + 2)], rtol=1e-6)
    np.testing.assert_allclose(
        played.observation[2], [250 / 900, -100 / 250, 1, (330 + 150) / 250], rtol=1e-6
    )
    assert played.observation[3, 2] == 0
    assert played.statistics["crashed"] == 3


def test_a_queue_does_not_help_what_is_too_large():
    params = make_params(Fleet([150], [FLAT]), runtime=ONE_A_STEP)
    tasks = given_tasks([0, 1], [200, 100])
    assert play(EdgeMarket(params, queue=2), params, tasks, follow([0])).crashed.all()


def test_a_queue_that_is_never_used_changes_nothing():
    params = make_params(sample_fleet(0))
    rng = np.random.default_rng(0)
    tasks = given_tasks(np.sort(rng.integers(0, 300_000, 200)), rng.integers(10, 26, 200) * 10)
    env, queued = EdgeMarket(params), EdgeMarket(params, queue=1)
    ours, theirs = (play(e, params, tasks, references.least_loaded(e)) for e in (env, queued))
    assert not ours.crashed.any()
    np.testing.assert_array_equal(ours.observation, theirs.observation)
    np.testing.assert_array_equal(ours.reward, theirs.reward)


def brute_start(now, demand, capacity, begin, until, steps):
    first = max([now, *begin[until > now]])
    for second in range(first, first + 1_000):
        if steps[until > second].sum() + demand <= capacity:
            return second
    return np.iinfo(np.int32).max


def test_the_earliest_start_is_that_of_trying_every_second():
    rng = np.random.default_rng(0)
    start = jax.jit(earliest_start)
    for _ in range(200):
        begin = rng.integers(0, 60, 6)
        until = begin + rng.integers(1, 80, 6)
        steps = rng.integers(1, 5, 6)
        now, demand, capacity = rng.integers(20, 60), rng.integers(1, 12), 10
        given = (now, demand, capacity, begin, until, steps)
        assert start(*(jnp.int32(x) for x in given)) == brute_start(*given)


def test_distances_keep_their_least():
    apart = sample_distances(0, users=300, providers=20, side=100.0)
    assert apart.shape == (300, 20)
    assert apart.min() == 10
    assert apart.max() <= 100 * np.sqrt(2)
    # The mean distance of two places in a unit square is 0.5214.
    assert sample_distances(1, 300, 300).mean() == pytest.approx(521.4, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": np.ones((2, 2))}, r"distance of shape \(2, 2\)"),
        ({"distance": np.array([[0.0, 1.0]])}, "distance of the link is 0"),
        ({"bandwidth": 0.0}, "bandwidth of the link is 0"),
        ({"noise_density": np.nan}, "noise_density of the link is nan"),
        ({"energy_price": -1.0}, "energy_price of the link is -1"),
    ],
)
def test_impossible_links_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_params(Fleet([400, 400], [FLAT, FLAT]), link=replace(link(), **options))


def test_tasks_and_link_must_fit():
    params = linked_market()
    env = EdgeMarket(params)
    with pytest.raises(InputError, match="there is link but no fading"):
        play(env, params, given_tasks([0, 1], [100, 100]), follow([0]))
    tasks = given_tasks([0, 1], [100, 100], fading=np.ones((2, 3)))
    with pytest.raises(InputError, match="fading for 3 providers"):
        play(env, params, tasks, follow([0]))


def test_a_negative_queue_and_patience_are_refused():
    with pytest.raises(InputError, match="queue is -1"):
        EdgeMarket(queue=-1)
    with pytest.raises(InputError, match="patience is 0"):
        make_params(sample_fleet(0), patience=0)


def test_the_optimum_is_refused_where_tasks_queue():
    params = make_params(sample_fleet(0))
    with pytest.raises(InputError, match="not defined where tasks queue"):
        offline_optimum(EdgeMarket(params, queue=1), params, given_tasks([0, 1], [100, 100]))


def test_the_deepest_fading_still_lets_some_bits_through():
    fading = power_gain(jnp.array([0.0, 2.0**-23, 0.5]))
    np.testing.assert_allclose(fading[1:], [2.0**-23, np.log(2)], rtol=1e-6)
    own = link()
    bits = np.asarray(rate(own, own.user_power, jnp.float32(1_000.0), fading), np.float64)
    assert (bits > 0).all()
    np.testing.assert_allclose(bits[1] / bits[0], 2, rtol=1e-5)  # proportional where SNR is small
