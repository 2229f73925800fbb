"""Stepping and judging: restarts, final observations, episode sums, whole episodes."""

from functools import partial

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import ConstantReward, DelayedReward, EndlessReward, Params

from rlli_jax.envs.policy import Policy, evaluate, random, round_robin
from rlli_jax.envs.provider_selection import ProviderSelection, make_params
from rlli_jax.learners import core, cpu
from rlli_jax.qoe import QoETable
from rlli_jax.tally import Tally


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
    result = evaluate(env, random(), jax.random.key(0), params, 50)
    assert np.array_equal(result.returns, result.lengths)  # one point for each step
    assert len(np.unique(result.lengths)) > 5
    assert 15 < float(result.returns.mean()) < 30  # a random policy falls after about 22 steps


def test_evaluation_carries_the_memory_of_a_policy():
    """A policy that counts its own steps alternates the two actions."""

    def act(key, seen, carry):
        return carry % 2, carry + 1

    env, params = gymnax.make("CartPole-v1")
    alternating = evaluate(env, Policy(jnp.int32(0), act), jax.random.key(0), params, 8)
    constant = evaluate(
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
    for policy in (random(), round_robin()):
        result = evaluate(env, policy, jax.random.key(0), params, 2)
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
    result = cpu.vmap_in_groups(run, axes, at_once)(states, params)
    chex.assert_trees_all_close(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("runs", "at_once", "groups"),
    [(7, 4, (2, 4)), (13, 5, (3, 5)), (22, 8, (3, 8)), (10, 4, (5, 2)), (3, 2, (3,)), (5, 8, ())],
)
def test_a_number_of_runs_that_does_not_divide_still_goes_in_groups(runs, at_once, groups):
    """(groups, runs in each); one axis: one by one; none: all at once."""
    shapes = []

    def run(key):
        shapes.append(None)
        return jax.random.bits(key), {"twice": jax.random.uniform(key) * 2}

    keys = jax.random.split(jax.random.key(0), runs)
    grouped = cpu.vmap_in_groups(run, 0, at_once)
    loops = [e for e in jax.make_jaxpr(grouped)(keys).jaxpr.eqns if e.primitive.name == "scan"]
    assert [tuple(loop.invars[0].aval.shape) for loop in loops] == [groups] * bool(groups)
    chex.assert_trees_all_equal(grouped(keys), jax.vmap(run)(keys))


class Served(ConstantReward):
    """Ten users, one a step; the step counts who was served, in whole and as a tally."""

    length = 10

    def statistics(self, state, action, params):
        served = Tally((state.time, action), (10, 2))
        return {"served": served, "whole": served.dense(), "sign": state.sign}


def test_a_tally_adds_up_as_the_whole_array_does():
    env = Served()

    def act(key, seen, carry):
        return (carry % 3 == 1).astype(jnp.int32), carry + 1

    def play(key):
        return evaluate(env, Policy(jnp.int32(0), act), key, env.default_params, 6)

    result = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 2))
    served = np.zeros((10, 2))
    served[np.arange(10), [0, 1, 0] * 3 + [0]] = 6
    assert np.array_equal(result.statistics["served"], [served] * 2)
    assert np.array_equal(result.statistics["whole"], result.statistics["served"])


class ShortForOne(ConstantReward):
    """An episode lasts as many steps as its parameters say."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=3)

    length = 1_000

    def statistics(self, state, action, params):
        return {"steps": jnp.float32(1)}


def test_runs_whose_episodes_end_earlier_count_nothing_more():
    env = ShortForOne()
    limits = jnp.array([2, 5, 3])

    def play(limit):
        params = Params(max_steps_in_episode=limit)
        return evaluate(env, random(), jax.random.key(0), params, 4)

    together = jax.jit(jax.vmap(play))(limits)
    assert together.statistics["steps"].tolist() == [8, 20, 12]
    assert together.returns.tolist() == [[2] * 4, [5] * 4, [3] * 4]
    chex.assert_trees_all_equal(together, jax.vmap(play)(limits))


def inner(jaxpr):
    """Every equation of a program, those of its loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr")):
            if hasattr(parameter, "jaxpr"):
                yield from inner(parameter.jaxpr)


def test_a_step_of_evaluation_does_not_grow_with_the_statistics():
    """Else time is quadratic in the users: only a scatter, in place, may touch [K, R, L]."""
    users, requests, providers = 97, 3, 2
    table = QoETable(
        qoe=np.full((users, requests, providers, 1), 0.5, np.float32),
        valid=np.ones((users, requests, providers, 1), bool),
        users=tuple(f"user {k}" for k in range(users)),
        requests=("one", "another", "a third"),
        providers=("A", "B"),
        judge="made up",
        stand_in=True,
    )
    env = ProviderSelection(make_params(table))

    def play(key):
        return evaluate(env, random(), key, env.default_params, 4)

    program = jax.make_jaxpr(jax.vmap(play))(jax.random.split(jax.random.key(0), 2))
    (loop,) = (e for e in inner(program.jaxpr) if e.primitive.name == "while")
    large = users * requests * providers
    makers = {
        equation.primitive.name
        for equation in inner(loop.params["body_jaxpr"].jaxpr)
        for made in equation.outvars
        if made.aval.size % large == 0
    }
    assert makers == {"scatter-add"}
