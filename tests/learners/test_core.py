"""Stepping and judging: restarts, final observations, episode sums, whole episodes."""

from functools import partial

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import DelayedReward, EndlessReward

from rlli_jax.learners import core, reference
from rlli_jax.learners.core import Policy


def play(env, steps, num_envs=3):
    """-> stacked transitions [T, N], summed episodes, the environments before each step."""
    params = env.default_params
    envs = core.reset(env, jax.random.key(0), params, num_envs)
    history = []
    for i in range(steps):
        seen = core.view(env, envs, params)
        action = jnp.zeros(num_envs, jnp.int32)
        before = envs
        envs, transition, ended = core.step(env, jax.random.key(i + 1), envs, seen, action, params)
        history.append((before, transition, ended))
    return history


def test_an_ended_episode_restarts_but_its_final_observation_stays():
    (_, first, none), (_, second, ended), (after, _, _) = play(DelayedReward(), 3)
    assert not first.done.any()
    assert int(none.count) == 0
    assert second.terminated.all()
    assert second.done.all()
    assert (second.next_observation[:, 1] == 2).all()  # the time after two steps
    assert (after.observation[:, 1] == 0).all()  # the next episode has begun
    assert (int(ended.count), float(ended.total_return)) == (3, 3.0)
    assert (after.episode_return == 0).all()


def test_a_truncated_episode_is_done_but_not_terminated():
    history = play(EndlessReward(), 4)
    last = history[-1][1]
    assert last.done.all()
    assert not last.terminated.any()


def test_steps_agree_with_gymnax_itself():
    env, params = gymnax.make("CartPole-v1")
    envs = core.reset(env, jax.random.key(0), params, 2)
    key, action = jax.random.key(1), jnp.array([0, 1])
    seen = core.view(env, envs, params)
    result, transition, _ = core.step(env, key, envs, seen, action, params)
    observation, state, reward, terminated, _, info = jax.vmap(env.step, (0, 0, 0, None))(
        jax.random.split(key, 2), envs.state, action, params
    )
    # One is compiled as a whole and the other is not: equal to float32 rounding.
    close = partial(np.testing.assert_allclose, atol=1e-6)
    close(result.observation, observation)
    jax.tree.map(close, result.state, state)
    assert np.array_equal(transition.reward, reward)
    assert np.array_equal(transition.terminated, terminated)
    close(transition.next_observation, info["final_observation"])


def test_the_mean_return_of_no_episode_is_not_a_number():
    metrics = core.Episodes(jnp.float32(0), jnp.int32(0)).metrics()
    assert np.isnan(metrics["episode_return"])


def test_evaluation_counts_every_episode_once_to_its_own_end():
    env, params = gymnax.make("CartPole-v1")
    result = core.evaluate(env, reference.random(), jax.random.key(0), params, 50)
    assert np.array_equal(result.returns, result.lengths)  # one point for each step
    assert len(np.unique(result.lengths)) > 5
    assert 15 < float(result.returns.mean()) < 30  # a random policy falls after about 22 steps


def test_evaluation_carries_the_memory_of_a_policy():
    """A policy that counts its own steps alternates the two actions."""

    def act(key, seen, carry):
        return carry % 2, carry + 1

    env, params = gymnax.make("CartPole-v1")
    alternating = core.evaluate(env, Policy(jnp.int32(0), act), jax.random.key(0), params, 8)
    constant = core.evaluate(
        env,
        Policy((), lambda key, seen, carry: (jnp.int32(0), carry)),
        jax.random.key(0),
        params,
        8,
    )
    assert float(alternating.lengths.mean()) > 2 * float(constant.lengths.mean())


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Catch-bsuite", "FourRooms-misc"])
def test_reference_policies_play_any_discrete_environment(env_id):
    env, params = gymnax.make(env_id)
    for policy in (reference.random(), reference.round_robin()):
        result = core.evaluate(env, policy, jax.random.key(0), params, 2)
        assert np.isfinite(result.returns).all()
        assert (result.lengths > 0).all()


@pytest.mark.parametrize("at_once", [1, 4, 5, 100])  # of 5 the largest divisor below is 4
def test_runs_in_groups_are_those_of_vmap(at_once):
    def run(state, params):
        return {
            "sum": state["x"] @ params["w"] + params["shift"],
            "bits": jax.random.bits(state["key"]),
        }

    keys = jax.random.split(jax.random.key(0), 12)
    states = {"nothing": None, "x": jax.random.normal(keys[0], (12, 3)), "key": keys}
    params = {"w": jnp.arange(3.0), "shift": jnp.arange(12.0)}
    axes = (0, {"w": None, "shift": 0})
    expected = jax.vmap(run, axes)(states, params)
    result = core.side_by_side(run, axes, at_once)(states, params)
    chex.assert_trees_all_close(result, expected, atol=1e-6)
