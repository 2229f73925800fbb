"""Policy iteration by branched rollouts that share their random numbers.

From states that the policy so far meets, several actions are tried, each followed by that policy
for some steps with the same random numbers, so that most of the luck cancels in the differences of
their returns: the vine estimator of Schulman et al. 2015 (arXiv 1502.05477, Section 5.2). A network
learns these differences, and its best action is the next policy, as in rollout classification
policy iteration (Lagoudakis and Parr, ICML 2003). It needs an environment that can be started from
any of its states, which is what gymnax's are.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked, renamed
from rlli_jax.envs import contract
from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.policy import Policy, PolicyInput, policy_input
from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import fitting_group_size, vmap_in_groups
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import ILLEGAL, Activation, Actor
from rlli_jax.learners.optimizer import adam, remaining
from rlli_jax.learners.replay import check_buffer

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class VineConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Positive = 128
    """Environments side by side, each branched once an iteration."""
    num_steps: Positive = 8
    """Steps of each environment between two branchings."""
    max_start_steps: Annotated[int, Field(gt=0), renamed("max_start_steps", "spread")] = 1
    """Each environment begins with a random number of random steps below this, so that they do
    not go through their episodes in step: about the length of an episode."""
    branches: Annotated[int, Field(ge=2)] = 4
    """Actions tried in a state, the best one included."""
    length: Positive = 60
    """Steps of a branch, its first action included."""
    updates: Positive = 16
    """Gradient steps in one iteration."""
    batch_size: Positive = 512
    """States."""
    buffer_size: Positive = 8_192
    """Newest branched states that are learned from."""
    hidden: tuple[Positive, ...] = (32, 32)
    """Units of each hidden layer."""
    activation: Activation = "relu"
    """Between the layers."""
    futures: Annotated[int, Field(ge=0)] = 0
    """Sampled futures in which the learned policy tries its best ``branches`` actions before it
    acts; 0 for none. In training there are none. For environments that have ``redraw``."""
    per_action_network: Annotated[bool, renamed("per_action_network", "shared")] = False
    """Whether one network (networks.PerAction) scores every action from what the observation tells
    of it, instead of one output for each; for environments that have by_action."""
    known_rewards: Annotated[bool, renamed("known_rewards", "paid")] = False
    """Whether the environment tells what each action pays immediately (value), so that the network
    has to learn only what follows."""

    def __post_init__(self) -> None:
        check_buffer(self.buffer_size, self.num_envs)


class VineHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam, at the start."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rate that is gone after total_iterations, falling linearly; 0 keeps
    it constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which the rate falls."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """A branch ends by itself."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """The actions tried beside the best one, and the share ``exploration`` of all steps, are
    drawn from softmax(score / temperature); a score is a difference of returns."""
    exploration: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps that is drawn from the softmax instead of the best action."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.05
    """How far the policy moves an iteration."""
    prior: Annotated[float, Field(ge=0)] = 64.0
    """How many futures the network's own scores count for where there are futures."""


@struct.dataclass
class Branches:
    """Branched states; leading axis [C] in the buffer, [N] when new, [B] in a minibatch."""

    observation: jax.Array  # [..., size] float32
    action: jax.Array  # [..., K] int32, those tried
    legal: jax.Array  # [..., K] bool; an illegal one stands where there were too few
    value: jax.Array  # [..., K] float32, return of the branch, less what is known to be paid first


@struct.dataclass
class VineState:
    """All that a run needs to go on."""

    key: Key  # []
    params: PyTree
    policy: PyTree  # running mean of params, by which everything acts
    optimizer: optax.OptState
    envs: core.Envs
    buffer: Branches  # [C, ...]
    iteration: jax.Array  # [] int32
    hyperparams: VineHyperparams


def difference_loss(scores: jax.Array, batch: Branches) -> jax.Array:
    """Squared error of the differences between the legal actions tried, mean over states.

    ``scores`` [B, L] of all actions; what is the same for all actions of a state costs nothing.
    """
    score = jnp.take_along_axis(scores, batch.action, -1)
    error = score - batch.value
    count = jnp.maximum(batch.legal.sum(-1, keepdims=True), 1)
    error -= (error * batch.legal).sum(-1, keepdims=True) / count
    return (error**2 * batch.legal / count).sum(-1).mean()


def vine(env: core.Env, config: VineConfig = VineConfig()) -> Learner:
    """Policy iteration by branched rollouts, for any environment with a single discrete action.

    The vine estimator of Schulman et al. 2015 (arXiv 1502.05477, Section 5.2); masks hold.

    Raises:
        InputError: ``env`` is no environment, or lacks what the config needs: ``redraw`` for
            ``futures``, ``value`` for ``known_rewards``, ``by_action`` for
            ``per_action_network``.
    """
    contract.require_environment(env)
    if config.futures and not hasattr(env, "redraw"):
        raise InputError(
            f"{env.name} cannot draw anew what nobody may know of a state (redraw), which futures "
            "need; set futures to 0."
        )
    if config.known_rewards and not hasattr(env, "value"):
        raise InputError(
            f"{env.name} does not tell what each action pays immediately (value); set "
            "known_rewards to false."
        )
    split = contract.by_action(env) if config.per_action_network else None
    blocks = config.buffer_size // config.num_envs

    def network(env_params: PyTree) -> Actor:
        actions = contract.single_choice(env, env_params, "vine")
        if actions.n < config.branches:
            raise InputError(
                f"branches = {config.branches}, but {env.name} has {actions.n} actions; try no "
                "more than it has."
            )
        return Actor(actions, config.hidden, config.activation, split)

    def known_reward(env_state: PyTree, env_params: PyTree) -> jax.Array | float:
        """What each action pays immediately, as far as that is known, [L]."""
        return env.value(env_state, env_params) if config.known_rewards else 0.0

    def scores(network_params: PyTree, seen: PolicyInput) -> jax.Array:
        """What the policy maximises, for one environment, [L]."""
        follows = network(seen.params).apply(network_params, seen.observation, seen.legal)
        return follows + known_reward(seen.state, seen.params)

    def rollout(
        network_params: PyTree,
        env_params: PyTree,
        env_state: PyTree,
        action: jax.Array,
        keys: Key,
        gamma: float | jax.Array,
    ) -> jax.Array:
        """Return of ``action`` and then the policy, with the random numbers of ``keys`` [H]."""

        def one(carry: tuple, key: Key) -> tuple[tuple, jax.Array]:
            env_state, action, worth = carry
            observation, env_state, reward, terminated, _ = env.step_env(
                key, env_state, action, env_params
            )
            done = terminated | env.is_truncated(env_state, env_params)
            seen = policy_input(env, observation, env_state, env_params)
            score = scores(network_params, seen)
            best = jnp.argmax(score).astype(jnp.int32)
            carry = env_state, best, jnp.where(done, 0.0, worth * gamma)
            return carry, worth * reward

        return jax.lax.scan(one, (env_state, action, jnp.float32(1)), keys)[1].sum()

    def start(key: Key, env_params: PyTree) -> core.Envs:
        """The environments, each some random steps after its reset."""
        key_reset, key_age, key_walk = jax.random.split(key, 3)
        envs = core.reset(env, key_reset, env_params, config.num_envs)
        age = jax.random.randint(key_age, (config.num_envs,), 0, config.max_start_steps)

        def walk(i: jax.Array, envs: core.Envs) -> core.Envs:
            key_action, key_step = jax.random.split(jax.random.fold_in(key_walk, i))
            seen = core.view(env, envs, env_params)
            chance = jax.random.uniform(key_action, seen.legal.shape)
            action = jnp.argmax(jnp.where(seen.legal, chance, -1.0), -1)
            moved, _, _ = core.step(env, key_step, envs, seen, action, env_params)

            def choose(moves: jax.Array, *both: core.Envs) -> core.Envs:
                return jax.tree.map(partial(jnp.where, moves), *both)

            return jax.vmap(choose)(i < age, moved, envs)

        return jax.lax.fori_loop(0, config.max_start_steps - 1, walk, envs)

    def init(key: Key, hyperparams: VineHyperparams, env_params: PyTree) -> VineState:
        key, key_network, key_reset = jax.random.split(contract.typed_key(key), 3)
        envs = start(key_reset, env_params)
        seen = core.view(env, envs, env_params)
        params = network(env_params).init(key_network, seen.observation, seen.legal)
        tried = (config.buffer_size, config.branches)
        buffer = Branches(
            observation=jnp.zeros((config.buffer_size, seen.observation.shape[-1]), jnp.float32),
            action=jnp.zeros(tried, jnp.int32),
            legal=jnp.zeros(tried, bool),
            value=jnp.zeros(tried, jnp.float32),
        )
        hyperparams = core.traced(hyperparams)
        optimizer = adam(None, 0.0).init(params)
        return VineState(key, params, params, optimizer, envs, buffer, jnp.int32(0), hyperparams)

    def step(state: VineState, env_params: PyTree) -> tuple[VineState, dict[str, jax.Array]]:
        hyper = state.hyperparams
        actor = network(env_params)
        key, key_walk, key_branch, key_learn = jax.random.split(state.key, 4)

        def walk(envs: core.Envs, key: Key) -> tuple[core.Envs, core.Episodes]:
            key_explore, key_noise, key_step = jax.random.split(key, 3)
            seen = core.view(env, envs, env_params)
            score = jax.vmap(
                lambda seen, legal, at: scores(
                    state.policy, PolicyInput(seen, legal, at, env_params)
                )
            )(seen.observation, seen.legal, seen.state)
            explore = jax.random.uniform(key_explore, score.shape[:1]) < hyper.exploration
            noise = hyper.temperature * jax.random.gumbel(key_noise, score.shape)
            action = jnp.argmax(score + noise * explore[:, None], -1)
            envs, _, ended = core.step(env, key_step, envs, seen, action, env_params)
            return envs, ended

        def branch(key: Key, env_state: PyTree, observation: jax.Array) -> Branches:
            key_noise, key_future = jax.random.split(key)
            seen = policy_input(env, observation, env_state, env_params)
            score = scores(state.policy, seen)
            # Gumbel noise draws without repetition (Kool et al. 2019, arXiv 1903.06059).
            noisy = score + hyper.temperature * jax.random.gumbel(key_noise, score.shape)
            _, action = jax.lax.top_k(noisy.at[jnp.argmax(score)].set(jnp.inf), config.branches)
            keys = jax.random.split(key_future, config.length)
            value = jax.vmap(rollout, (None, None, None, 0, None, None))(
                state.policy, env_params, env_state, action, keys, hyper.gamma
            )
            value -= jnp.broadcast_to(known_reward(env_state, env_params), score.shape)[action]
            return Branches(seen.observation, action, seen.legal[action], value)

        def loss(params: PyTree, batch: Branches) -> jax.Array:
            return difference_loss(actor.apply(params, batch.observation, None), batch)

        envs, ended = jax.lax.scan(walk, state.envs, jax.random.split(key_walk, config.num_steps))
        keys = jax.random.split(key_branch, config.num_envs)
        rows = config.branches * (actor.actions.n if config.per_action_network else 1)
        fitting = fitting_group_size(rows, max(config.hidden, default=1))
        new = vmap_in_groups(branch, (0, 0, 0), fitting)(keys, envs.state, envs.observation)
        place = state.iteration % blocks * config.num_envs
        buffer = jax.tree.map(
            lambda ring, x: jax.lax.dynamic_update_slice_in_dim(ring, x, place, 0),
            state.buffer,
            new,
        )
        filled = jnp.minimum(state.iteration + 1, blocks) * config.num_envs
        optimizer = adam(None, hyper.learning_rate * remaining(hyper, state.iteration))

        def update(carry: tuple, key: Key) -> tuple[tuple, jax.Array]:
            params, opt_state = carry
            drawn = jax.random.randint(key, (config.batch_size,), 0, filled)
            batch = jax.tree.map(lambda x: x[drawn], buffer)
            error, grads = jax.value_and_grad(loss)(params, batch)
            changes, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, changes), opt_state), error

        (params, opt_state), errors = jax.lax.scan(
            update, (state.params, state.optimizer), jax.random.split(key_learn, config.updates)
        )
        policy = optax.incremental_update(params, state.policy, hyper.tau)
        metrics = {"loss": errors.mean()} | jax.tree.map(jnp.sum, ended).metrics()
        state = VineState(key, params, policy, opt_state, envs, buffer, state.iteration + 1, hyper)
        return state, metrics

    def look_ahead(key: Key, state: VineState, seen: PolicyInput, score: jax.Array) -> jax.Array:
        """The best action by the scores [L] and by futures drawn anew, weighed."""
        best, tried = jax.lax.top_k(score, config.branches)

        def future(key: Key) -> jax.Array:
            key_now, key_later = jax.random.split(key)
            env_state = env.redraw(key_now, seen.state, seen.params)
            keys = jax.random.split(key_later, config.length)
            return jax.vmap(rollout, (None, None, None, 0, None, None))(
                state.policy, seen.params, env_state, tried, keys, state.hyperparams.gamma
            )

        found = jax.vmap(future)(jax.random.split(key, config.futures)).mean(0)
        legal = best > ILLEGAL / 2
        ahead = found - jnp.mean(found, where=legal)
        known = best - jnp.mean(best, where=legal)
        total = config.futures * ahead + state.hyperparams.prior * known
        return tried[jnp.argmax(jnp.where(legal, total, -jnp.inf))]

    def policy(state: VineState) -> Policy:
        def act(key: Key, seen: PolicyInput, carry: Any) -> tuple[jax.Array, Any]:
            score = scores(state.policy, seen)
            if config.futures:
                return look_ahead(key, state, seen, score), carry
            return jnp.argmax(score, -1), carry

        return Policy((), act)

    env_steps = config.num_envs * (config.num_steps + config.branches * config.length)
    return Learner(init, step, policy, env_steps, group_size=1)
