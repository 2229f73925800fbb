"""PPO: advantages against the definition, masks, factored actions, annealing, tracing."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import ForbiddenJackpot

from rlli_jax.envs.contract import ActionShape
from rlli_jax.envs.edge_market import EdgeMarket
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners.cpu import permutations
from rlli_jax.learners.networks import ILLEGAL, Actor
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, advantages, ppo, ppo_loss

SMALL = PPOConfig(num_envs=4, num_steps=8, num_minibatches=2, num_epochs=2, hidden=(8,))


SELECTION = ProviderSelection()


@cache
def compiled(env):
    learner = ppo(env, SMALL)
    return jax.jit(learner.init), jax.jit(learner.step)


def history(env, hyperparams, iterations=2, key=0):
    """-> (state, metrics) after each iteration, strongly typed so that nothing compiles twice."""
    init, step = compiled(env)
    hyperparams = jax.tree.map(
        lambda x, like: jnp.asarray(x, jnp.asarray(like).dtype), hyperparams, PPOHyperparams()
    )
    state = init(jax.random.key(key), hyperparams, env.default_params)
    steps = []
    for _ in range(iterations):
        steps.append(step(state if not steps else steps[-1][0], env.default_params))
    return steps


def run(*args, **kwargs):
    return history(*args, **kwargs)[-1]


def test_advantages_are_the_sum_of_discounted_errors_within_an_episode():
    """Against Eq. 16 of Schulman et al. (2016), summed term by term."""
    steps, gamma, lam = 7, 0.9, 0.8
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, steps, 1)).astype(np.float32)
    terminated = np.array([0, 0, 1, 0, 0, 0, 0], bool)[:, None]
    done = np.array([0, 0, 1, 0, 1, 0, 0], bool)[:, None]  # the second end is a truncation
    delta = reward + gamma * next_value * ~terminated - value
    expected = np.zeros((steps, 1))
    for t in range(steps):
        for later in range(t, steps):
            expected[t] += (gamma * lam) ** (later - t) * delta[later]
            if done[later]:
                break
    result = advantages(reward, value, next_value, terminated, done, gamma, lam)
    assert np.allclose(result, expected, atol=1e-5)


def test_illegal_actions_are_never_taken():
    env = ForbiddenJackpot()
    _, metrics = run(env, PPOHyperparams(entropy_coefficient=1.0), iterations=3)
    assert float(metrics["episode_return"]) <= 1  # the jackpot pays 100
    assert float(metrics["entropy"]) <= np.log(2) + 1e-6  # two legal actions


def test_joint_assignment_has_a_choice_for_each_user():
    env = ProviderSelection(assignment="joint")
    state, metrics = run(env, PPOHyperparams())
    users, _, providers, _ = env.default_params.qoe.shape
    assert np.isclose(float(metrics["entropy"]), users * np.log(providers), rtol=0.05)
    seen_action = state.envs.state.action
    assert seen_action.shape == (SMALL.num_envs, users)


def test_learning_rate_is_annealed_to_nothing():
    hyper = PPOHyperparams(anneal=1.0, total_iterations=2)
    (_, _), (before, _), (after, _) = history(SELECTION, hyper, iterations=3)
    chex.assert_trees_all_equal(before.params, after.params)
    _, (before, _), (after, _) = history(SELECTION, hyper.replace(anneal=0.0), iterations=3)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(before.params, after.params)


def test_hyperparameters_sweep_under_vmap_with_one_trace_and_equal_single_runs():
    env, rates = SELECTION, jnp.array([1e-3, 1e-2])
    learner, params = ppo(env, SMALL), env.default_params
    hyper = PPOHyperparams(learning_rate=rates)
    axes = jax.tree.map(lambda x: None, PPOHyperparams()).replace(learning_rate=0)
    key = jax.random.key(1)

    states = jax.vmap(learner.init, (None, axes, None))(key, hyper, params)
    chex.clear_trace_counter()
    step = jax.jit(jax.vmap(chex.assert_max_traces(learner.step, n=1), (0, None)))
    for _ in range(3):
        states, _ = step(states, params)
    for i, rate in enumerate(rates):
        single, _ = run(env, PPOHyperparams(learning_rate=rate), iterations=3, key=1)
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], states.params), single.params, atol=1e-5
        )


def test_gradients_are_clipped_by_their_global_norm():
    """With a tiny norm Adam's first moment stays within it, whatever the loss."""
    state, _ = run(SELECTION, PPOHyperparams(max_grad_norm=1e-3), iterations=1)
    moments = jax.tree.leaves(state.optimizer[1].mu)
    assert np.sqrt(sum(float((m**2).sum()) for m in moments)) <= 1e-3


def test_memory_starts_anew_with_each_episode_and_its_gradient_sees_the_first_ratio_as_one():
    """In the first epoch's first minibatch nothing has changed yet, so no ratio is clipped."""
    env, config = SELECTION, PPOConfig(**{**SMALL.__dict__, "memory": 4, "num_epochs": 1,
                                          "num_minibatches": 1})  # fmt: skip
    learner, params = ppo(env, config), SELECTION.default_params
    state = learner.init(jax.random.key(0), PPOHyperparams(clip=1e-5), params)
    step = jax.jit(learner.step)
    for _ in range(3):
        state, metrics = step(state, params)
        assert float(metrics["clip_fraction"]) == 0  # replayed memories are those of the rollout
    # Five steps make an episode: after 24 steps four of the fifth episode have been taken.
    assert (jnp.abs(state.memory).sum(-1) > 0).all()
    at_end = state.envs.state.time == 0
    assert not at_end.any()
    for _ in range(2):  # 40 steps: all environments have just begun an episode
        state, _ = step(state, params)
    assert (state.envs.state.time == 0).all()
    assert (state.memory == 0).all()


@pytest.mark.parametrize("n", [1, 5, 64, 70_000])
def test_permutations_hold_every_number_once(n):
    orders = permutations(jax.random.key(0), 2, n)
    assert np.array_equal(np.sort(orders), np.broadcast_to(np.arange(n), (2, n)))


def test_every_permutation_is_as_likely():
    orders = permutations(jax.random.key(0), 6000, 3)
    counts = np.unique(np.asarray(orders), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert (abs(counts - 1000) < 5 * np.sqrt(6000 * 5 / 36)).all()


def test_a_shared_network_scores_alike_what_looks_alike():
    def split(observation):  # three actions of two numbers each, and one more number
        rows = observation[..., :6].reshape(*observation.shape[:-1], 3, 2)
        return rows, observation[..., 6:]

    actor = Actor(ActionShape((), 3), (4, 4), "relu", split)
    params = actor.init(jax.random.key(0), jnp.zeros(7), None)
    one, other = jnp.array([[1.0, 2, 0, 3, 4, 5, 9], [4.0, 5, 0, 3, 1, 2, 9]])
    logits = actor.apply(params, one, None)
    assert len(set(logits.tolist())) == 3
    np.testing.assert_allclose(actor.apply(params, other, None), logits[::-1], rtol=1e-5)
    # Each score depends on the other actions and on the rest.
    assert actor.apply(params, one.at[0].add(1), None)[1] != logits[1]
    assert actor.apply(params, one.at[6].add(1), None)[1] != logits[1]
    masked = actor.apply(params, one, jnp.array([True, False, True]))
    assert masked.tolist() == [logits[0], ILLEGAL, logits[2]]


def test_a_shared_actor_learns_in_the_edge_market():
    env = EdgeMarket(observation=("providers", "task", "utility"))
    learner = ppo(env, replace(SMALL, per_action_network=True))
    init, step = jax.jit(learner.init), jax.jit(learner.step)
    state = init(jax.random.key(0), PPOHyperparams(), env.default_params)
    after, metrics = step(state, env.default_params)
    assert metrics["policy_loss"] != 0
    known = after.params["actor"]["params"]["Shared_0"]["known"]
    assert known.shape == (20, 8)
    assert (known != 0).any()


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="set memory to 0"):
        PPOConfig(num_envs=4, memory=2, per_action_network=True)
    with pytest.raises(InputError, match="by_action"):
        ppo(ForbiddenJackpot(), replace(SMALL, per_action_network=True))
    with pytest.raises(InputError, match="num_minibatches = 3"):
        PPOConfig(num_envs=4, num_steps=4, num_minibatches=3)
    with pytest.raises(InputError, match="as memory needs"):
        PPOConfig(num_envs=3, num_steps=4, num_minibatches=4, memory=2)


def test_continuous_actions_are_refused():
    env, params = gymnax.make("Pendulum-v1")
    with pytest.raises(InputError, match="discrete actions"):
        ppo(env, SMALL).init(jax.random.key(0), PPOHyperparams(), params)


def test_the_loss_is_that_of_the_definition():
    """Clipped ratios and values and the entropy bonus, worked out by hand."""
    hyper = PPOHyperparams(clip=0.2, value_clip=0.5, value_coefficient=0.5, entropy_coefficient=0.1)
    batch = SimpleNamespace(
        log_prob=jnp.zeros(2), value=jnp.zeros(2), advantage=jnp.array([1.0, -1.0]),
        target=jnp.array([1.0, 0.0]),
    )  # fmt: skip
    log_prob = jnp.log(jnp.array([1.5, 0.9]))
    total, losses = ppo_loss(
        log_prob, jnp.array([0.2, 0.4]), jnp.array([0.8, 0.4]), batch, hyper,
        normalize_advantage=False,
    )  # fmt: skip
    assert np.isclose(losses.policy, -(1.2 - 0.9) / 2)  # the first ratio is clipped
    # The first value may not move by more than 0.5, which leaves the larger error.
    assert np.isclose(losses.value, 0.5 * (0.5**2 + 0.4**2) / 2)
    assert np.isclose(losses.entropy, 0.3)
    assert np.allclose(losses.ratio, [1.5, 0.9])
    assert np.isclose(total, losses.policy + 0.5 * losses.value - 0.1 * losses.entropy)
