"""REINFORCE (Williams 1992, Machine Learning 8), compiled: policy gradients without a critic.

Returns are Monte Carlo. A window of steps cuts some of them short; those count only if at least
``lookahead`` steps of them are there, or the episode ended. Without a critic nothing can stand for
what would follow a truncated episode: it counts as ended, so that a return before a step limit is
too low where more reward would have come. PPO, DQN and SAC bootstrap there.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs import contract
from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner, check_minibatches
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import Activation, Actor
from rlli_jax.learners.optimizer import adam, remaining

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class ReinforceConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Positive = 16
    """Environments side by side."""
    num_steps: Positive = 256
    """Steps of each environment in one iteration."""
    lookahead: Positive = 64
    """Steps that a return must cover if its episode goes on."""
    num_minibatches: Positive = 4
    """Parts that a collected batch is cut into for each epoch."""
    hidden: tuple[Positive, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Activation = "tanh"
    """Between the layers."""

    def __post_init__(self) -> None:
        if self.lookahead >= self.num_steps:
            raise InputError(
                f"lookahead = {self.lookahead} must be below num_steps = {self.num_steps}, or no "
                "step is left to learn from."
            )
        check_minibatches(self.num_envs, self.num_steps, self.num_minibatches)


class ReinforceHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam, at the start."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rate that is gone after total_iterations, falling linearly; 0 keeps
    it constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which the rate falls."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Discount for each step."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Gradients are scaled down to this global norm."""


@struct.dataclass
class ReinforceState:
    """All that a run needs to go on."""

    key: Key  # []
    params: PyTree
    optimizer: optax.OptState
    envs: core.Envs
    iteration: jax.Array  # [] int32
    hyperparams: ReinforceHyperparams


def returns_to_go(
    reward: jax.Array, done: jax.Array, gamma: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Discounted return from each step to its episode's end or the window's, and steps covered.

    Arguments and results: [T, ...]. A step whose episode ends in the window covers T steps, as
    nothing of its return is missing.
    """
    window = reward.shape[0]

    def backwards(following: tuple, step: tuple) -> Any:
        total, covered = following
        reward, done = step
        total = reward + gamma * total * ~done
        covered = jnp.where(done, window, jnp.minimum(covered + 1, window))
        return (total, covered), (total, covered)

    start = jnp.zeros_like(reward[0]), jnp.zeros(reward.shape[1:], jnp.int32)
    return jax.lax.scan(backwards, start, (reward, done), reverse=True)[1]


def reinforce_loss(
    logits: jax.Array, action: jax.Array, gain: jax.Array, entropy_coefficient: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """-(gain x log-probability of the action), less the entropy bonus, and the entropy.

    Means over a batch: logits [B, *heads, L], action [B, *heads], gain [B]. Several choices count
    together.
    """
    log = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log, action[..., None], -1)
    entropy = -(jnp.exp(log) * log).reshape(len(gain), -1).sum(-1).mean()
    gained = (chosen.reshape(len(gain), -1).sum(-1) * gain).mean()
    return -gained - entropy_coefficient * entropy, entropy


def reinforce(env: core.Env, config: ReinforceConfig = ReinforceConfig()) -> Learner:
    """REINFORCE for any gymnax environment with discrete actions, masked ones included.

    One pass over each window of steps. The baseline is the mean return of the window, and returns
    are divided by their standard deviation; an entropy bonus keeps the policy from closing early.
    """
    contract.require_environment(env)

    def network(env_params: PyTree) -> Actor:
        return Actor(contract.action_shape(env, env_params), config.hidden, config.activation)

    def init(key: Key, hyperparams: ReinforceHyperparams, env_params: PyTree) -> ReinforceState:
        key, key_actor, key_reset = jax.random.split(contract.typed_key(key), 3)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        seen = core.view(env, envs, env_params)
        params = network(env_params).init(key_actor, seen.observation, seen.legal)
        hyperparams = core.traced(hyperparams)
        optimizer = _optimizer(hyperparams, jnp.float32(0)).init(params)
        return ReinforceState(key, params, optimizer, envs, jnp.int32(0), hyperparams)

    def step(
        state: ReinforceState, env_params: PyTree
    ) -> tuple[ReinforceState, dict[str, jax.Array]]:
        actor, hyper = network(env_params), state.hyperparams
        key, key_collect, key_update = jax.random.split(state.key, 3)

        def act(key: Key, seen: PolicyInput, memory: PyTree) -> tuple:
            logits = actor.apply(state.params, seen.observation, seen.legal)
            return jax.random.categorical(key, logits), memory, ()

        key_act, key_step = jax.vmap(jax.random.split, out_axes=1)(
            jax.random.split(key_collect, config.num_steps)
        )
        envs, _, steps, _, ended = core.rollout(
            env, act, state.envs, (), key_act, key_step, env_params
        )
        total, covered = returns_to_go(steps.reward, steps.done, hyper.gamma)
        weight = (covered >= config.lookahead).astype(jnp.float32)
        mean = (weight * total).sum() / weight.sum()
        spread = jnp.sqrt((weight * (total - mean) ** 2).sum() / weight.sum())
        gain = weight * (total - mean) / (spread + 1e-8)

        optimizer = _optimizer(hyper, hyper.learning_rate * remaining(hyper, state.iteration))

        def loss(params: PyTree, batch: tuple) -> tuple[jax.Array, jax.Array]:
            observation, legal, action, gain = batch
            logits = actor.apply(params, observation, legal)
            return reinforce_loss(logits, action, gain, hyper.entropy_coefficient)

        def minibatch(carry: tuple[PyTree, Any], batch: tuple) -> Any:
            params, opt_state = carry
            grads, entropy = jax.grad(loss, has_aux=True)(params, batch)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), entropy

        order = jnp.argsort(jax.random.bits(key_update, (gain.size,)))
        batch = (steps.observation, steps.legal, steps.action, gain)
        batch = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:])[order].reshape(
                config.num_minibatches, -1, *x.shape[2:]
            ),
            batch,
        )
        (params, opt_state), entropy = jax.lax.scan(
            minibatch, (state.params, state.optimizer), batch
        )
        metrics = {"entropy": entropy.mean()} | ended.metrics()
        state = ReinforceState(key, params, opt_state, envs, state.iteration + 1, hyper)
        return state, metrics

    def policy(state: ReinforceState) -> Policy:
        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            logits = network(seen.params).apply(state.params, seen.observation, seen.legal)
            return jnp.argmax(logits, -1), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_envs * config.num_steps)


def _optimizer(hyperparams: ReinforceHyperparams, rate: jax.Array) -> optax.GradientTransformation:
    return adam(hyperparams.max_grad_norm, rate, eps=1e-5)
