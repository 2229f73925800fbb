"""Every environment of ours honours gymnax's contract."""

import subprocess
import sys

import gymnax
import jax
import numpy as np
import pytest

import rlli_jax.envs  # noqa: F401  (registers the environments)

OURS = ["ProviderSelection-v0", "EdgeMarket-v0", "GoToRedBall-v0"]


@pytest.mark.parametrize("env_id", OURS)
def test_reset_step_and_spaces_agree(env_id):
    env, params = gymnax.make(env_id)
    assert env.name == env_id
    observation, state = env.reset(jax.random.key(0), params)
    action = env.action_space(params).sample(jax.random.key(1))
    assert bool(env.action_space(params).contains(action))
    result = env.step(jax.random.key(2), state, action, params)
    next_observation, next_state, reward, terminated, truncated, info = result
    space = env.observation_space(params)
    assert observation.shape == next_observation.shape == space.shape
    assert bool(space.contains(observation))
    assert jax.tree.structure(state) == jax.tree.structure(next_state)
    assert np.isfinite(float(reward))
    assert terminated.dtype == truncated.dtype == bool
    assert info["final_observation"].shape == space.shape
    # What does not change type from step to step compiles once.
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, next_state)]
    assert types[0] == types[1]


@pytest.mark.parametrize("env_id", OURS)
def test_steps_vmap(env_id):
    env, params = gymnax.make(env_id)
    keys = jax.random.split(jax.random.key(0), 3)
    _, states = jax.vmap(env.reset, (0, None))(keys, params)
    actions = jax.vmap(env.action_space(params).sample)(keys)
    result = jax.vmap(env.step, (0, 0, 0, None))(keys, states, actions, params)
    assert result[2].shape == (3,)


def test_gymnax_knows_them_also_where_it_is_imported_after_this_package():
    code = "import rlli_jax.envs, gymnax; print(gymnax.registered_envs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in OURS)
