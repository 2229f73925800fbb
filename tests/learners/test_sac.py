"""SAC and D2SAC: values and policies in environments whose optimum is known, and the schedule."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import DelayedReward, EndlessReward, ForbiddenJackpot

from rlli_jax.envs.policy import evaluate
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners.diffusion import DiffusionActor, retention
from rlli_jax.learners.networks import ILLEGAL, QNetwork
from rlli_jax.learners.sac import (
    D2SACConfig,
    SACConfig,
    SACHyperparams,
    actor_loss,
    critic_loss,
    d2sac,
    sac,
    soft_goal,
)

GAMMA = 0.5
SIZES = {"num_envs": 8, "num_steps": 16, "batch_size": 64, "buffer_size": 2048, "warm_up": 128}
CONFIG = SACConfig(**SIZES, hidden=(16,))
# So little entropy is paid for that values are those of the greedy policy.
HYPER = SACHyperparams(
    actor_rate=1e-2, critic_rate=1e-2, anneal=0.9, total_iterations=60, tau=0.1,
    gamma=GAMMA, temperature=0.01,
)  # fmt: skip


def train(env, config=CONFIG, hyper=HYPER, iterations=60):
    """-> learner, state, metrics of every iteration."""
    learner, params = sac(env, config), env.default_params
    state = jax.jit(learner.init)(jax.random.key(0), hyper, params)
    run = jax.jit(
        lambda s: jax.lax.scan(lambda s, _: learner.step(s, params), s, length=iterations)
    )
    return learner, *run(state)


def returns(learner, state, env):
    play = jax.jit(
        lambda s: (
            evaluate(env, learner.policy(s), jax.random.key(1), env.default_params, 32).returns
        )
    )
    return play(state).tolist()


def values(config, state, num_actions, *observations):
    critic = QNetwork(num_actions, config.hidden, config.activation, dueling=False)
    x = jnp.array(observations, jnp.float32)
    return jax.vmap(critic.apply, (0, None))(state.params.critics, x)


def test_both_critics_discount_a_delayed_reward():
    _, state, _ = train(DelayedReward())
    learned = values(CONFIG, state, 2, [1, 0], [1, 1])
    assert np.allclose(learned, [[[GAMMA] * 2, [1] * 2]] * 2, atol=0.1)


def test_three_steps_at_once_give_the_same_values_and_a_truncation_is_no_end():
    config = SACConfig(**SIZES, hidden=(16,), n_step=3)
    _, state, _ = train(EndlessReward(), config, HYPER.replace(gamma=0.75))
    # A truncation taken for an end would give at most 2.7.
    assert np.allclose(values(config, state, 2, [1, 0]).max(), 4, atol=0.3)


def test_the_right_legal_action_is_found_and_a_learned_temperature_keeps_entropy_at_its_aim():
    config = SACConfig(**SIZES, hidden=(16,), learn_temperature=True)
    hyper = HYPER.replace(temperature_rate=3e-2, target_entropy=0.3, anneal=0.0)
    env = ForbiddenJackpot()
    learner, state, metrics = train(env, config, hyper)
    # Two of the three actions are legal.
    assert np.isclose(metrics["entropy"][-20:].mean(), 0.3 * np.log(2), atol=0.1)
    assert metrics["temperature"][-1] > 2 * metrics["temperature"][0]
    assert returns(learner, state, env) == [1.0] * 32


def test_schedule_is_variance_preserving_and_ends_in_noise():
    kept = np.cumprod(retention(5))
    assert (np.diff(kept) < 0).all()
    # The product telescopes: exp(-b_min - (b_max - b_min) / 2), whatever the number of steps.
    assert np.isclose(kept[-1], np.exp(-0.1 - 9.9 / 2))
    assert np.isclose(np.cumprod(retention(11))[-1], kept[-1])


@pytest.mark.parametrize(
    ("predicts", "spread"), [("noise", retention(1)[0] ** -0.5), ("logits", 0)]
)
def test_a_network_that_says_nothing_leaves_noise_or_equal_logits(predicts, spread):
    actor = DiffusionActor(3, (4,), "mish", 1, 4, predicts, 10.0)
    observation, legal = jnp.zeros((20_000, 2)), jnp.ones((20_000, 3), bool).at[:, 0].set(False)
    params = actor.init(jax.random.key(0), jax.random.key(0), observation[:1], legal[:1])
    params = jax.tree.map(jnp.zeros_like, params)
    logits = actor.apply(params, jax.random.key(1), observation, legal)
    assert (logits[:, 0] == ILLEGAL).all()
    # One step, predicted noise 0: x_0 = x_1 / sqrt(alpha_1), without noise at the last step.
    assert np.isclose(logits[:, 1:].std(), spread, rtol=0.02)


def test_a_sweep_traces_once_targets_follow_by_tau_and_a_delayed_actor_waits():
    env = ProviderSelection()
    config = D2SACConfig(
        num_envs=4, num_steps=2, batch_size=8, buffer_size=32, warm_up=8, hidden=(4,),
        critic_hidden=(6,), denoising_steps=2, time_embedding=4,
    )  # fmt: skip
    learner, params = d2sac(env, config), env.default_params
    swept = SACHyperparams(
        temperature=jnp.array([0.05, 0.5]),
        tau=jnp.array([0.5, 1.0]),
        actor_delay=jnp.array([0.0, 0.5]),
    )
    fixed = jax.tree.map(lambda x: None, SACHyperparams())
    axes = fixed.replace(temperature=0, tau=0, actor_delay=0)
    init = jax.jit(jax.vmap(learner.init, (None, axes, None)))
    first = init(jax.random.key(1), swept, params)
    assert {x.shape[-1] for x in jax.tree.leaves(first.params.critics)} == {6, env.num_actions}
    chex.clear_trace_counter()
    step = jax.jit(jax.vmap(chex.assert_max_traces(learner.step, n=1), (0, None)))
    state, metrics = step(first, params)
    assert np.allclose(metrics["temperature"], swept.temperature)
    for old, target, online in zip(
        *map(jax.tree.leaves, (first.target.critics, state.target.critics, state.params.critics)),
        strict=True,
    ):
        assert np.allclose(target[1], online[1], atol=1e-6)
        far = np.abs(online[0] - old[0]) > 1e-5
        assert (np.abs(target[0] - online[0])[far] < np.abs(online[0] - old[0])[far]).all()
    actors = jax.tree.leaves(first.params.actor), jax.tree.leaves(state.params.actor)
    moved = [np.abs(new - old).reshape(2, -1).max(1) for old, new in zip(*actors, strict=True)]
    assert max(m[0] for m in moved) > 0
    assert max(m[1] for m in moved) == 0
    step(state, params)


def test_impossible_configurations_are_refused():
    with pytest.raises(InputError, match="no multiple of num_envs"):
        SACConfig(num_envs=3, buffer_size=64)
    with pytest.raises(InputError, match="warm_up = 4"):
        D2SACConfig(num_envs=4, n_step=3, warm_up=4)
    env = ProviderSelection(assignment="joint")
    with pytest.raises(InputError, match="use PPO, or assignment sequential"):
        sac(env).init(jax.random.key(0), SACHyperparams(), env.default_params)


def test_losses_are_those_of_the_definition():
    logits = jnp.log(jnp.array([[0.25, 0.75]]))
    values = jnp.array([[2.0, 4.0]])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    loss, found = actor_loss(logits, values, jnp.float32(0.1))
    assert np.isclose(found[0], entropy)
    assert np.isclose(loss, -(3.5 + 0.1 * entropy))
    batch = SimpleNamespace(reward=jnp.array([1.0, 1.0]), terminated=jnp.array([False, True]))
    goal = soft_goal(batch, jnp.array([0.5, 0.5]), logits, values, jnp.float32(0.1))
    assert np.allclose(goal, [1 + 0.5 * (3.5 + 0.1 * entropy), 1])
    both = jnp.array([[[1.0, 2.0]], [[1.0, 4.0]]])  # of two critics
    loss, mean = critic_loss(both, jnp.array([1]), jnp.array([2.0]))
    assert (float(loss), float(mean)) == (1.5, 3.0)
