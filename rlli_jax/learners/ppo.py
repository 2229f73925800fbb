"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), compiled.

Reads from top to bottom: configuration, state, advantages, loss, one iteration = collect and
update.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked, renamed
from rlli_jax.envs import contract
from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner, check_minibatches
from rlli_jax.learners.cpu import fitting_group_size, orthogonal, permutations
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import Activation, Actor, Critic
from rlli_jax.learners.optimizer import adam, remaining

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class PPOConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Positive = 16
    """Environments side by side."""
    num_steps: Positive = 64
    """Steps of each environment in one iteration."""
    num_minibatches: Positive = 4
    """Parts that a collected batch is cut into for each epoch."""
    num_epochs: Positive = 4
    """Passes over a collected batch."""
    hidden: tuple[Positive, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Activation = "tanh"
    """Between the layers."""
    normalize_advantage: bool = True
    """Whether advantages are standardised within each minibatch."""
    memory: Annotated[int, Field(ge=0)] = 0
    """Units of a gated recurrent unit that remembers the episode; 0 for none. Minibatches are
    then whole rows of num_steps steps, so num_envs must divide into num_minibatches."""
    per_action_network: Annotated[bool, renamed("per_action_network", "shared")] = False
    """Whether one network (networks.PerAction) scores every action from what the observation tells
    of it, instead of one output for each; for environments that have by_action."""

    def __post_init__(self) -> None:
        if self.per_action_network and self.memory:
            raise InputError("per_action_network and memory do not go together; set memory to 0.")
        if self.memory and self.num_envs % self.num_minibatches:
            raise InputError(
                f"num_envs = {self.num_envs} does not divide into num_minibatches = "
                f"{self.num_minibatches}, as memory needs; choose numbers that do."
            )
        check_minibatches(self.num_envs, self.num_steps, self.num_minibatches)


class PPOHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Of Adam, at the start."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rate that is gone after total_iterations, falling linearly; 0 keeps
    it constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which the rate falls."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each step."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Of generalised advantage estimation."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    """How far the ratio of probabilities may leave 1."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    """How far a value may move from the one before the update."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the value loss."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Gradients are scaled down to this global norm."""


@struct.dataclass
class PPOState:
    """All that a run needs to go on."""

    key: Key  # []
    params: PyTree  # {"actor", "critic"}, with memory also {"memory"}
    optimizer: optax.OptState
    envs: core.Envs
    memory: PyTree  # [N, units] float32, of the running episodes; () without memory
    iteration: jax.Array  # [] int32
    hyperparams: PPOHyperparams


@struct.dataclass
class Batch:
    """What the update sees; leading axes [T, N], then [minibatch] (with memory [T, minibatch])."""

    observation: jax.Array  # [..., size] float32
    legal: jax.Array | None  # [..., *heads, L] bool; None if the environment has no masks
    action: jax.Array  # [..., *heads] int32
    log_prob: jax.Array  # [...] float32
    value: jax.Array  # [...] float32
    advantage: jax.Array  # [...] float32
    target: jax.Array  # [...] float32, of the value
    done: jax.Array  # [...] bool, the episode ended with this step


def advantages(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    done: jax.Array,
    gamma: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, Eq. 16).

    A terminated step is worth its reward; a truncated one goes on with the value of its final
    observation. Neither lets anything of the next episode in. Arguments
    and result: [T, ...].
    """
    delta = reward + gamma * next_value * ~terminated - value

    def backwards(following: jax.Array, step: tuple[jax.Array, jax.Array]) -> Any:
        delta, done = step
        advantage = delta + gamma * gae_lambda * following * ~done
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(delta[0]), (delta, done), reverse=True)[1]


class Collected(Protocol):
    """What the loss reads of a batch; each float32 [B]."""

    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


class Losses(NamedTuple):
    """The parts of :func:`ppo_loss`."""

    policy: jax.Array  # [] float32
    value: jax.Array  # [] float32
    entropy: jax.Array  # [] float32
    ratio: jax.Array  # [B] float32, of the probabilities now and when the batch was collected


def ppo_loss(
    log_prob: jax.Array,
    entropy: jax.Array,
    value: jax.Array,
    batch: Collected,
    hyper: PPOHyperparams,
    *,
    normalize_advantage: bool,
) -> tuple[jax.Array, Losses]:
    """Clipped objective (Schulman et al. 2017, Eq. 7), clipped values and the entropy bonus.

    ``log_prob`` of the actions taken, ``entropy`` and ``value``, each [B], are those of the
    parameters to be improved.
    """
    ratio = jnp.exp(log_prob - batch.log_prob)
    advantage = batch.advantage
    if normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - hyper.clip, 1 + hyper.clip)
    near = batch.value + jnp.clip(value - batch.value, -hyper.value_clip, hyper.value_clip)
    errors = jnp.maximum((value - batch.target) ** 2, (near - batch.target) ** 2)
    losses = Losses(
        policy=-jnp.minimum(ratio * advantage, clipped * advantage).mean(),
        value=0.5 * errors.mean(),
        entropy=entropy.mean(),
        ratio=ratio,
    )
    total = (
        losses.policy
        + hyper.value_coefficient * losses.value
        - hyper.entropy_coefficient * losses.entropy
    )
    return total, losses


def ppo(env: core.Env, config: PPOConfig = PPOConfig()) -> Learner:
    """PPO for any gymnax environment with discrete actions, masked ones included.

    Clipped objective and values, entropy bonus, advantages normalised per minibatch, gradients
    clipped by their global norm. An action of several choices has a factored categorical policy.

    Raises:
        InputError: ``env`` is no environment, or lacks ``by_action``, which
            ``per_action_network`` needs.
    """
    contract.require_environment(env)
    cell = nn.GRUCell(config.memory, recurrent_kernel_init=orthogonal()) if config.memory else None
    split = contract.by_action(env) if config.per_action_network else None

    def networks(env_params: PyTree) -> tuple[Actor, Critic]:
        actions = contract.action_shape(env, env_params)
        return (
            Actor(actions, config.hidden, config.activation, split),
            Critic(config.hidden, config.activation),
        )

    def remember(params: PyTree, memory: PyTree, observation: jax.Array) -> tuple:
        """-> what the networks see, the memory after it; without memory the observation itself."""
        if cell is None:
            return observation, memory
        memory, _ = cell.apply(params["memory"], memory, observation)
        return jnp.concatenate([observation, memory], -1), memory

    def init(key: Key, hyperparams: PPOHyperparams, env_params: PyTree) -> PPOState:
        key, key_actor, key_critic, key_reset = jax.random.split(contract.typed_key(key), 4)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        seen = core.view(env, envs, env_params)
        params: dict[str, PyTree] = {}
        memory: PyTree = ()
        if cell is not None:
            memory = jnp.zeros((config.num_envs, config.memory))
            key_memory = jax.random.fold_in(key_actor, 0)
            params["memory"] = cell.init(key_memory, memory, seen.observation)
        features, _ = remember(params, memory, seen.observation)
        actor, critic = networks(env_params)
        params["actor"] = actor.init(key_actor, features, seen.legal)
        params["critic"] = critic.init(key_critic, features)
        hyperparams = core.traced(hyperparams)
        optimizer = _optimizer(hyperparams, jnp.float32(0)).init(params)
        return PPOState(key, params, optimizer, envs, memory, jnp.int32(0), hyperparams)

    def step(state: PPOState, env_params: PyTree) -> tuple[PPOState, dict[str, jax.Array]]:
        actor, critic = networks(env_params)
        hyper = state.hyperparams
        key, key_act, key_step, key_order = jax.random.split(state.key, 4)

        def act(noise: jax.Array, seen: PolicyInput, memory: PyTree) -> tuple:
            features, memory = remember(state.params, memory, seen.observation)
            logits = actor.apply(state.params["actor"], features, seen.legal)
            action = jnp.argmax(logits + noise, -1)  # a draw, by the Gumbel-max trick
            log_prob, _ = log_prob_and_entropy(logits, action, len(heads))
            return action, memory, (log_prob, memory)

        heads, num_actions = actor.actions
        shape = config.num_steps, config.num_envs
        noise = jax.random.gumbel(key_act, (*shape, *heads, num_actions))
        envs, memory, steps, (log_prob, memories), ended = core.rollout(
            env, act, state.envs, state.memory, noise, core.step_keys(key_step, *shape), env_params
        )

        def unroll(params: PyTree, memory: PyTree, batch: Any) -> jax.Array:
            """What the networks see at each step [T, ...] that starts with ``memory``."""
            if cell is None:
                return batch.observation

            def one(memory: PyTree, step: tuple[jax.Array, jax.Array]) -> tuple:
                features, memory = remember(params, memory, step[0])
                return core.forget(memory, step[1]), features

            return jax.lax.scan(one, memory, (batch.observation, batch.done))[1]

        # All values in one large product, instead of a small one for each step.
        features = unroll(state.params, state.memory, steps)
        value = critic.apply(state.params["critic"], features)
        next_features, _ = remember(state.params, memories, steps.next_observation)
        next_value = critic.apply(state.params["critic"], next_features)
        advantage = advantages(
            steps.reward, value, next_value, steps.terminated, steps.done,
            hyper.gamma, hyper.gae_lambda,
        )  # fmt: skip
        batch = Batch(
            observation=steps.observation,
            legal=steps.legal if hasattr(env, "legal_actions") else None,
            action=steps.action,
            log_prob=log_prob,
            value=value,
            advantage=advantage,
            target=advantage + value,
            done=steps.done,
        )
        if cell is None:
            batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

        optimizer = _optimizer(hyper, hyper.learning_rate * remaining(hyper, state.iteration))

        def minibatch(carry: tuple[PyTree, Any], order: jax.Array) -> Any:
            params, opt_state = carry
            if cell is None:
                part = (), jax.tree.map(lambda x: x[order], batch)
            else:  # whole rows of steps, each from the memory at its start
                part = state.memory[order], jax.tree.map(lambda x: x[:, order], batch)
            grads, metrics = jax.grad(loss, has_aux=True)(params, *part)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), metrics

        def loss(params: PyTree, memory: PyTree, batch: Batch) -> tuple[jax.Array, dict]:
            features = unroll(params, memory, batch)
            logits = actor.apply(params["actor"], features, batch.legal)
            log_prob, entropy = log_prob_and_entropy(logits, batch.action, len(heads))
            value = critic.apply(params["critic"], features)
            total, losses = ppo_loss(
                log_prob, entropy, value, batch, hyper,
                normalize_advantage=config.normalize_advantage,
            )  # fmt: skip
            return total, {
                "policy_loss": losses.policy,
                "value_loss": losses.value,
                "entropy": losses.entropy,
                "clip_fraction": (jnp.abs(losses.ratio - 1) > hyper.clip).mean(),
            }

        rows = config.num_envs * (config.num_steps if cell is None else 1)
        orders = permutations(key_order, config.num_epochs, rows)
        (params, opt_state), metrics = jax.lax.scan(
            minibatch,
            (state.params, state.optimizer),
            orders.reshape(config.num_epochs * config.num_minibatches, -1),
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics |= ended.metrics()
        state = PPOState(key, params, opt_state, envs, memory, state.iteration + 1, hyper)
        return state, metrics

    def policy(state: PPOState) -> Policy:
        def act(key: Key, seen: PolicyInput, memory: PyTree) -> tuple[jax.Array, PyTree]:
            actor, _ = networks(seen.params)
            features, memory = remember(state.params, memory, seen.observation)
            logits = actor.apply(state.params["actor"], features, seen.legal)
            return jnp.argmax(logits, -1), memory

        return Policy(() if cell is None else jnp.zeros(config.memory), act)

    env_steps = config.num_envs * config.num_steps
    rows = env_steps // config.num_minibatches
    group_size = fitting_group_size(rows, max(config.hidden, default=1))
    return Learner(init, step, policy, env_steps, group_size)


def log_prob_and_entropy(
    logits: jax.Array, action: jax.Array, heads: int
) -> tuple[jax.Array, jax.Array]:
    """Of independent categorical choices on the last ``heads`` axes of ``action``, taken together.

    [..., *heads, L], [..., *heads] -> [...], [...].
    """
    # XLA's CPU code is slow at sums over a short last axis: there few actions lead.
    axis = 0 if logits.shape[-1] <= 8 else -1
    log_probs = jax.nn.log_softmax(jnp.moveaxis(logits, -1, axis), axis)
    chosen = jax.nn.one_hot(action, logits.shape[-1], dtype=bool, axis=axis)
    log_prob = jnp.where(chosen, log_probs, 0).sum(axis)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis)
    together = tuple(range(action.ndim - heads, action.ndim))
    return log_prob.sum(together), entropy.sum(together)


def _optimizer(hyperparams: PPOHyperparams, rate: jax.Array) -> optax.GradientTransformation:
    return adam(hyperparams.max_grad_norm, rate, eps=1e-5, flat=True)
