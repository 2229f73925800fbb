"""Deep Q-learning (Mnih et al. 2015) with double, dueling and n-step options, compiled.

The replay buffer is written outside of any condition and only read inside the update, and it is
filled by a warm-up in ``init``: XLA then keeps it in place instead of copying it at every step.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.core import Key, Learner, Policy, PyTree, Situation, Transition
from rlli_jax.learners.networks import ILLEGAL, Activation, QNetwork

Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class DQNConfig:
    """What decides shapes; a change compiles anew."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    num_envs: Positive = 8  # environments side by side
    num_steps: Positive = 128  # steps of each environment in one iteration
    updates_per_step: Positive = 1  # gradient steps after each step of the environments
    batch_size: Positive = 128
    buffer_size: Positive = 65_536  # transitions
    warm_up: Positive = 1_024  # transitions by random actions before learning starts
    n_step: Positive = 1
    double: bool = True
    dueling: bool = False
    hidden: tuple[Positive, ...] = (64, 64)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if self.buffer_size % self.num_envs:
            raise InputError(
                f"buffer_size = {self.buffer_size} is no multiple of num_envs = {self.num_envs}; "
                "choose one that is."
            )
        if not self.num_envs * self.n_step <= self.warm_up <= self.buffer_size:
            raise InputError(
                f"warm_up = {self.warm_up} must lie between num_envs x n_step = "
                f"{self.num_envs * self.n_step} and buffer_size = {self.buffer_size}."
            )
        if self.dueling and not self.hidden:
            raise InputError("dueling needs at least one hidden layer; hidden is empty.")


@struct.dataclass
class DQNHyperparams:
    """What a sweep may vary within one compilation; every field is traced."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    # Part of the learning rate that is gone at the end, falling linearly; 0 keeps it constant.
    anneal: Annotated[float, Field(ge=0, le=1)] = 1.0
    total_iterations: Annotated[int, Field(gt=0)] = 100  # over which rate and epsilon fall
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    epsilon_start: Annotated[float, Field(ge=0, le=1)] = 1.0
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.05
    exploration: Annotated[float, Field(gt=0, le=1)] = 0.5  # part of training where epsilon falls
    # Every target_period updates the target moves by tau toward the online network:
    # tau 1 is the hard copy, tau 0.005 with period 1 is Polyak averaging.
    target_period: Annotated[int, Field(gt=0)] = 200
    tau: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 10.0


@struct.dataclass
class Buffer:
    """The last transitions, in a ring over time."""

    steps: Transition  # [T, N, ...]
    written: jax.Array  # [] int32, vector steps written so far


@struct.dataclass
class DQNState:
    """All that a run needs to go on."""

    key: Key  # []
    params: PyTree
    target: PyTree
    optimizer: optax.OptState
    envs: core.Envs
    buffer: Buffer
    iteration: jax.Array  # [] int32
    updates: jax.Array  # [] int32
    hyperparams: DQNHyperparams


def write(buffer: Buffer, step: Transition) -> Buffer:
    """Add one vector step [N, ...], over the oldest one once the ring is full."""
    slot = buffer.written % buffer.steps.reward.shape[0]
    steps = jax.tree.map(lambda ring, x: ring.at[slot].set(x), buffer.steps, step)
    return Buffer(steps, buffer.written + 1)


def sample(
    key: Key, buffer: Buffer, batch_size: int, n_step: int, gamma: float | jax.Array
) -> tuple[Transition, jax.Array]:
    """Draw n-step transitions [B] uniformly, with the discount [B] of what follows them.

    The reward is the discounted sum up to the n-th step or the end of the episode, whichever is
    first; ``next_observation`` and ``terminated`` are those of that last step.
    """
    capacity, num_envs = buffer.steps.reward.shape
    stored = jnp.minimum(buffer.written, capacity)
    key_time, key_env = jax.random.split(key)
    age = jax.random.randint(key_time, (batch_size,), 0, stored - n_step + 1)
    start = buffer.written - stored + age
    env = jax.random.randint(key_env, (batch_size,), 0, num_envs)

    if n_step == 1:
        batch = jax.tree.map(lambda ring: ring[start % capacity, env], buffer.steps)
        return batch, jnp.full(batch_size, gamma)

    times = (start[:, None] + jnp.arange(n_step)) % capacity  # [B, n]
    reward = buffer.steps.reward[times, env[:, None]]
    done = buffer.steps.done[times, env[:, None]]
    before = jnp.cumsum(done, -1) - done  # episodes that ended earlier
    counts = before == 0  # [B, n], the steps within the first episode
    discounts = jnp.asarray(gamma) ** jnp.arange(n_step)
    length = counts.sum(-1)  # [B]
    last = times[jnp.arange(batch_size), length - 1]
    batch = jax.tree.map(lambda ring: ring[start % capacity, env], buffer.steps)
    end = buffer.steps
    batch = batch.replace(
        reward=(reward * counts * discounts).sum(-1),
        terminated=end.terminated[last, env],
        done=end.done[last, env],
        next_observation=end.next_observation[last, env],
        next_legal=end.next_legal[last, env],
    )
    return batch, jnp.asarray(gamma) ** length


def dqn(env: core.Env, config: DQNConfig = DQNConfig()) -> Learner:
    """DQN for any gymnax environment with a single discrete action, masked ones included.

    Huber loss (Mnih et al. 2015), double targets (van Hasselt et al. 2016), dueling network,
    n-step returns, hard or Polyak target updates, linear epsilon schedule.
    """

    def network(env_params: PyTree) -> QNetwork:
        heads, n = core.action_shape(env, env_params)
        if heads:
            raise InputError(
                f"DQN needs a single discrete action, but {env.name} takes {heads[0]} choices at "
                "once (assignment joint); use PPO, or assignment sequential."
            )
        return QNetwork(n, config.hidden, config.activation, config.dueling)

    def collect(
        key: Key, envs: core.Envs, params: PyTree, epsilon: jax.Array | float, env_params: PyTree
    ) -> tuple[core.Envs, Transition, core.Episodes]:
        key_greedy, key_random, key_step = jax.random.split(key, 3)
        seen = core.view(env, envs, env_params)
        values = network(env_params).apply(params, seen.observation)
        greedy = jnp.argmax(jnp.where(seen.legal, values, ILLEGAL), -1)
        random = jax.random.categorical(key_random, jnp.where(seen.legal, 0.0, ILLEGAL))
        explore = jax.random.uniform(key_greedy, greedy.shape) < epsilon
        action = jnp.where(explore, random, greedy)
        return core.step(env, key_step, envs, seen, action, env_params)

    def init(key: Key, hyperparams: DQNHyperparams, env_params: PyTree) -> DQNState:
        key, key_network, key_reset, key_warm_up = jax.random.split(key, 4)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        seen = core.view(env, envs, env_params)
        params = network(env_params).init(key_network, seen.observation)

        def explore(envs: core.Envs, key: Key) -> tuple[core.Envs, Transition]:
            envs, transition, _ = collect(key, envs, params, 1.0, env_params)
            return envs, transition

        warm_up = -(-config.warm_up // config.num_envs)
        envs, steps = jax.lax.scan(explore, envs, jax.random.split(key_warm_up, warm_up))
        room = config.buffer_size // config.num_envs - warm_up
        steps = jax.tree.map(
            lambda x: jnp.concatenate([x, jnp.zeros((room, *x.shape[1:]), x.dtype)]), steps
        )
        return DQNState(
            key=key,
            params=params,
            target=params,
            optimizer=_optimizer(hyperparams.max_grad_norm, 0.0).init(params),
            envs=envs,
            buffer=Buffer(steps, jnp.int32(warm_up)),
            iteration=jnp.int32(0),
            updates=jnp.int32(0),
            hyperparams=jax.tree.map(jnp.asarray, hyperparams),
        )

    def step(state: DQNState, env_params: PyTree) -> tuple[DQNState, dict[str, jax.Array]]:
        hyper = state.hyperparams
        q = network(env_params)
        progress = jnp.minimum(state.iteration / hyper.total_iterations, 1)
        explored = jnp.minimum(progress / hyper.exploration, 1)
        epsilon = hyper.epsilon_start + explored * (hyper.epsilon_end - hyper.epsilon_start)
        optimizer = _optimizer(
            hyper.max_grad_norm, hyper.learning_rate * (1 - hyper.anneal * progress)
        )

        def loss(params: PyTree, target: PyTree, batch: Transition, discount: jax.Array) -> Any:
            next_values = jnp.where(
                batch.next_legal, q.apply(target, batch.next_observation), ILLEGAL
            )
            chooser = q.apply(params, batch.next_observation) if config.double else next_values
            best = jnp.argmax(jnp.where(batch.next_legal, chooser, ILLEGAL), -1)
            following = jnp.take_along_axis(next_values, best[:, None], -1).squeeze(-1)
            goal = batch.reward + discount * jnp.where(batch.terminated, 0.0, following)
            values = q.apply(params, batch.observation)
            value = jnp.take_along_axis(values, batch.action[:, None], -1).squeeze(-1)
            error = optax.huber_loss(value, jax.lax.stop_gradient(goal)).mean()
            return error, {"q_loss": error, "q_value": value.mean()}

        def update(carry: Any, key: Key, buffer: Buffer) -> Any:
            params, target, opt_state, updates = carry
            batch, discount = sample(key, buffer, config.batch_size, config.n_step, hyper.gamma)
            grads, metrics = jax.grad(loss, has_aux=True)(params, target, batch, discount)
            changes, opt_state = optimizer.update(grads, opt_state)
            params = optax.apply_updates(params, changes)
            updates = updates + 1
            tau = jnp.where(updates % hyper.target_period == 0, hyper.tau, 0.0)
            target = optax.incremental_update(params, target, tau)
            return (params, target, opt_state, updates), metrics

        def collect_and_update(carry: Any, key: Key) -> Any:
            learning, envs, buffer = carry
            key_collect, key_update = jax.random.split(key)
            envs, transition, ended = collect(key_collect, envs, learning[0], epsilon, env_params)
            buffer = write(buffer, transition)
            learning, metrics = jax.lax.scan(
                lambda carry, key: update(carry, key, buffer),
                learning,
                jax.random.split(key_update, config.updates_per_step),
            )
            return (learning, envs, buffer), (ended, metrics)

        key, key_steps = jax.random.split(state.key)
        learning = (state.params, state.target, state.optimizer, state.updates)
        (learning, envs, buffer), (ended, metrics) = jax.lax.scan(
            collect_and_update,
            (learning, state.envs, state.buffer),
            jax.random.split(key_steps, config.num_steps),
        )
        params, target, opt_state, updates = learning
        metrics = jax.tree.map(jnp.mean, metrics) | {"epsilon": epsilon}
        metrics |= jax.tree.map(jnp.sum, ended).metrics()
        state = DQNState(
            key=key,
            params=params,
            target=target,
            optimizer=opt_state,
            envs=envs,
            buffer=buffer,
            iteration=state.iteration + 1,
            updates=updates,
            hyperparams=hyper,
        )
        return state, metrics

    def policy(state: DQNState) -> Policy:
        def act(key: Key, seen: Situation, carry: tuple) -> tuple[jax.Array, tuple]:
            values = network(seen.params).apply(state.params, seen.observation)
            return jnp.argmax(jnp.where(seen.legal, values, ILLEGAL), -1), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_envs * config.num_steps)


def _optimizer(
    max_grad_norm: float | jax.Array, rate: float | jax.Array
) -> optax.GradientTransformation:
    """Adam on gradients clipped by their global norm; cheap to rebuild, so the rate is traced."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(), optax.scale(-rate)
    )
