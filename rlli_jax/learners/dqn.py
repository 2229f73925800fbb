"""Deep Q-learning (Mnih et al. 2015) and its options: double, dueling, n-step, prioritized, QR."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

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
from rlli_jax.learners.core import Learner, Transition
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import ILLEGAL, Activation, QNetwork
from rlli_jax.learners.optimizer import adam, remaining
from rlli_jax.learners.replay import (
    SMALL_ERROR,
    Buffer,
    Priorities,
    check_warm_up,
    draw,
    look_ahead,
    sample,
    start,
    write,
)

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class DQNConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Positive = 8
    """Environments side by side."""
    num_steps: Positive = 128
    """Steps of each environment in one iteration."""
    updates_per_step: Positive = 1
    """Gradient steps after each step of the environments."""
    batch_size: Positive = 128
    """Samples in one gradient step."""
    buffer_size: Positive = 65_536
    """Transitions."""
    warm_up: Positive = 1_024
    """Transitions by random actions before learning starts."""
    n_step: Positive = 1
    """Steps of reward before the target continues with the value of the state reached."""
    double: bool = True
    """Whether the learned network chooses the action that the target network values (van
    Hasselt et al. 2016)."""
    dueling: bool = False
    """Whether value and advantages have layers of their own (Wang et al. 2016)."""
    quantiles: Annotated[int, Field(ge=0)] = 0
    """Quantiles of the return that are learned for each action (QR-DQN); 0 learns its mean."""
    prioritized: bool = False
    """Replay in proportion to the last error, not uniformly."""
    hidden: tuple[Positive, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Activation = "relu"
    """Between the layers."""

    def __post_init__(self) -> None:
        check_warm_up(self.warm_up, self.buffer_size, self.num_envs, self.n_step)
        if self.dueling and not self.hidden:
            raise InputError("dueling needs at least one hidden layer; hidden is empty.")


class DQNHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Of Adam, at the start."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rate that is gone after total_iterations, falling linearly; 0 keeps
    it constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which rate and epsilon fall."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each step."""
    epsilon_start: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of random actions at the start."""
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of random actions in the end."""
    exploration: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of training where epsilon falls."""
    target_period: Annotated[int, Field(gt=0)] = 200
    """Every target_period updates the target moves by tau toward the online network: tau 1 is
    the hard copy, tau 0.005 with period 1 is Polyak averaging."""
    tau: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How far the target network moves toward the learned one."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 10.0
    """Gradients are scaled down to this global norm."""
    priority_exponent: Annotated[float, Field(ge=0)] = 0.6
    """Of prioritized replay: the exponent of errors, and that of the weights which correct for
    it, rising linearly to 1 (alpha and beta of Schaul et al. 2016)."""
    importance_start: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Exponent of the weights that correct for prioritized draws, at the start."""


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


def quantile_loss(predicted: jax.Array, goal: jax.Array) -> jax.Array:
    """Quantile Huber loss with kappa = 1 (Dabney et al. 2018, Eq. 10), [B, Q], [B, Q] -> [B]."""
    level = (jnp.arange(predicted.shape[-1]) + 0.5) / predicted.shape[-1]
    error = goal[:, None, :] - predicted[:, :, None]  # [B, Q, Q of the goal]
    weight = jnp.abs(level[:, None] - (error < 0))
    return (weight * optax.huber_loss(error)).mean(-1).sum(-1)


def td_goal(
    batch: Transition, discount: jax.Array, next_values: jax.Array, chooser: jax.Array
) -> jax.Array:
    """What the value of the action taken is to become, [B, 1], or [B, Q] for quantiles.

    ``next_values``, [B, L] or [B, L, Q], are the target network's; ``chooser`` [B, L] says which
    legal action is best: the learned network's values for double targets (van Hasselt et al. 2016),
    else the target network's own.
    """
    best = jnp.argmax(jnp.where(batch.next_legal, chooser, ILLEGAL), -1)
    row = jnp.arange(len(best))
    following = next_values[row, best].reshape(len(best), -1)
    following = jnp.where(batch.terminated[:, None], 0.0, following)
    return jax.lax.stop_gradient(batch.reward[:, None] + discount[:, None] * following)


def td_loss(value: jax.Array, goal: jax.Array, *, quantiles: bool) -> tuple[jax.Array, jax.Array]:
    """Loss [B] of the values [B, 1 or Q] of the actions taken, and the size of their errors [B].

    Huber's loss (Mnih et al. 2015), or that of quantile regression (Dabney et al. 2018).
    """
    if quantiles:
        return quantile_loss(value, goal), jnp.abs(goal.mean(-1) - value.mean(-1))
    return optax.huber_loss(value, goal).mean(-1), jnp.abs(goal - value).mean(-1)


class Chance(NamedTuple):
    """All that is random in steps of N environments, drawn ahead: see ``core.step_keys``."""

    explore: jax.Array  # [..., N] float32, uniform in [0, 1)
    noise: jax.Array  # [..., N, L] float32, Gumbel: the largest is a uniform draw
    keys: Key  # [..., N, 2], of core.step


def dqn(env: core.Env, config: DQNConfig = DQNConfig()) -> Learner:
    """DQN for any gymnax environment with a single discrete action, masked ones included.

    Huber loss (Mnih et al. 2015), double targets (van Hasselt et al. 2016), dueling network,
    n-step returns, hard or Polyak target updates, linear epsilon schedule; prioritized replay
    (Schaul et al. 2016, proportional); quantile regression (QR-DQN, Dabney et al. 2018).
    """
    contract.require_environment(env)

    def network(env_params: PyTree) -> QNetwork:
        n = contract.single_choice(env, env_params, "DQN").n
        return QNetwork(n, config.hidden, config.activation, config.dueling, config.quantiles)

    def expected(values: jax.Array) -> jax.Array:
        """The mean of each action's return, [..., L]."""
        return values.mean(-1) if config.quantiles else values

    def chance(key: Key, steps: int, num_actions: int) -> Chance:
        key_greedy, key_random, key_step = jax.random.split(key, 3)
        shape = steps, config.num_envs
        return Chance(
            jax.random.uniform(key_greedy, shape),
            jax.random.gumbel(key_random, (*shape, num_actions)),
            core.step_keys(key_step, *shape),
        )

    def collect(
        chance: Chance,
        envs: core.Envs,
        params: PyTree,
        epsilon: jax.Array | float,
        env_params: PyTree,
    ) -> tuple[core.Envs, Transition, core.Episodes]:
        seen = core.view(env, envs, env_params)
        values = expected(network(env_params).apply(params, seen.observation))
        greedy = jnp.argmax(jnp.where(seen.legal, values, ILLEGAL), -1)
        random = jnp.argmax(jnp.where(seen.legal, chance.noise, ILLEGAL), -1)
        action = jnp.where(chance.explore < epsilon, random, greedy)
        return core.step(env, chance.keys, envs, seen, action, env_params)

    def init(key: Key, hyperparams: DQNHyperparams, env_params: PyTree) -> DQNState:
        key, key_network, key_reset, key_warm_up = jax.random.split(contract.typed_key(key), 4)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        seen = core.view(env, envs, env_params)
        q = network(env_params)
        params = q.init(key_network, seen.observation)

        def explore(noise: jax.Array, seen: PolicyInput, memory: PyTree) -> tuple:
            return jnp.argmax(jnp.where(seen.legal, noise, ILLEGAL), -1), memory, ()

        drawn = chance(key_warm_up, -(-config.warm_up // config.num_envs), q.num_actions)
        envs, _, steps, _, _ = core.rollout(
            env, explore, envs, (), drawn.noise, drawn.keys, env_params
        )
        return DQNState(
            key=key,
            params=params,
            target=params,
            optimizer=_optimizer(hyperparams.max_grad_norm, 0.0).init(params),
            envs=envs,
            buffer=start(
                steps, config.buffer_size, n_step=config.n_step, prioritized=config.prioritized
            ),
            iteration=jnp.int32(0),
            updates=jnp.int32(0),
            hyperparams=core.traced(hyperparams),
        )

    def step(state: DQNState, env_params: PyTree) -> tuple[DQNState, dict[str, jax.Array]]:
        hyper = state.hyperparams
        q = network(env_params)
        progress = jnp.minimum(state.iteration / hyper.total_iterations, 1)
        explored = jnp.minimum(progress / hyper.exploration, 1)
        epsilon = hyper.epsilon_start + explored * (hyper.epsilon_end - hyper.epsilon_start)
        optimizer = _optimizer(
            hyper.max_grad_norm, hyper.learning_rate * remaining(hyper, state.iteration)
        )

        def loss(params: PyTree, target: PyTree, batch: Transition, discount: Any) -> Any:
            """The loss of each of B transitions, the size of its error, and its value."""
            next_values = q.apply(target, batch.next_observation)
            chooser = q.apply(params, batch.next_observation) if config.double else next_values
            goal = td_goal(batch, discount, next_values, expected(chooser))
            row = jnp.arange(config.batch_size)
            value = q.apply(params, batch.observation)[row, batch.action]
            value = value.reshape(config.batch_size, -1)
            return *td_loss(value, goal, quantiles=config.quantiles > 0), value

        def update(carry: Any, drawn: jax.Array, written: jax.Array, steps: Transition) -> Any:
            params, target, opt_state, updates, priorities = carry
            buffer = Buffer(steps, written)
            importance: jax.Array | float = 1.0
            if config.prioritized:
                number, probability = draw(drawn, priorities)
                start, place = number // config.num_envs, number % config.num_envs
                batch, discount = look_ahead(buffer, start, place, config.n_step, hyper.gamma)
                beta = hyper.importance_start + progress * (1 - hyper.importance_start)
                importance = (probability / probability.min()) ** -beta
            else:
                batch, discount = sample(drawn, buffer, config.n_step, hyper.gamma)

            def mean_loss(params: PyTree) -> Any:
                losses, error, value = loss(params, target, batch, discount)
                return (importance * losses).mean(), (error, value.mean())

            (q_loss, (error, q_value)), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
            if config.prioritized:
                power = (error + SMALL_ERROR) ** hyper.priority_exponent
                shape, largest = priorities.power.shape, priorities.largest
                power_of = priorities.power.reshape(-1).at[number].set(power)
                priorities = Priorities(power_of.reshape(shape), jnp.maximum(largest, power.max()))
            changes, opt_state = optimizer.update(grads, opt_state)
            params = optax.apply_updates(params, changes)
            updates = updates + 1
            tau = jnp.where(updates % hyper.target_period == 0, hyper.tau, 0.0)
            target = optax.incremental_update(params, target, tau)
            carry = (params, target, opt_state, updates, priorities)
            return carry, {"q_loss": q_loss, "q_value": q_value}

        def collect_and_update(carry: Any, random: tuple[Chance, jax.Array]) -> Any:
            learning, envs, buffer = carry
            chance, drawn = random
            envs, transition, ended = collect(chance, envs, learning[0], epsilon, env_params)
            buffer = write(buffer, transition, config.n_step)
            # The steps stay out of the inner loop's carry, which only reads them.
            (*learning, priorities), metrics = jax.lax.scan(
                lambda carry, drawn: update(carry, drawn, buffer.written, buffer.steps),
                (*learning, buffer.priorities),
                drawn,
            )
            buffer = Buffer(buffer.steps, buffer.written, priorities)
            return (tuple(learning), envs, buffer), (ended, metrics)

        key, key_collect, key_update = jax.random.split(state.key, 3)
        shape = config.num_steps, config.updates_per_step  # of what the updates draw
        if config.prioritized:
            drawn = jax.random.uniform(key_update, (*shape, config.batch_size))
        else:
            drawn = jax.random.bits(key_update, (*shape, 2, config.batch_size))
        learning = (state.params, state.target, state.optimizer, state.updates)
        (learning, envs, buffer), (ended, metrics) = jax.lax.scan(
            collect_and_update,
            (learning, state.envs, state.buffer),
            (chance(key_collect, config.num_steps, q.num_actions), drawn),
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
        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            values = expected(network(seen.params).apply(state.params, seen.observation))
            return jnp.argmax(jnp.where(seen.legal, values, ILLEGAL), -1), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_envs * config.num_steps)


def _optimizer(
    max_grad_norm: float | jax.Array, rate: float | jax.Array
) -> optax.GradientTransformation:
    return adam(max_grad_norm, rate, flat=True)
