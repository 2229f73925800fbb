"""A language model tuned by reward as the policy of provider selection, compiled.

A prompt tells a person and a request, an answer names a provider, and the reward is the QoE of that
cell. GRPO, RLOO and PPO are one iteration (draw prompts, draw answers to each, advantages, gradient
steps on the clipped ratio) and differ in two things: what an advantage is, and where the divergence
from the model as it began is paid. Prompts and answers are finite, so the policy is the softmax
over the scores of the answers, as Lamorel's, and its expected return and its divergence from the
start are exact after each iteration.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs.contract import Key, PyTree, typed_key
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.envs.provider_selection import EnvParams
from rlli_jax.errors import InputError
from rlli_jax.language import LanguageModel, Scoring
from rlli_jax.learners import Kind, core
from rlli_jax.learners.core import Learner
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.networks import ILLEGAL
from rlli_jax.learners.optimizer import adam, remaining
from rlli_jax.teaching.methods import Adapt
from rlli_jax.teaching.scored import scored_texts
from rlli_jax.teaching.tasks import TextTask

Positive = Annotated[int, Field(gt=0)]


@checked
@dataclass(frozen=True)
class TuningConfig:
    """What decides shapes; a change compiles anew."""

    prompts: Positive = 16
    """Different prompts in one iteration, drawn anew each time."""
    group: Annotated[int, Field(gt=1)] = 8
    """Answers drawn to each prompt."""
    updates: Positive = 2
    """Gradient steps on what was drawn; in the first, the ratio of probabilities is 1."""
    adapt: Adapt = "lora"
    """Train a LoRA on the model's queries and values, of which each seed has its own while they
    share the model, or all weights."""
    lora_rank: Positive = 16
    """Of the adapters, with ``adapt: lora``."""
    scoring: Scoring = "log_probability"
    """How answers are scored."""
    value_width: Positive = 64
    """Units of the value head of language_ppo; the others have none."""


class TuningHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Of Adam, at the start. For a tiny model; a large one wants a hundredth of it."""
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the learning rate that is gone after total_iterations, falling linearly; 0 keeps
    it constant."""
    total_iterations: Annotated[int, Field(gt=0)] = 100
    """Over which the rate falls."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    """How far the ratio of probabilities may leave 1."""
    kl: Annotated[float, Field(ge=0)] = 0.03
    """Weight of the divergence from the model as it began: of rloo and language_ppo in QoE a nat,
    of grpo in standardised advantages a nat. Without it a tiny model settles on few answers."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the value loss of language_ppo."""


class Worded(NamedTuple):
    """What is tuned, and for what."""

    task: TextTask  # of provider selection
    model: LanguageModel


class TuningParams(NamedTuple):
    """What the runs of a study share."""

    table: EnvParams
    weights: PyTree  # of the model as it begins


@struct.dataclass
class TuningState:
    """All that a run needs to go on; T texts, A answers."""

    key: Key  # []
    params: PyTree  # {"model", "value"}; with adapt "lora", "model" is the LoRA
    optimizer: optax.OptState
    log_policy: jax.Array  # [T, A] float32, of params
    value: jax.Array  # [T] float32, of params; zeros without a value head
    start: jax.Array  # [T, A] float32, log_policy before any update
    iteration: jax.Array  # [] int32
    hyperparams: TuningHyperparams


def group_advantage(reward: jax.Array) -> jax.Array:
    """Reward above the mean of the answers to the same prompt, in standard deviations of them
    (DeepSeekMath, Shao et al. 2024, arXiv 2402.03300, Section 4.1.2). [P, G] -> [P, G].

    Where all answers earned the same nothing is to be learned: 0.
    """
    above = reward - reward.mean(-1, keepdims=True)
    return above / (reward.std(-1, keepdims=True) + 1e-4)


def leave_one_out(reward: jax.Array) -> jax.Array:
    """Reward above the mean of the *other* answers to the same prompt (Ahmadian et al. 2024,
    Eq. 7). [P, G] -> [P, G]."""
    answers = reward.shape[-1]
    return (reward - reward.mean(-1, keepdims=True)) * answers / (answers - 1)


def kl_estimate(log_prob: jax.Array, log_start: jax.Array) -> jax.Array:
    """Of KL(policy || start) from answers that the policy drew: k3, unbiased and never negative
    (Schulman 2020, "Approximating KL divergence"; GRPO's Eq. 4)."""
    log_ratio = log_start - log_prob
    return jnp.exp(log_ratio) - log_ratio - 1


def clipped_loss(log_prob: jax.Array, old: jax.Array, advantage: jax.Array, clip: Any) -> jax.Array:
    """Minus the clipped objective of each answer (Schulman et al. 2017, Eq. 7)."""
    ratio = jnp.exp(log_prob - old)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def kl_to(start: jax.Array, log_policy: jax.Array) -> jax.Array:
    """KL(policy || start) in nats, exact. Log-probabilities [..., A] -> [...]."""
    p = jnp.exp(log_policy)
    return jnp.where(p > 0, p * (log_policy - start), 0.0).sum(-1)


class _Algorithm(NamedTuple):
    """In what the algorithms differ."""

    advantage: Callable[[jax.Array, jax.Array], jax.Array]  # reward, value [P, G] -> [P, G]
    kl_in_reward: bool  # else in the loss
    value_width: int | None = None  # None: no value head


def grpo(worded: Worded, config: TuningConfig = TuningConfig()) -> Learner:
    """Group relative policy optimisation (Shao et al. 2024): advantages within the answers to one
    prompt, no value head; the divergence from the start is part of the loss.

    Raises:
        InputError: a text is longer than the model takes, or there are fewer than config.prompts.
    """

    return _tune(worded, config, _Algorithm(lambda reward, _: group_advantage(reward), False))


def rloo(worded: Worded, config: TuningConfig = TuningConfig()) -> Learner:
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740): the baseline of an answer
    is the mean of the others to its prompt; the divergence from the start is taken off the reward.

    Raises:
        InputError: as :func:`grpo`.
    """

    return _tune(worded, config, _Algorithm(lambda reward, _: leave_one_out(reward), True))


def language_ppo(worded: Worded, config: TuningConfig = TuningConfig()) -> Learner:
    """PPO with a value head (Ouyang et al. 2022, arXiv 2203.02155): an advantage is what was earned
    above what the value head expects; the divergence from the start is taken off the reward.

    Raises:
        InputError: as :func:`grpo`.
    """

    return _tune(worded, config, _Algorithm(jnp.subtract, True, config.value_width))


TUNERS = {
    "grpo": Kind(grpo, TuningConfig, TuningHyperparams),
    "rloo": Kind(rloo, TuningConfig, TuningHyperparams),
    "language_ppo": Kind(language_ppo, TuningConfig, TuningHyperparams),
}


def _tune(worded: Worded, config: TuningConfig, algorithm: _Algorithm) -> Learner:
    task, model = worded
    texts = len(task.texts)
    if config.prompts > texts:
        raise InputError(
            f"config.prompts is {config.prompts}, but there are {texts} different prompts, one for "
            "each user and request; draw at most so many."
        )
    scored = scored_texts(
        task, model, adapt=config.adapt, lora_rank=config.lora_rank,
        value_width=algorithm.value_width, scoring=config.scoring,
    )  # fmt: skip

    def read(trained: PyTree, text: jax.Array, weights: PyTree) -> tuple[jax.Array, jax.Array]:
        """-> log-probabilities of the answers [B, A], values [B]."""
        loaded = weights if config.adapt == "lora" else ()
        scores, value = scored.read(trained, text, loaded)
        return jax.nn.log_softmax(jnp.where(task.legal[text], scores, ILLEGAL)), value

    def init(key: Key, hyperparams: TuningHyperparams, params: TuningParams) -> TuningState:
        key, key_init = jax.random.split(typed_key(key))
        trained, _ = scored.init(key_init, params.weights)
        log_policy, value = read(trained, jnp.arange(texts), params.weights)
        return TuningState(
            key=key,
            params=trained,
            optimizer=adam(1.0, 1.0).init(trained),
            log_policy=log_policy,
            value=value,
            start=log_policy,
            iteration=jnp.int32(0),
            hyperparams=core.traced(hyperparams),
        )

    def step(state: TuningState, params: TuningParams) -> tuple[TuningState, dict[str, jax.Array]]:
        hyper, table = state.hyperparams, params.table
        key, key_text, key_answer, key_reward = jax.random.split(state.key, 4)
        text = jax.random.permutation(key_text, texts)[: config.prompts]
        drawn = config.prompts, config.group
        answer = jax.random.categorical(key_answer, state.log_policy[text][:, None], shape=drawn)
        user, request = (x[:, None] for x in jnp.divmod(text, table.qoe.shape[1]))
        reward = table.drawn((user, request, answer), jax.random.uniform(key_reward, drawn))

        def of_answers(log_policy: jax.Array) -> jax.Array:
            return jnp.take_along_axis(log_policy, answer, -1)

        old, start = of_answers(state.log_policy[text]), of_answers(state.start[text])
        paid = reward - hyper.kl * (old - start) if algorithm.kl_in_reward else reward
        advantage = algorithm.advantage(paid, state.value[text][:, None])

        def loss(trained: PyTree) -> tuple[jax.Array, jax.Array]:
            log_policy, value = read(trained, text, params.weights)
            log_prob = of_answers(log_policy)
            total = clipped_loss(log_prob, old, advantage, hyper.clip).mean()
            if not algorithm.kl_in_reward:
                total += hyper.kl * kl_estimate(log_prob, start).mean()
            if algorithm.value_width is not None:
                errors = (value[:, None] - paid) ** 2
                total += hyper.value_coefficient * 0.5 * errors.mean()
            return total, (jnp.abs(jnp.exp(log_prob - old) - 1) > hyper.clip).mean()

        rate = hyper.learning_rate * remaining(hyper, state.iteration)
        optimizer = adam(hyper.max_grad_norm, rate)

        def update(carry: tuple[PyTree, Any], _: None) -> tuple[tuple[PyTree, Any], jax.Array]:
            trained, opt_state = carry
            grads, clipped = jax.grad(loss, has_aux=True)(trained)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(trained, updates), opt_state), clipped

        (trained, opt_state), clipped = jax.lax.scan(
            update, (state.params, state.optimizer), None, config.updates
        )
        log_policy, value = read(trained, jnp.arange(texts), params.weights)
        metrics = {
            "episode_return": expected_return(jnp.exp(log_policy), table),
            "kl": kl_to(state.start, log_policy).mean(),
            "entropy": -jnp.where(task.legal, jnp.exp(log_policy) * log_policy, 0).sum(-1).mean(),
            "reward": reward.mean(),
            "kl_estimate": kl_estimate(old, start).mean(),
            "clip_fraction": clipped.mean(),
        }
        state = replace(
            state, key=key, params=trained, optimizer=opt_state, log_policy=log_policy,
            value=value, iteration=state.iteration + 1,
        )  # fmt: skip
        return state, metrics

    def policy(state: TuningState) -> Policy:
        def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
            return jnp.argmax(state.log_policy[seen.observation[0].astype(jnp.int32)]), carry

        return Policy((), act)

    return Learner(init, step, policy, config.prompts * config.group)


def expected_return(policy: jax.Array, table: EnvParams) -> jax.Array:
    """The objective of Eq. (2), a round's QoE summed over users, of a policy [K x R, A]; exact."""
    users, _, _ = table.mean.shape
    earned = (policy.reshape(table.mean.shape) * table.mean).sum(-1)  # [K, R]
    return earned.mean() * users
