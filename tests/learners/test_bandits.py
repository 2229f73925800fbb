"""LinUCB and Thompson sampling: the regression against NumPy, and what they learn in the market."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.edge_market import (
    EdgeMarket,
    given_tasks,
    make_params,
    play,
    references,
    sample_fleet,
)
from rlli_jax.envs.policy import policy_input
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners.bandits import (
    BanditConfig,
    BanditHyperparams,
    Regression,
    contexts_of,
    linucb,
    solve,
    thompson,
)
from rlli_jax.learners.cpu import inverse_root

PARTS = ("providers", "task", "room")


def market(providers, seed=0):
    params = make_params(sample_fleet(seed, providers=providers), arrival_rate=2e-4)
    return EdgeMarket(params, observation=PARTS), params


def learn(env, params, make, steps):
    learner = make(env, BanditConfig(num_steps=steps))
    state = jax.jit(learner.init)(jax.random.key(0), BanditHyperparams(), params)
    return learner, *jax.jit(learner.step)(state, params)


def test_the_root_and_the_solution_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    gram, moment = np.eye(6) + x.T @ x, rng.normal(size=6)
    root = inverse_root(jnp.asarray(gram, jnp.float32))
    np.testing.assert_allclose(root, np.linalg.inv(np.linalg.cholesky(gram)), atol=1e-5)
    _, weights = solve(jnp.asarray(gram, jnp.float32), jnp.asarray(moment, jnp.float32))
    np.testing.assert_allclose(weights, np.linalg.solve(gram, moment), atol=1e-5)


def test_an_update_is_ridge_regression():
    rng = np.random.default_rng(1)
    xs, rewards = rng.normal(size=(3, 4)), [0.5, -2.0, 0.25]
    learned = Regression.empty(2, 4)
    for x, reward in zip(xs, rewards, strict=True):
        learned = learned.add(jnp.int32(1), jnp.asarray(x, jnp.float32), jnp.float32(reward))
    gram = np.eye(4) + xs.T @ xs
    np.testing.assert_allclose(learned.weights[1], np.linalg.solve(gram, xs.T @ rewards), rtol=1e-4)
    width = learned.width(jnp.ones((2, 4)))
    ones = np.ones(4)
    expected = [2.0, np.sqrt(ones @ np.linalg.solve(gram, ones))]
    np.testing.assert_allclose(width, expected, rtol=1e-5)
    assert (learned.weights[0] == 0).all()


def test_a_context_is_a_constant_the_task_and_what_is_of_each_provider():
    env, params = market(3)
    observation, _ = env.reset(jax.random.key(0), params)
    providers, task, room = np.split(observation, [6, 8])
    contexts = contexts_of(env, 3, observation)
    for i, x in enumerate(contexts):
        assert x.tolist() == [1, *task, *providers[2 * i : 2 * i + 2], room[i]]


@pytest.mark.parametrize("make", [linucb, thompson])
def test_bandits_learn_who_pays_and_who_is_full(make):
    env, params = market(6, seed=1)
    learner, state, _ = learn(env, params, make, 1_500)
    tasks = given_tasks(np.arange(200) * 5_000, np.resize(np.arange(100, 260, 10), 200))
    greedy = learner.policy(state)

    def exploit(key, at, params):
        seen = policy_input(env, env.observe(key, at, None, params), at, params)
        return greedy.act(key, seen, ())[0]

    learned, best, chance = (
        float(play(env, params, tasks, policy).reward.sum())
        for policy in (exploit, references.greedy(env), references.random(env))
    )
    assert learned > 0.9 * best > chance


def test_after_many_tasks_the_weights_are_those_of_a_refit_in_float64():
    """The contexts that are nearly collinear, summed and factorised 30,000 times in float32."""
    env, params = market(4)
    observation, state = env.reset(jax.random.key(0), params)

    @jax.jit
    def run(key):
        def body(carry, keys):
            learned, observation, state = carry
            x = contexts_of(env, 4, observation)
            action = jnp.argmax(learned.mean(x) + learned.width(x))
            after, following, reward, *_ = env.step(keys, state, action, params)
            return (learned.add(action, x[action], reward), after, following), (
                action, x[action], reward,
            )  # fmt: skip

        start = Regression.empty(4, contexts_of(env, 4, observation).shape[1]), observation, state
        return jax.lax.scan(body, start, jax.random.split(key, 30_000))

    (learned, *_), (action, x, reward) = run(jax.random.key(0))
    x, reward = np.asarray(x, np.float64), np.asarray(reward, np.float64)
    busiest = np.bincount(action).argmax()
    x, reward = x[action == busiest], reward[action == busiest]
    assert len(x) > 5_000
    gram = np.eye(x.shape[1]) + x.T @ x
    refit = np.linalg.solve(gram, x.T @ reward)
    error = np.linalg.norm(learned.weights[busiest] - refit)
    assert error < 2e-3 * np.linalg.norm(refit)
    width = np.sqrt(np.einsum("nf,nf->n", x[:100], np.linalg.solve(gram, x[:100].T).T))
    ours = np.linalg.norm(x[:100] @ np.asarray(learned.root[busiest], np.float64).T, axis=1)
    np.testing.assert_allclose(ours, width, rtol=2e-3)


def test_several_choices_a_step_are_refused():
    env = ProviderSelection(assignment="joint")
    with pytest.raises(InputError, match="use PPO, or assignment sequential"):
        linucb(env).init(jax.random.key(0), BanditHyperparams(), env.default_params)
