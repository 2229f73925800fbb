"""DQN: the replay buffer and its n-step samples, schedules, tracing."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import ForbiddenJackpot

from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners.core import Transition
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn, quantile_loss, td_goal, td_loss
from rlli_jax.learners.replay import Buffer, Priorities, draw, first_priorities, sample, write

SMALL = DQNConfig(num_envs=4, num_steps=4, batch_size=8, buffer_size=64, warm_up=16, hidden=(8,))


SELECTION = ProviderSelection()
# Compiled: op by op these tests would take minutes.
written = jax.jit(write, static_argnums=2)
sampled = jax.jit(sample, static_argnums=2)


@cache
def compiled(env):
    learner = dqn(env, SMALL)
    return jax.jit(learner.init), jax.jit(learner.step)


def history(env, hyperparams, iterations=2, key=0):
    """-> (state, metrics) after each iteration, strongly typed so that nothing compiles twice."""
    init, step = compiled(env)
    hyperparams = jax.tree.map(
        lambda x, like: jnp.asarray(x, jnp.asarray(like).dtype), hyperparams, DQNHyperparams()
    )
    state = init(jax.random.key(key), hyperparams, env.default_params)
    steps = []
    for _ in range(iterations):
        steps.append(step(state if not steps else steps[-1][0], env.default_params))
    return steps


def run(*args, **kwargs):
    return history(*args, **kwargs)[-1]


def filled_buffer(capacity, num_envs, steps, episode):
    """Vector step t is marked by t; an episode ends every ``episode`` steps, by turns in a
    termination and a truncation."""
    empty = Transition(
        observation=jnp.zeros((capacity, num_envs, 1)),
        legal=jnp.ones((capacity, num_envs, 2), bool),
        action=jnp.zeros((capacity, num_envs), jnp.int32),
        reward=jnp.zeros((capacity, num_envs)),
        terminated=jnp.zeros((capacity, num_envs), bool),
        done=jnp.zeros((capacity, num_envs), bool),
        next_observation=jnp.zeros((capacity, num_envs, 1)),
        next_legal=jnp.ones((capacity, num_envs, 2), bool),
    )
    buffer, one = Buffer(empty, jnp.int32(0)), np.ones(num_envs, np.float32)
    for t in range(steps):
        done = (t + 1) % episode == 0
        terminated = done and ((t + 1) // episode) % 2 == 1
        step = Transition(
            observation=t * one[:, None],
            legal=np.ones((num_envs, 2), bool),
            action=np.zeros(num_envs, np.int32),
            reward=(1.0 + t) * one,
            terminated=np.full(num_envs, terminated),
            done=np.full(num_envs, done),
            next_observation=(t + 1) * one[:, None],
            next_legal=np.ones((num_envs, 2), bool),
        )
        buffer = written(buffer, step)
    return buffer


@pytest.mark.parametrize("n_step", [1, 3, 5])
@pytest.mark.parametrize("steps", [6, 8, 21])  # partly filled, full, overwritten
def test_samples_are_n_step_transitions_of_one_episode(n_step, steps):
    capacity, gamma, episode = 8, 0.5, 4
    buffer = filled_buffer(capacity, 2, steps, episode)
    bits = jax.random.bits(jax.random.key(0), (2, 512))
    batch, discount = jax.device_get(sampled(bits, buffer, n_step, gamma))
    starts = batch.observation[:, 0].astype(int)
    oldest = max(0, steps - capacity)
    assert set(starts) == set(range(oldest, steps - n_step + 1))
    for i, start in enumerate(starts):
        to_end = episode - start % episode
        length = min(n_step, to_end)
        reward = sum(gamma**k * (1 + start + k) for k in range(length))
        ended = length == to_end
        terminated = ended and ((start + length) // episode) % 2 == 1
        assert np.isclose(batch.reward[i], reward)
        assert np.isclose(discount[i], gamma**length)
        assert batch.next_observation[i, 0] == start + length
        assert bool(batch.done[i]) == ended
        assert bool(batch.terminated[i]) == terminated


def test_samples_cover_the_buffer_uniformly():
    buffer = filled_buffer(8, 2, 8, 100)
    batch, _ = sampled(jax.random.bits(jax.random.key(0), (2, 8_000)), buffer, 1, 0.9)
    counts = np.bincount(np.asarray(batch.observation[:, 0]).astype(int), minlength=8)
    # Binomial with p = 1/8: five standard deviations around 1,000.
    assert (abs(counts - 1000) < 5 * np.sqrt(8000 * 7 / 64)).all()


def test_draws_are_in_proportion_to_priorities():
    power = jnp.zeros((2, 64, 64)).at[0, 0, 3].set(1.0).at[0, 5, 0].set(2.0).at[1, 63, 63].set(5.0)
    uniform = jax.random.uniform(jax.random.key(0), (8_000,))
    number, probability = draw(uniform, Priorities(power, jnp.float32(5)))
    values, counts = np.unique(number, return_counts=True)
    assert values.tolist() == [3, 5 * 64, 2 * 64 * 64 - 1]
    # Strata leave at most one draw to chance at each border.
    assert np.allclose(counts, [1000, 2000, 5000], atol=1)
    expected = {3: 1 / 8, 5 * 64: 2 / 8, 2 * 64 * 64 - 1: 5 / 8}
    assert np.allclose(probability, [expected[int(i)] for i in number])


def test_only_transitions_with_a_priority_are_drawn_whatever_the_order_of_sums(monkeypatch):
    """Accelerators add in another order at each place: sums rise a little over zeros, or fall."""
    exact = jnp.cumsum

    def rounded(x, axis):
        noise = np.random.default_rng(0).choice([-1e-6, 0.0, 1e-6], x.shape[-1])
        return exact(x, axis) * (1 + jnp.asarray(noise, x.dtype))

    # Mass in every eighth place: a noisy sum changes between them again and again.
    power = jnp.zeros((64, 64, 64)).at[::8, ::8, ::8].set(0.1)
    uniform = jax.random.uniform(jax.random.key(0), (2_048,)).at[-1].set(1 - 2**-24)
    monkeypatch.setattr(jnp, "cumsum", rounded)
    number, probability = draw(uniform, Priorities(power, jnp.float32(1)))
    assert (power.reshape(-1)[number] > 0).all()
    assert np.allclose(probability, 1 / 512)
    assert len(np.unique(number)) == 512


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("steps", [6, 8, 21])
def test_only_transitions_with_all_their_steps_can_be_drawn(n_step, steps):
    capacity, num_envs = 8, 2
    filled = filled_buffer(capacity, num_envs, 4, 100)
    buffer = filled.replace(priorities=first_priorities(4, n_step, capacity, num_envs))
    first = jax.tree.map(lambda x: x[0], buffer.steps)
    for _ in range(steps - 4):
        buffer = written(buffer, first, n_step)
    alive = {
        (t % capacity) * num_envs + env
        for t in range(max(0, steps - capacity), steps - n_step + 1)
        for env in range(num_envs)
    }
    assert set(np.flatnonzero(buffer.priorities.power)) == alive


def test_prioritized_errors_become_priorities():
    config = DQNConfig(**{**SMALL.__dict__, "prioritized": True})
    learner, params = dqn(SELECTION, config), SELECTION.default_params
    state = jax.jit(learner.init)(jax.random.key(0), DQNHyperparams(), params)
    state, _ = jax.jit(learner.step)(state, params)
    power = np.asarray(state.buffer.priorities.power).reshape(-1)
    stored = 16 + SMALL.num_envs * SMALL.num_steps
    assert (power[:stored] > 0).all()
    assert (power[stored:] == 0).all()
    assert len(np.unique(power[:stored])) > 4


def test_quantile_loss_is_equation_10_term_by_term():
    predicted, goal = jnp.array([[0.0, 2.0]]), jnp.array([[0.5, 3.0, -1.0]])
    total = 0.0
    for i, level in enumerate([0.25, 0.75]):
        for target in goal[0]:
            u = float(target - predicted[0, i])
            huber = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
            total += abs(level - (u < 0)) * huber / 3
    assert np.isclose(float(quantile_loss(predicted, goal)[0]), total)


def test_illegal_actions_are_never_taken():
    state, metrics = run(ForbiddenJackpot(), DQNHyperparams(epsilon_end=1.0), iterations=3)
    assert (state.buffer.steps.action[: int(state.buffer.written)] > 0).all()
    assert float(metrics["episode_return"]) <= 1


def test_epsilon_falls_linearly_and_stays():
    hyper = DQNHyperparams(epsilon_start=1.0, epsilon_end=0.2, exploration=0.5, total_iterations=4)
    epsilons = [float(metrics["epsilon"]) for _, metrics in history(SELECTION, hyper, 4)]
    assert np.allclose(epsilons, [1.0, 0.6, 0.2, 0.2])


def test_hard_target_is_copied_only_every_period():
    updates = SMALL.num_steps * SMALL.updates_per_step
    kept, _ = run(SELECTION, DQNHyperparams(target_period=updates + 1), iterations=1)
    fresh = compiled(SELECTION)[0](jax.random.key(0), DQNHyperparams(), SELECTION.default_params)
    chex.assert_trees_all_equal(kept.target, fresh.target)
    copied, _ = run(SELECTION, DQNHyperparams(target_period=updates), iterations=1)
    chex.assert_trees_all_equal(copied.target, copied.params)


def test_hyperparameters_sweep_under_vmap_with_one_trace_and_equal_single_runs():
    env, gammas = SELECTION, jnp.array([0.5, 0.9])
    learner, params = dqn(env, SMALL), env.default_params
    axes = jax.tree.map(lambda x: None, DQNHyperparams()).replace(gamma=0)
    key = jax.random.key(1)
    states = jax.vmap(learner.init, (None, axes, None))(key, DQNHyperparams(gamma=gammas), params)
    chex.clear_trace_counter()
    step = jax.jit(jax.vmap(chex.assert_max_traces(learner.step, n=1), (0, None)))
    for _ in range(3):
        states, _ = step(states, params)
    for i, gamma in enumerate(gammas):
        single, _ = run(env, DQNHyperparams(gamma=gamma), iterations=3, key=1)
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], states.params), single.params, atol=1e-5
        )


def test_impossible_configurations_are_refused():
    with pytest.raises(InputError, match="no multiple of num_envs"):
        DQNConfig(num_envs=3, buffer_size=64)
    with pytest.raises(InputError, match="warm_up = 4"):
        DQNConfig(num_envs=4, n_step=3, warm_up=4)
    with pytest.raises(InputError, match="hidden layer"):
        DQNConfig(dueling=True, hidden=())


def test_joint_assignment_is_refused_with_advice():
    env = ProviderSelection(assignment="joint")
    with pytest.raises(InputError, match="use PPO, or assignment sequential"):
        dqn(env, SMALL).init(jax.random.key(0), DQNHyperparams(), env.default_params)


def test_goals_and_losses_are_those_of_the_definition():
    """Double targets, terminated steps and illegal actions, worked out by hand."""
    batch = Transition(
        observation=jnp.zeros((2, 1)), legal=jnp.ones((2, 3), bool), action=jnp.array([0, 1]),
        reward=jnp.array([1.0, 2.0]), terminated=jnp.array([False, True]),
        done=jnp.array([False, True]), next_observation=jnp.zeros((2, 1)),
        next_legal=jnp.array([[True, True, False]] * 2),
    )  # fmt: skip
    next_values = jnp.array([[1.0, 5.0, 9.0]] * 2)
    chooser = jnp.array([[3.0, 2.0, 8.0]] * 2)  # its best action is illegal, its next best the 1st
    goal = td_goal(batch, jnp.array([0.5, 0.5]), next_values, chooser)
    assert goal.tolist() == [[1.5], [2.0]]
    loss, error = td_loss(jnp.array([[1.0], [5.0]]), goal, quantiles=False)
    assert loss.tolist() == [0.125, 2.5]  # a square within 1, a line beyond it
    assert error.tolist() == [0.5, 3.0]
    value, wanted = jnp.array([[0.0, 1.0]]), jnp.array([[2.0, 4.0]])
    loss, error = td_loss(value, wanted, quantiles=True)
    assert loss.tolist() == quantile_loss(value, wanted).tolist()
    assert error.tolist() == [2.5]
