"""Learned values and policies against environments whose optimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import (
    ConstantReward,
    DelayedReward,
    EndlessReward,
    ForbiddenJackpot,
    HiddenSign,
    MatchTheSign,
    RememberTheSign,
    SignIsReward,
)
from small_learners import known

from rlli_jax.envs.policy import PolicyInput, evaluate
from rlli_jax.learners import LEARNERS
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
from rlli_jax.learners.networks import Critic, QNetwork
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

GAMMA = 0.5
PPO = PPOConfig(num_envs=8, num_steps=16, num_minibatches=2, num_epochs=4, hidden=(16,))
DQN = DQNConfig(
    num_envs=8, num_steps=16, batch_size=64, buffer_size=2048, warm_up=128, hidden=(16,)
)
OPTIONS = {
    "plain": {"double": False},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "3-step": {"n_step": 3},
    "prioritized": {"prioritized": True, "n_step": 2},
    "quantiles": {"quantiles": 5, "dueling": True},
}

# For every registered learner, as far as it has such fields.
SIZES = {
    "num_envs": 8, "num_steps": 16, "hidden": (16,), "num_minibatches": 2, "batch_size": 64,
    "buffer_size": 2048, "warm_up": 128, "lookahead": 1, "branches": 2, "length": 3, "updates": 8,
    "denoising_steps": 3, "time_embedding": 4,
}  # fmt: skip
RATES = {
    "learning_rate": 1e-2, "actor_rate": 1e-2, "critic_rate": 1e-2, "anneal": 0.9,
    "total_iterations": 60, "gamma": GAMMA, "tau": 0.1, "target_period": 1, "temperature": 0.01,
}  # fmt: skip


def train(learner, hyperparams, env, iterations=60, then=lambda state: state):
    """-> what is made of the state after training; one program, as tests compile for longest."""
    params = env.default_params

    @jax.jit
    def run(key, hyperparams):
        state = learner.init(key, hyperparams, params)
        state, _ = jax.lax.scan(lambda s, _: learner.step(s, params), state, length=iterations)
        return then(state)

    return run(jax.random.key(0), hyperparams)


def returns(learner, env, episodes):
    """-> state -> returns of its greedy policy: [episodes]."""
    params = env.default_params
    return lambda s: evaluate(env, learner.policy(s), jax.random.key(1), params, episodes).returns


def train_ppo(env, gamma=GAMMA):
    hyper = PPOHyperparams(
        learning_rate=1e-2, anneal=0.9, total_iterations=60, gamma=gamma, value_clip=10.0
    )
    return train(ppo(env, PPO), hyper, env)


def ppo_value(state, *observations):
    return Critic(PPO.hidden, PPO.activation).apply(
        state.params["critic"], jnp.array(observations, jnp.float32)
    )


def train_dqn(env, gamma=GAMMA, **options):
    config = DQNConfig(**{**DQN.__dict__, **options})
    hyper = DQNHyperparams(
        learning_rate=1e-2,
        anneal=0.9,
        total_iterations=60,
        gamma=gamma,
        target_period=10,
        max_grad_norm=10.0,
    )
    return config, train(dqn(env, config), hyper, env)


def dqn_values(config, state, num_actions, *observations):
    network = QNetwork(
        num_actions, config.hidden, config.activation, config.dueling, config.quantiles
    )
    values = network.apply(state.params, jnp.array(observations, jnp.float32))
    return values.mean(-1) if config.quantiles else values


def greedy(learner, state, env, sign, num_actions=2):
    legal = jnp.ones(num_actions, bool)
    if hasattr(env, "legal_actions"):
        legal = env.legal_actions(None, env.default_params)
    seen = PolicyInput(jnp.array([sign, 0.0]), legal, None, env.default_params)
    return int(learner.policy(state).act(jax.random.key(0), seen, ())[0])


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_finds_the_right_legal_action(name):
    env, kind = ForbiddenJackpot(), LEARNERS[name]
    learner = kind.make(env, kind.config(**known(kind.config, SIZES)))
    hyper = kind.hyperparams(**known(kind.hyperparams, RATES))
    assert train(learner, hyper, env, then=returns(learner, env, 32)).tolist() == [1.0] * 32


def test_ppo_learns_a_constant_value():
    assert np.allclose(ppo_value(train_ppo(ConstantReward()), [1, 0], [-1, 0]), 1, atol=0.1)


def test_ppo_value_depends_on_the_observation():
    value = ppo_value(train_ppo(SignIsReward()), [1, 0], [-1, 0])
    assert np.allclose(value, [1, -1], atol=0.15)


def test_ppo_discounts_a_delayed_reward():
    value = ppo_value(train_ppo(DelayedReward()), [1, 0], [1, 1])
    assert np.allclose(value, [GAMMA, 1], atol=0.1)


def test_ppo_does_not_take_a_truncation_for_an_end():
    # A truncation taken for an end would give at most 1 + .75 + .75^2 + .75^3 = 2.7, not 4.
    value = ppo_value(train_ppo(EndlessReward(), gamma=0.75), [1, 0])
    assert np.allclose(value, 4, atol=0.3)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dqn_discounts_a_delayed_reward(options):
    config, state = train_dqn(DelayedReward(), **options)
    values = dqn_values(config, state, 2, [1, 0], [1, 1])
    assert np.allclose(values, [[GAMMA] * 2, [1] * 2], atol=0.1)


@pytest.mark.parametrize("options", [{}, {"n_step": 3}], ids=["1-step", "3-step"])
def test_dqn_does_not_take_a_truncation_for_an_end(options):
    config, state = train_dqn(EndlessReward(), gamma=0.75, **options)
    # The greedy action's value: the other one is tried too rarely to have settled.
    assert np.allclose(dqn_values(config, state, 2, [1, 0]).max(), 4, atol=0.3)


@pytest.mark.parametrize("env", [MatchTheSign(), ForbiddenJackpot()], ids=lambda e: e.name)
def test_dqn_finds_the_right_action_and_its_value(env):
    config, state = train_dqn(env)
    n = env.action_space(env.default_params).n
    learner = dqn(env, config)
    assert greedy(learner, state, env, 1.0, n) == n - 1
    assert greedy(learner, state, env, -1.0, n) == n - 2
    assert np.allclose(dqn_values(config, state, n, [1, 0])[0, -2:], [-1, 1], atol=0.2)


def test_quantiles_are_those_of_the_return():
    config, state = train_dqn(HiddenSign(), quantiles=4)
    network = QNetwork(2, config.hidden, config.activation, config.dueling, config.quantiles)
    quantiles = np.sort(network.apply(state.params, jnp.array([1.0, 0.0])), -1)
    # Half of the returns are -1 and half are 1. Where the Huber loss is a square, the best answer
    # for level t < 1/2 solves t = (1 - t) (1 + answer), which its kappa pulls toward the mean.
    lower = np.array([0.125 / 0.875, 0.375 / 0.625]) - 1
    assert np.allclose(quantiles, [*lower, *-lower[::-1]], atol=0.2)


@pytest.mark.parametrize("units", [0, 8])
def test_ppo_with_memory_acts_on_what_it_no_longer_sees(units):
    env = RememberTheSign()
    config = PPOConfig(**{**PPO.__dict__, "memory": units})
    learner = ppo(env, config)
    hyper = PPOHyperparams(learning_rate=1e-2, anneal=0.9, total_iterations=60, gamma=GAMMA)
    played = train(learner, hyper, env, then=returns(learner, env, 256))
    if units:
        assert (played == 1).all()
    else:  # a fair coin, 256 times: five standard deviations
        assert abs(float(played.mean())) < 5 / 16


def test_polyak_target_follows_the_online_network():
    env = ConstantReward()
    learner = dqn(env, DQN)
    hyper = DQNHyperparams(learning_rate=1e-2, anneal=1.0, target_period=1, tau=0.05)
    play = returns(learner, env, 4)
    state, played = train(learner, hyper, env, then=lambda s: (s, play(s)))
    assert played.tolist() == [1] * 4
    online, target = jax.tree.leaves(state.params), jax.tree.leaves(state.target)
    gap = max(float(jnp.abs(a - b).max()) for a, b in zip(online, target, strict=True))
    assert 0 < gap < 0.1
