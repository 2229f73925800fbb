"""Tabular Q-learning (Watkins 1989) for environments whose observation is one-hot."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.learners import Kind, core
from rlli_jax.learners.core import Learner, Policy


@dataclass(frozen=True)
class QConfig:
    num_envs: int = 16
    num_steps: int = 32


@struct.dataclass
class QHyperparams:
    learning_rate: float = 0.1
    epsilon: float = 0.1
    gamma: float = 0.0


def q_learning(env, config=QConfig()):
    def act(key, table, seen, epsilon):
        score = seen.observation @ table  # [L]
        key_explore, key_choose = jax.random.split(key)
        random = jax.random.uniform(key_explore) < epsilon
        noise = jax.random.uniform(key_choose, score.shape)
        return jnp.argmax(jnp.where(seen.legal, jnp.where(random, noise, score), -jnp.inf))

    def init(key, hyperparams, params):
        key, key_reset = jax.random.split(key)
        envs = core.reset(env, key_reset, params, config.num_envs)
        size, actions = envs.observation[0].size, env.action_space(params).n
        return key, jnp.zeros((size, actions)), envs, hyperparams

    def step(state, params):
        def one(carry, _):
            key, table, envs, hyper = carry
            key, key_act, key_step = jax.random.split(key, 3)
            seen = core.view(env, envs, params)
            keys = jax.random.split(key_act, config.num_envs)
            action = jax.vmap(act, (0, None, 0, None))(keys, table, seen, hyper.epsilon)
            envs, t, episodes = core.step(env, key_step, envs, seen, action, params)
            following = jnp.where(t.next_legal, t.next_observation @ table, -jnp.inf).max(-1)
            target = t.reward + hyper.gamma * following * ~t.terminated
            error = target - (t.observation @ table)[jnp.arange(config.num_envs), action]
            chosen = jax.nn.one_hot(action, table.shape[1])
            change = jnp.einsum("n,no,na->oa", error, t.observation, chosen)
            table = table + hyper.learning_rate * change / config.num_envs
            return (key, table, envs, hyper), episodes

        state, episodes = jax.lax.scan(one, state, length=config.num_steps)
        return state, jax.tree.map(jnp.sum, episodes).metrics()

    def policy(state):
        return Policy((), lambda key, seen, carry: (act(key, state[1], seen, 0.0), carry))

    return Learner(init, step, policy, config.num_envs * config.num_steps)


kind = Kind(q_learning, QConfig, QHyperparams)
