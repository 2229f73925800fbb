"""The language model as the policy (Lamorel; GLAM, Carta et al. 2023, arXiv 2302.02662), compiled.

The policy is a softmax over the scores of the action phrases after a prompt that shows the current
observation. Since the texts are finite, the table text x action is scored once per update, the
rollout looks it up, and gradients run over the distinct texts of a minibatch only. One iteration is
one compiled program: score, collect, advantages, update. Its metrics tell that nothing was lost on
the way: ``rollout_error``, the largest difference between the log-probabilities that acted and
those that the update starts from (rounding of float32), and ``first_ratio_error``, the largest
distance of the first minibatch's probability ratios from 1 (exactly 0).
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs.contract import Key, PyTree, typed_key
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.language import LanguageModel, Scoring, merge_lora
from rlli_jax.learners import core
from rlli_jax.learners.core import Learner, check_minibatches
from rlli_jax.learners.optimizer import adam, remaining
from rlli_jax.learners.ppo import PPOHyperparams, advantages
from rlli_jax.teaching.distinct import group_size, over_distinct
from rlli_jax.teaching.methods import Adapt
from rlli_jax.teaching.objective import (
    Samples,
    check_single_choice,
    distribution,
    draw,
    score_loss,
    shuffle,
)
from rlli_jax.teaching.scored import scored_texts, tokens
from rlli_jax.teaching.tasks import TextTask

Positive = Annotated[int, Field(gt=0)]

# Lamorel's PPO, for models of flan-t5's size; a tiny model wants a larger learning rate.
LAMOREL = PPOHyperparams(
    learning_rate=1e-6, anneal=0.0, gamma=0.99, gae_lambda=0.99, clip=0.2, value_clip=0.2,
    value_coefficient=0.5, entropy_coefficient=0.01, max_grad_norm=0.5,
)  # fmt: skip


@checked
@dataclass(frozen=True)
class LanguagePolicyConfig:
    """What decides shapes; defaults are Lamorel's."""

    num_envs: Positive = 32
    """Environments side by side."""
    num_steps: Positive = 40
    """Steps of each environment in one iteration."""
    num_minibatches: Positive = 20
    """Of 64 samples."""
    num_epochs: Positive = 4
    """Passes over a collected batch."""
    reward_scale: Annotated[float, Field(gt=0)] = 20.0
    """Factor of the rewards, as Lamorel has it."""
    normalize_advantage: bool = False
    """Whether advantages are standardised within each minibatch."""
    scoring: Scoring = "log_probability"
    """How candidate texts are scored."""
    value_width: Positive = 1_024
    """Units of the value head."""
    adapt: Adapt = "full"
    """Train all weights of the model, or a LoRA on its queries and values."""
    lora_rank: Positive = 16
    """Of the adapters, with ``adapt: lora``."""

    def __post_init__(self) -> None:
        check_minibatches(self.num_envs, self.num_steps, self.num_minibatches)


@struct.dataclass
class LanguagePolicyState:
    """All that a run needs to go on."""

    key: Key  # []
    params: PyTree  # {"model", "value"}; with adapt "lora", "model" is the LoRA
    loaded: PyTree  # the model's own weights where a LoRA adapts them, else ()
    optimizer: optax.OptState
    envs: core.Envs
    iteration: jax.Array  # [] int32
    hyperparams: PPOHyperparams


def language_policy(
    task: TextTask, model: LanguageModel, config: LanguagePolicyConfig = LanguagePolicyConfig()
) -> Learner:
    """PPO on a language model's own weights.

    Raises:
        InputError: the actions are not one choice a step with one phrase each; a text is longer
            than the model takes.
    """
    check_single_choice(task.env, task.env_params, task.advice)
    scored = scored_texts(
        task, model, adapt=config.adapt, lora_rank=config.lora_rank,
        value_width=config.value_width, scoring=config.scoring,
    )  # fmt: skip
    env = task.env

    def init(key: Key, hyperparams: PPOHyperparams, env_params: PyTree) -> LanguagePolicyState:
        key, key_head, key_reset = jax.random.split(typed_key(key), 3)
        params, loaded = scored.init(key_head, model.params)
        return LanguagePolicyState(
            key=key,
            params=params,
            loaded=loaded,
            optimizer=adam(1.0, 1.0, eps=1e-5).init(params),
            envs=core.reset(env, key_reset, env_params, config.num_envs),
            iteration=jnp.int32(0),
            hyperparams=jax.tree.map(jnp.asarray, hyperparams),
        )

    def step(
        state: LanguagePolicyState, env_params: PyTree
    ) -> tuple[LanguagePolicyState, dict[str, jax.Array]]:
        hyper = state.hyperparams
        key, key_collect, key_update = jax.random.split(state.key, 3)
        table, values = scored.read(state.params, jnp.arange(len(task.texts)), state.loaded)

        envs, (steps, log_prob, ended) = rollout(
            env, table, state.envs, key_collect, env_params, config.num_steps
        )
        text, next_text = (
            x[..., 0].astype(jnp.int32) for x in (steps.observation, steps.next_observation)
        )
        advantage = advantages(
            config.reward_scale * steps.reward, values[text], values[next_text],
            steps.terminated, steps.done, hyper.gamma, hyper.gae_lambda,
        )  # fmt: skip
        samples = Samples(
            text=text,
            advice=jnp.zeros_like(text),
            legal=steps.legal,
            action=steps.action,
            log_prob=log_prob,
            value=values[text],
            advantage=advantage,
            target=advantage + values[text],
        )

        def loss(params: PyTree, samples: Samples, first: jax.Array) -> Any:
            scores, value = scored.read(params, samples.text, state.loaded)
            # The first step starts from the rollout's parameters, so its own log-probabilities are
            # the rollout's, which were computed in a batch of another size and rounded otherwise.
            own = jax.lax.stop_gradient(
                distribution(scores, samples.legal).log_prob(samples.action)
            )
            rounding = jnp.abs(own - samples.log_prob).max()
            log_prob = jnp.where(first, own, samples.log_prob)
            samples = replace(samples, log_prob=log_prob)
            total, losses = score_loss(
                scores, value, samples, hyper, normalize_advantage=config.normalize_advantage
            )
            return total, (losses, rounding)

        rate = hyper.learning_rate * remaining(hyper, state.iteration)
        optimizer = adam(hyper.max_grad_norm, rate, eps=1e-5)

        def minibatch(carry: Any, batch: Any) -> Any:
            params, opt_state = carry
            grads, aux = jax.grad(loss, has_aux=True)(params, *batch)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), aux

        def epoch(carry: Any, x: Any) -> Any:
            key, first = x
            batches = shuffle(key, samples, config.num_minibatches)
            return jax.lax.scan(minibatch, carry, (batches, first))

        shape = (config.num_epochs, config.num_minibatches)
        (params, opt_state), (losses, rounding) = jax.lax.scan(
            epoch,
            (state.params, state.optimizer),
            (
                jax.random.split(key_update, config.num_epochs),
                jnp.arange(shape[0] * shape[1]).reshape(shape) == 0,
            ),
        )
        metrics = {
            "policy_loss": losses.policy.mean(),
            "value_loss": losses.value.mean(),
            "entropy": losses.entropy.mean(),
            "first_ratio_error": jnp.abs(losses.ratio[0, 0] - 1).max(),
            "rollout_error": rounding[0, 0],
        } | ended.metrics()
        state = replace(
            state, key=key, params=params, optimizer=opt_state, envs=envs,
            iteration=state.iteration + 1,
        )  # fmt: skip
        return state, metrics

    def policy(state: LanguagePolicyState) -> Policy:
        table = policy_table(task, model, model_params(state), config.scoring)

        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            return jax.random.categorical(key, jnp.log(table[_text(seen)])), carry

        return Policy((), act)

    return Learner(init, step, policy, config.num_envs * config.num_steps)


def rollout(
    env: core.Env, table: jax.Array, envs: core.Envs, key: Key, env_params: PyTree, num_steps: int
) -> tuple[core.Envs, tuple[core.Transition, jax.Array, core.Episodes]]:
    """Act by a table of scores [T, A] for some steps: no language model stands inside a step.

    Returns the environments; then transitions and log-probabilities of the actions, stacked over
    steps, and the sums over the episodes that ended.
    """

    def act(chance: jax.Array, seen: PolicyInput, memory: PyTree) -> tuple:
        policy = distribution(table[_text(seen)], seen.legal)
        action = draw(policy.probs, chance)
        return action, memory, policy.log_prob(action)

    # Drawn for all steps together: many numbers take hardly longer than a few.
    key_act, key_step = jax.random.split(key)
    chance = jax.random.uniform(key_act, (num_steps, *envs.observation.shape))
    keys = jax.random.split(key_step, num_steps)
    envs, _, steps, log_prob, ended = core.rollout(env, act, envs, (), chance, keys, env_params)
    return envs, (steps, log_prob, ended)


def model_params(state: LanguagePolicyState) -> PyTree:
    """The model's weights as they are now, a LoRA merged."""
    adapted = state.params["model"]
    return merge_lora(state.loaded, adapted) if state.loaded else adapted


def policy_table(
    task: TextTask, model: LanguageModel, params: PyTree, scoring: Scoring = "log_probability"
) -> jax.Array:
    """Action probabilities in every text, [T, A]; what ``task.value`` takes.

    Texts are read in groups: the memory is that of one group.
    """
    prompts, candidates = tokens(task, model)

    def read(params: PyTree, texts: jax.Array) -> jax.Array:
        return model.score(params, prompts.take(texts), candidates, scoring).candidates

    count = len(prompts.ids)
    each = over_distinct(read, count, group_size(model.text_bytes(prompts, candidates)))
    return distribution(each(params, jnp.arange(count)), task.legal).probs


def _text(seen: PolicyInput) -> jax.Array:
    return seen.observation[..., 0].astype(jnp.int32)
