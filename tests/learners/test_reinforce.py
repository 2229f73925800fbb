"""REINFORCE: its returns, and its policy in environments whose optimum is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import ForbiddenJackpot

from rlli_jax.envs.policy import evaluate
from rlli_jax.errors import InputError
from rlli_jax.learners.reinforce import (
    ReinforceConfig,
    ReinforceHyperparams,
    reinforce,
    returns_to_go,
)

CONFIG = ReinforceConfig(num_envs=8, num_steps=16, lookahead=1, num_minibatches=2, hidden=(16,))


def test_returns_stop_at_the_end_of_an_episode_and_tell_how_much_they_cover():
    reward = jnp.array([1.0, 2.0, 4.0, 8.0, 16.0])
    done = jnp.array([False, False, True, False, False])
    total, covered = returns_to_go(reward, done, 0.5)
    # 16; 8 + 8; then the episode before: 4; 2 + 2; 1 + 2.
    assert np.allclose(total, [3, 4, 4, 16, 16])
    # Of the last two steps, 2 and 1 steps are there; the others' returns are whole.
    assert covered.tolist() == [5, 5, 5, 2, 1]


def test_it_finds_the_right_legal_action_and_sweeps_without_tracing_again():
    env = ForbiddenJackpot()
    learner, params = reinforce(env, CONFIG), env.default_params
    rates = jnp.array([1e-9, 1e-2])
    hyper = ReinforceHyperparams(learning_rate=rates, anneal=1.0, total_iterations=60)
    axes = jax.tree.map(lambda x: None, ReinforceHyperparams()).replace(learning_rate=0)
    state = jax.jit(jax.vmap(learner.init, (None, axes, None)))(jax.random.key(0), hyper, params)
    chex.clear_trace_counter()
    step = jax.jit(jax.vmap(chex.assert_max_traces(learner.step, n=1), (0, None)))
    for _ in range(60):
        state, metrics = step(state, params)
    # Who does not learn keeps choosing either legal action, worth 1 and -1.
    assert abs(float(metrics["episode_return"][0])) < 0.5 < 0.8 < metrics["episode_return"][1]

    def play(state):
        return evaluate(env, learner.policy(state), jax.random.key(1), params, 32).returns

    learned = jax.tree.map(lambda x: x[1], state)
    assert jax.jit(play)(learned).tolist() == [1.0] * 32


def test_steps_whose_return_is_cut_short_do_not_count():
    """With lookahead 3 of 4 steps, two of them count: gains of the others must not matter."""
    reward, done = jnp.array([1.0, 0.0, 2.0, 5.0]), jnp.zeros(4, bool)
    _, covered = returns_to_go(reward, done, 1.0)
    assert (covered >= 3).tolist() == [True, True, False, False]
    _, covered = returns_to_go(reward, done.at[3].set(True), 1.0)
    assert (covered >= 3).all()


def test_impossible_configurations_are_refused():
    with pytest.raises(InputError, match="lookahead = 256 must be below num_steps"):
        ReinforceConfig(lookahead=256)
    with pytest.raises(InputError, match="does not divide into num_minibatches = 3"):
        ReinforceConfig(num_minibatches=3)
