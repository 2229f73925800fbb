"""Soft actor-critic for discrete actions, and D2SAC, whose actor is a diffusion model.

SAC: Christodoulou 2019 (arXiv 1910.07207): two critics, targets in expectation over the policy,
a fixed or a learned temperature; here the critics' loss is Huber's, as DQN's is, and the targets'
policy is a slowly moving copy of the actor, as in D2SAC, not the newest actor. D2SAC: Du et al.,
"Diffusion-based reinforcement learning for edge-enabled AI-generated content services", IEEE TMC
23(9), 2024: the actor makes its logits from noise in a few denoising steps. The two learners share
all but the actor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs import contract
from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner, Transition
from rlli_jax.learners.diffusion import DiffusionActor
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import ILLEGAL, Activation, Actor, QNetwork
from rlli_jax.learners.optimizer import adam, remaining
from rlli_jax.learners.replay import Buffer, check_warm_up, sample, start, write

Positive = Annotated[int, Field(gt=0)]
# params, key, observation, legal, spread of the noise (1 in training, 0 to act greedily)
Logits = Callable[[PyTree, Key, jax.Array, jax.Array, float], jax.Array]


@checked
@dataclass(frozen=True)
class SACConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Positive = 16
    """Environments side by side."""
    num_steps: Positive = 64
    """Steps of each environment in one iteration."""
    updates_per_step: Positive = 1
    """Gradient steps after each step of the environments."""
    batch_size: Positive = 256
    """Samples in one gradient step."""
    buffer_size: Positive = 65_536
    """Transitions."""
    warm_up: Positive = 1_024
    """Transitions by random actions before learning starts."""
    n_step: Positive = 1
    """Steps of reward before the target continues with the value of the state reached."""
    learn_temperature: bool = False
    """Whether the price of entropy follows target_entropy."""
    hidden: tuple[Positive, ...] = (64, 64)
    """Units of each hidden layer."""
    critic_hidden: tuple[Positive, ...] | None = None
    """None: as hidden, which is the actor's."""
    activation: Activation = "relu"
    """Between the layers."""

    def __post_init__(self) -> None:
        check_warm_up(self.warm_up, self.buffer_size, self.num_envs, self.n_step)


@checked
@dataclass(frozen=True)
class D2SACConfig(SACConfig):
    """That of SAC, and the diffusion model's."""

    denoising_steps: Positive = 5
    """Of the diffusion chain that makes the logits."""
    time_embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 16
    """Sines and cosines."""
    predicts: Literal["logits", "noise"] = "logits"
    """What the network finds in a noisy state of the chain. "noise" is published D2SAC: its tanh
    cannot undo noise beyond 1, which the chain then amplifies by 12, so that logits are far
    apart by chance. "logits": the end of the chain itself, as logit_scale x tanh; so bounded, no
    action ever becomes too unlikely to be learned about."""
    logit_scale: Annotated[float, Field(gt=0)] = 4.0
    """Bound of the logits where the network predicts them."""
    activation: Activation = "mish"
    """Between the layers."""


class SACHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    actor_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Learning rate of the actor."""
    critic_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of the critics."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rates that is gone after total_iterations, falling linearly; 0 keeps
    them constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which the rates fall."""
    actor_delay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the training in which only the critics learn, from a nearly uniform policy. An
    actor that follows critics which know nothing yet may settle on one action and never leave
    it."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each step."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """How far targets move at every update."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Price of entropy; the first one if learned."""
    temperature_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Learning rate, if learned."""
    target_entropy: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Entropy that a learned temperature aims at, as a part of that of a uniform choice."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of actor and critics."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 10.0
    """Gradients are scaled down to this global norm."""


@struct.dataclass
class SACParams:
    """What gradients change."""

    actor: PyTree
    critics: PyTree  # of two networks, stacked
    log_temperature: jax.Array  # [] float32


@struct.dataclass
class SACState:
    """All that a run needs to go on."""

    key: Key  # []
    params: SACParams
    target: SACParams  # follows params by tau; its temperature has no use
    optimizer: SACParams  # one state of Adam for each field of params
    envs: core.Envs
    buffer: Buffer
    iteration: jax.Array  # [] int32
    hyperparams: SACHyperparams


def distribution(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities [..., L] and entropy [...]; an illegal action has none of either."""
    log = jax.nn.log_softmax(logits)
    probability = jnp.exp(log)
    return probability, -(probability * log).sum(-1)


def soft_goal(
    batch: Transition,
    discount: jax.Array,
    next_logits: jax.Array,
    next_values: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """What the critics' values of the actions taken are to become, [B].

    In expectation over the policy (Christodoulou 2019, Eq. 10); ``next_values`` [B, L] are the
    lesser of the two target critics'.
    """
    probability, entropy = distribution(next_logits)
    following = (probability * next_values).sum(-1) + temperature * entropy
    return batch.reward + discount * jnp.where(batch.terminated, 0.0, following)


def critic_loss(
    values: jax.Array, action: jax.Array, goal: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Huber's loss of both critics' values [2, B, L], and the mean value of the actions taken.

    Not squared: rare large losses (a crash) would outweigh what else tells actions apart.
    """
    value = jnp.take_along_axis(values, action[None, :, None], -1).squeeze(-1)
    return optax.huber_loss(value, goal).mean(-1).sum(), value.mean()


def actor_loss(
    logits: jax.Array, values: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the policy's logits [B, L] are worth by the critics, negated, and its entropy [B].

    Christodoulou 2019, Eq. 12.
    """
    probability, entropy = distribution(logits)
    return -((probability * values).sum(-1) + temperature * entropy).mean(), entropy


def sac(env: core.Env, config: SACConfig = SACConfig()) -> Learner:
    """Discrete SAC for any gymnax environment with a single discrete action, masked ones too.

    Christodoulou 2019 (arXiv 1910.07207); what differs from it is told at the top of this module.

    Raises:
        InputError: ``env`` is no environment.
    """

    def actor(num_actions: int) -> tuple[Callable[..., PyTree], Logits]:
        network = Actor(contract.ActionShape((), num_actions), config.hidden, config.activation)
        return (
            lambda key, observation, legal: network.init(key, observation, legal),
            lambda params, key, observation, legal, spread: network.apply(
                params, observation, legal
            ),
        )

    return _soft_actor_critic(env, config, actor)


def d2sac(env: core.Env, config: D2SACConfig = D2SACConfig()) -> Learner:
    """SAC whose actor is a diffusion model; where it acts greedily its chain is one of means.

    Du et al., IEEE TMC 23(9), 2024. For the environments of :func:`sac`.

    Raises:
        InputError: ``env`` is no environment.
    """

    def actor(num_actions: int) -> tuple[Callable[..., PyTree], Logits]:
        network = DiffusionActor(
            num_actions,
            config.hidden,
            config.activation,
            config.denoising_steps,
            config.time_embedding,
            config.predicts,
            config.logit_scale,
        )
        return (
            lambda key, observation, legal: network.init(key, key, observation, legal),
            network.apply,
        )

    return _soft_actor_critic(env, config, actor)


def _soft_actor_critic(
    env: core.Env,
    config: SACConfig,
    make_actor: Callable[[int], tuple[Callable[..., PyTree], Logits]],
) -> Learner:
    """The learner for an actor; ``make_actor`` gives its init and its logits for L actions."""
    contract.require_environment(env)

    def networks(env_params: PyTree) -> tuple[Callable[..., PyTree], Logits, QNetwork]:
        n = contract.single_choice(env, env_params, "SAC").n
        hidden = config.hidden if config.critic_hidden is None else config.critic_hidden
        return *make_actor(n), QNetwork(n, hidden, config.activation, dueling=False)

    def init(key: Key, hyperparams: SACHyperparams, env_params: PyTree) -> SACState:
        key, key_actor, key_critics, key_reset, key_warm_up = jax.random.split(
            contract.typed_key(key), 5
        )
        hyperparams = core.traced(hyperparams)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        seen = core.view(env, envs, env_params)
        init_actor, _, critic = networks(env_params)
        params = SACParams(
            actor=init_actor(key_actor, seen.observation, seen.legal),
            critics=jax.vmap(critic.init, (0, None))(
                jax.random.split(key_critics), seen.observation
            ),
            log_temperature=jnp.log(hyperparams.temperature),
        )

        def explore(key: Key, seen: PolicyInput, memory: PyTree) -> tuple:
            logits = jnp.where(seen.legal, 0.0, ILLEGAL)
            return jax.random.categorical(key, logits), memory, ()

        warm_up = -(-config.warm_up // config.num_envs)
        _, key_act, key_step = _three(jax.random.split(key_warm_up, warm_up))
        envs, _, steps, _, _ = core.rollout(env, explore, envs, (), key_act, key_step, env_params)
        optimizer = _optimizer(hyperparams, jnp.float32(0))
        return SACState(
            key=key,
            params=params,
            target=params,
            optimizer=SACParams(
                actor=optimizer.init(params.actor),
                critics=optimizer.init(params.critics),
                log_temperature=optimizer.init(params.log_temperature),
            ),
            envs=envs,
            buffer=start(steps, config.buffer_size),
            iteration=jnp.int32(0),
            hyperparams=hyperparams,
        )

    def step(state: SACState, env_params: PyTree) -> tuple[SACState, dict[str, jax.Array]]:
        hyper = state.hyperparams
        _, logits_of, critic = networks(env_params)
        progress = jnp.minimum(state.iteration / hyper.total_iterations, 1)
        left = remaining(hyper, state.iteration)
        actor_rate = jnp.where(progress < hyper.actor_delay, 0.0, hyper.actor_rate)

        def both(critics: PyTree, observation: jax.Array) -> jax.Array:
            """Values by both critics, [2, B, L]."""
            return jax.vmap(critic.apply, (0, None))(critics, observation)

        def update(carry: Any, key: Key, buffer: Buffer) -> Any:
            params, target, opt_state = carry
            key_sample, key_next, key_actor = jax.random.split(key, 3)
            bits = jax.random.bits(key_sample, (2, config.batch_size))
            batch, discount = sample(bits, buffer, config.n_step, hyper.gamma)
            temperature = jnp.exp(params.log_temperature)
            next_logits = logits_of(
                target.actor, key_next, batch.next_observation, batch.next_legal, 1.0
            )
            next_values = both(target.critics, batch.next_observation).min(0)
            goal = soft_goal(batch, discount, next_logits, next_values, temperature)

            def of_critics(critics: PyTree) -> Any:
                return critic_loss(both(critics, batch.observation), batch.action, goal)

            def of_actor(actor: PyTree) -> Any:
                logits = logits_of(actor, key_actor, batch.observation, batch.legal, 1.0)
                return actor_loss(logits, values, temperature)

            (q_loss, q_value), critic_grads = jax.value_and_grad(of_critics, has_aux=True)(
                params.critics
            )
            values = both(params.critics, batch.observation).min(0)
            actor_grads, entropy = jax.grad(of_actor, has_aux=True)(params.actor)
            # Christodoulou, Eq. 11, for log alpha: more weight where entropy falls short.
            aim = hyper.target_entropy * jnp.log(batch.legal.sum(-1, dtype=jnp.float32))
            learned: dict[str, tuple[PyTree, Any]] = {
                "actor": (actor_grads, actor_rate),
                "critics": (critic_grads, hyper.critic_rate),
            }
            if config.learn_temperature:
                temperature_grad = temperature * (entropy - aim).mean()
                learned["log_temperature"] = (temperature_grad, hyper.temperature_rate)
            for name, (grads, rate) in learned.items():
                old = getattr(params, name)
                changes, kept = _optimizer(hyper, rate * left).update(
                    grads, getattr(opt_state, name), old
                )
                params = params.replace(**{name: optax.apply_updates(old, changes)})
                opt_state = opt_state.replace(**{name: kept})
            target = optax.incremental_update(params, target, hyper.tau)
            metrics = {
                "q_loss": q_loss,
                "q_value": q_value,
                "entropy": entropy.mean(),
                "temperature": temperature,
            }
            return (params, target, opt_state), metrics

        def collect_and_update(carry: Any, key: Key) -> Any:
            learning, envs, buffer = carry
            key_collect, key_update = jax.random.split(key)
            key_noise, key_act, key_step = jax.random.split(key_collect, 3)
            seen = core.view(env, envs, env_params)
            logits = logits_of(learning[0].actor, key_noise, seen.observation, seen.legal, 1.0)
            action = jax.random.categorical(key_act, logits)
            envs, transition, ended = core.step(env, key_step, envs, seen, action, env_params)
            buffer = write(buffer, transition)
            learning, metrics = jax.lax.scan(
                lambda carry, key: update(carry, key, buffer),
                learning,
                jax.random.split(key_update, config.updates_per_step),
            )
            return (learning, envs, buffer), (ended, metrics)

        key, key_steps = jax.random.split(state.key)
        learning = (state.params, state.target, state.optimizer)
        (learning, envs, buffer), (ended, metrics) = jax.lax.scan(
            collect_and_update,
            (learning, state.envs, state.buffer),
            jax.random.split(key_steps, config.num_steps),
        )
        params, target, opt_state = learning
        metrics = jax.tree.map(jnp.mean, metrics) | jax.tree.map(jnp.sum, ended).metrics()
        state = SACState(
            key=key,
            params=params,
            target=target,
            optimizer=opt_state,
            envs=envs,
            buffer=buffer,
            iteration=state.iteration + 1,
            hyperparams=hyper,
        )
        return state, metrics

    def policy(state: SACState) -> Policy:
        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            _, logits_of, _ = networks(seen.params)
            logits = logits_of(state.params.actor, key, seen.observation, seen.legal, 0.0)
            return jnp.argmax(logits, -1), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_envs * config.num_steps)


def _three(keys: Key) -> Key:
    """Each of the keys [T] split into three, [3, T]."""
    return jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)


def _optimizer(hyperparams: SACHyperparams, rate: jax.Array) -> optax.GradientTransformation:
    return adam(hyperparams.max_grad_norm, rate, weight_decay=hyperparams.weight_decay)
