"""``train``: settings and seeds in one program, each of them as if it were alone."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners import training
from rlli_jax.learners.cpu import START, TRAIN, compiler_options
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo
from rlli_jax.learners.training import train

RATES = jnp.array([1e-3, 3e-2])


@cache
def problem():
    """-> a tiny learner, and the parameters of its environment."""
    env = ProviderSelection(observation=("persona",))
    config = PPOConfig(num_envs=2, num_steps=4, num_minibatches=2, num_epochs=1, hidden=(4,))
    return ppo(env, config), env.default_params


def by_hand(learner, hyperparams, params, key, iterations):
    """The loop that ``train`` stands for, one run, compiled as there so that bits are equal."""
    start, step = (
        jax.jit(function, compiler_options=compiler_options(options))
        for function, options in ((learner.init, START), (learner.step, TRAIN))
    )
    state, metrics = start(key, hyperparams, params), []
    for _ in range(iterations):
        state, new = step(state, params)
        metrics.append(new)
    return state, jax.tree.map(lambda *x: jnp.stack(x), *metrics)


def test_a_single_run_is_the_loop_by_hand_bit_for_bit():
    learner, params = problem()
    key = jax.random.key(3)
    trained = train(learner, PPOHyperparams(anneal=1.0), params, key, 5, progress=False)
    hyper = PPOHyperparams(anneal=1.0, total_iterations=5)
    chex.assert_trees_all_equal(trained, by_hand(learner, hyper, params, key, 5))
    assert trained[0].hyperparams.total_iterations == 5


def test_settings_and_seeds_are_the_leading_axes_and_each_run_is_as_if_alone():
    learner, params = problem()
    keys = jax.random.split(jax.random.key(0), 3)
    hyper = PPOHyperparams(learning_rate=RATES)
    state, metrics = train(learner, hyper, params, keys, 4, progress=False)
    assert state.iteration.shape == (2, 3)
    assert {x.shape for x in metrics.values()} == {(2, 3, 4)}
    for h, s in ((0, 0), (0, 2), (1, 1)):
        alone = PPOHyperparams(learning_rate=float(RATES[h]), total_iterations=4)
        expected = by_hand(learner, alone, params, keys[s], 4)
        got = jax.tree.map(lambda x, h=h, s=s: x[h, s], (state, metrics))
        chex.assert_trees_all_close(got[0].params, expected[0].params, atol=1e-5)
        chex.assert_trees_all_close(got[1], expected[1], atol=1e-5)


@pytest.mark.parametrize(
    ("hyperparams", "keys", "shape"),
    [
        (PPOHyperparams(), jax.random.key(0), ()),
        (PPOHyperparams(), jax.random.PRNGKey(0), ()),
        (PPOHyperparams(), jax.random.split(jax.random.PRNGKey(0), 2), (2,)),
        (PPOHyperparams(learning_rate=RATES), jax.random.key(0), (2,)),
        (PPOHyperparams(learning_rate=RATES[:1]), jax.random.split(jax.random.key(0), 1), (1, 1)),
    ],
)
def test_axes_that_were_not_given_are_left_out(hyperparams, keys, shape):
    learner, params = problem()
    state, metrics = train(learner, hyperparams, params, keys, 1, progress=False)
    assert state.iteration.shape == shape
    assert metrics["episode_return"].shape == (*shape, 1)


@pytest.mark.parametrize("iterations", [60, 45])
def test_everything_compiles_once_where_parts_of_equal_length_exist(iterations, monkeypatch):
    learner, params = problem()
    shown = []
    monkeypatch.setattr(training.LoggedProgress, "advance", lambda self, task, n=1: shown.append(n))
    chex.clear_trace_counter()
    once = learner._replace(step=chex.assert_max_traces(learner.step, n=1))
    hyper = PPOHyperparams(learning_rate=RATES)
    _, metrics = train(once, hyper, params, jax.random.split(jax.random.key(0), 2), iterations)
    assert metrics["episode_return"].shape == (2, 2, iterations)
    assert len(set(shown)) == 1
    assert sum(shown) == iterations


def test_a_number_of_iterations_without_equal_parts_is_reached_all_the_same(capfd):
    learner, params = problem()
    state, metrics = train(learner, PPOHyperparams(), params, jax.random.key(0), 23)
    assert state.iteration == 23
    assert metrics["episodes"].shape == (23,)
    assert capfd.readouterr() == ("", "")  # no bar where there is no terminal


def test_other_learners_train_too():
    env = ProviderSelection(observation=("persona",))
    config = DQNConfig(
        num_envs=2, num_steps=4, batch_size=4, buffer_size=16, warm_up=4, hidden=(4,)
    )
    hyper = DQNHyperparams(tau=np.array([0.1, 1.0]))
    state, _ = train(
        dqn(env, config), hyper, env.default_params, jax.random.key(0), 2, progress=False
    )
    assert state.hyperparams.tau.tolist() == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iterations": 0}, "iterations is 0; give a whole number of at least 1."),
        ({"iterations": 2.5}, "iterations is 2.5; give a whole number of at least 1."),
        ({"keys": 0}, "a random key is needed, such as jax.random.key(0), but this is 0."),
        ({"hyperparams": PPOHyperparams}, "give values: PPOHyperparams()."),
        ({"learner": ppo}, "a learner is needed, such as ppo(env)"),
        (
            {"hyperparams": PPOHyperparams(gamma=jnp.ones(2), clip=jnp.ones(3))},
            "fields of hyperparams have the shapes [2] and [3]; give each field one number, or "
            "one for each setting.",
        ),
        ({"hyperparams": PPOHyperparams(gamma=jnp.ones(0))}, "have the shapes [0]; give"),
        ({"hyperparams": PPOHyperparams(gamma=jnp.ones((2, 2)))}, "have the shapes [2, 2]; give"),
    ],
)
def test_a_mistake_is_one_sentence(change, says):
    learner, params = problem()
    given = {
        "learner": learner, "hyperparams": PPOHyperparams(), "params": params,
        "keys": jax.random.key(0), "iterations": 1,
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        train(**(given | change))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
