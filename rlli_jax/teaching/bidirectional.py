"""Bi-directional feedback between a language model and a reinforcement learner, compiled.

Algorithm 1 of Gu, "Mutual Enhancement of Large Language and Reinforcement Learning Models through
Bi-Directional Feedback Mechanisms: A Case Study" (2024). A teacher M(x | s) says a token x about
the situation s, a student P(a | x, s) acts, the TD error estimates the student's advantage, and the
teacher hears whether its token was better or worse than the last one. The paper leaves open how the
teacher hears it and what "the last one" is; every reading here is one choice of ``Method``.

The texts are finite, so the teacher is a table that the compiled loop looks up. Whatever the
feedback asks of log M(x | s) adds up in a table of the same shape, and one backward pass through
the language model turns that into a gradient of its weights.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field

from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.core import Key, PyTree
from rlli_jax.learners.ppo import PPOHyperparams, advantages
from rlli_jax.teaching.objective import (
    Samples,
    adam,
    check_single_choice,
    distribution,
    ppo_loss,
    shuffle,
)
from rlli_jax.teaching.t5 import init_lora, merge_lora
from rlli_jax.teaching.tasks import Task
from rlli_jax.teaching.teachers import NEGATIVE, NO_REMARK, POSITIVE, Teacher

Positive = Annotated[int, Field(gt=0)]
Feedback = Literal["nothing", "prompt", "policy_gradient", "pairs"]
Comparison = Literal["previous", "same_state"]
Verdicts = Literal["true", "random", "shuffled"]
Signal = Literal["sign", "difference"]
Adapt = Literal["full", "lora"]


@dataclass(frozen=True)
class Method:
    """One reading of the algorithm, or one of its controls."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    teacher: bool = True  # False: the student alone
    # How the teacher hears of it. nothing: not at all. prompt: a sentence before its next prompt.
    # policy_gradient: a step on log M(x | s), weighted by the signal. pairs: a logistic loss on
    # the difference of log M between the token and the one it is compared with.
    feedback: Feedback = "policy_gradient"
    # The last token: of the step before (the paper), or the last one said about the same text.
    comparison: Comparison = "previous"
    # Controls: a coin instead of the verdict, or the verdict that another environment earned.
    verdicts: Verdicts = "true"
    signal: Signal = "sign"  # of policy_gradient: better or worse, or by how much
    adapt: Adapt = "full"  # all weights of the teacher, or LoRA on q and v

    @property
    def learns(self) -> bool:
        """Whether the teacher's weights change."""
        return self.teacher and self.feedback in ("policy_gradient", "pairs")


@dataclass(frozen=True)
class TeachingConfig:
    """What decides shapes."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    num_envs: Positive = 32
    num_steps: Positive = 8  # an iteration is num_envs x num_steps steps and one student update
    num_minibatches: Positive = 1
    num_epochs: Positive = 4
    lora_rank: Positive = 4

    def __post_init__(self) -> None:
        batch = self.num_envs * self.num_steps
        if batch % self.num_minibatches:
            raise InputError(
                f"num_envs x num_steps = {batch} does not divide into num_minibatches = "
                f"{self.num_minibatches}; choose numbers that do."
            )


@struct.dataclass
class TeachingHyperparams:
    """What a sweep may vary within one compilation; every field is traced."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    student: PPOHyperparams = PPOHyperparams(
        learning_rate=2e-2, anneal=0.0, gae_lambda=0.95, entropy_coefficient=1e-3
    )
    # Logit by which the student prefers, at first, the action it is advised; 0 is a student that
    # does not know what the advice means.
    trust: Annotated[float, Field(ge=0)] = 2.0
    teacher_learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    teacher_max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    # Pull of the teacher towards saying each advice equally often: keeps it trying others.
    teacher_entropy: Annotated[float, Field(ge=0)] = 0.01


class _Choices(NamedTuple):
    """A ``Method`` as traced switches, so that all readings share one compilation."""

    same_state: jax.Array  # bool
    random: jax.Array  # bool
    shuffled: jax.Array  # bool
    difference: jax.Array  # bool
    pairs: jax.Array  # bool

    @staticmethod
    def of(method: Method) -> "_Choices":
        return _Choices(
            jnp.asarray(method.comparison == "same_state"),
            jnp.asarray(method.verdicts == "random"),
            jnp.asarray(method.verdicts == "shuffled"),
            jnp.asarray(method.signal == "difference"),
            jnp.asarray(method.feedback == "pairs"),
        )


class Said(NamedTuple):
    """A token that was said, and the advantage it led to."""

    advantage: jax.Array  # float32
    text: jax.Array  # int32
    advice: jax.Array  # int32


class TeachingState(struct.PyTreeNode):
    """All that a run needs to go on."""

    key: Key  # []
    student: dict[str, jax.Array]  # see ``student_scores``
    optimizer: optax.OptState
    base: PyTree  # the teacher's weights at the start
    adapted: PyTree  # its weights now, or its LoRA; None if it does not learn
    table: jax.Array | None  # log M for good, [T or 3 * T, A], of a teacher that does not learn
    teacher_optimizer: optax.OptState
    envs: core.Envs
    remark: jax.Array  # [N] int32, what the teacher hears next
    last: Said  # [N], of the step before
    in_text: Said  # [T], the last one said about each text
    heard: jax.Array  # [T, 2] int32, how often its token about a text was worse, better
    choices: _Choices
    hyperparams: TeachingHyperparams


def init_student(texts: int, actions: int, trust: float | jax.Array) -> dict[str, jax.Array]:
    """The student before it has learned anything; values 0, uniform but for its trust."""
    return {
        "text": jnp.zeros((texts, actions)),
        "advice": trust * jnp.eye(actions),
        "pair": jnp.zeros((texts, actions, actions)),
        "value": jnp.zeros(texts),
    }


def student_scores(student: dict[str, jax.Array], text: jax.Array, advice: jax.Array) -> jax.Array:
    """log P(a | x, s) up to a constant, [..., A]: log-linear in the text, the advice and both.

    The advice's own weights are how it learns to follow (or not) anywhere what a teacher says, the
    pair's where to make an exception. It does not know what the texts or the advice mean.
    """
    return student["text"][text] + student["advice"][advice] + student["pair"][text, advice]


class Round(NamedTuple):
    """What a round of iterations is about."""

    episode_return: jax.Array  # float32, NaN if no episode ended
    followed: jax.Array  # share of steps in which the student did what it was advised
    positive: jax.Array  # share of verdicts that were positive
    value: dict[str, jax.Array]  # exact, of the student at the end and the teacher it had


class Teaching(NamedTuple):
    """Pure functions of one training; vmap them over states."""

    init: Any  # key, teacher params, method choices, hyperparams, env_params -> state
    round: Any  # state, env_params -> state, Round
    examine: Any  # state -> exact metrics of the teacher by itself


def teaching(
    task: Task,
    teacher: Teacher,
    method: Method,
    config: TeachingConfig = TeachingConfig(),
    *,
    iterations: int = 1,
) -> Teaching:
    """The loop for one task. A round is ``iterations`` of the student, then one of the teacher.

    Only whether and how the teacher's weights change is compiled in; every other choice of the
    method is traced (``init``), so methods that agree in ``learns``, ``adapt``, ``teacher`` and in
    whether the feedback is a prompt share one compilation.

    Raises:
        InputError: the actions are not one choice a step with one phrase each.
    """
    check_single_choice(task.env, task.env_params, task.advice)
    env, num_texts, num_advice = task.env, len(task.texts), len(task.advice)
    num_envs = config.num_envs
    remarks = method.teacher and method.feedback == "prompt"
    lora = method.adapt == "lora"

    def init(
        key: Key,
        params: PyTree,
        method: Method,
        hyperparams: TeachingHyperparams,
        env_params: PyTree,
    ) -> TeachingState:
        key, key_lora, key_reset = jax.random.split(key, 3)
        student = init_student(num_texts, num_advice, hyperparams.trust * method.teacher)
        adapted = None
        if method.learns:
            adapted = init_lora(key_lora, params, rank=config.lora_rank) if lora else params
        nothing = jnp.int32(0)
        said = Said(jnp.float32(0), nothing, nothing)
        return TeachingState(
            key=key,
            student=student,
            optimizer=adam(1.0, 1.0).init(student),
            base=params,
            adapted=adapted,
            table=teacher.table(params, remarks=remarks)
            if method.teacher and not method.learns
            else None,
            teacher_optimizer=adam(1.0, 1.0).init(adapted),
            envs=core.reset(env, key_reset, env_params, num_envs),
            remark=jnp.full(num_envs, NO_REMARK),
            last=jax.tree.map(lambda x: jnp.full(num_envs, x), said),
            in_text=jax.tree.map(lambda x: jnp.full(num_texts, x), said),
            heard=jnp.zeros((num_texts, 2), jnp.int32),
            choices=_Choices.of(method),
            hyperparams=jax.tree.map(jnp.asarray, hyperparams),
        )

    def weights(state: TeachingState, adapted: PyTree) -> PyTree:
        if adapted is None:
            return state.base
        return merge_lora(state.base, adapted) if lora else adapted

    def collect(state: TeachingState, table: jax.Array, env_params: PyTree, key: Key) -> Any:
        """Act for ``num_steps``; what happened, and what it asks of log M, [rows of table, A]."""
        student, choices, gamma = state.student, state.choices, state.hyperparams.student.gamma

        def act(carry: Any, key: Key) -> Any:
            envs, remark, last, in_text = carry
            key_advice, key_act, key_step, key_coin = jax.random.split(key, 4)
            text = envs.observation
            row = remark * num_texts + text if remarks else text
            advice = jnp.zeros(num_envs, jnp.int32)
            if method.teacher:
                advice = jax.random.categorical(key_advice, table[row])
            seen = core.view(env, envs, env_params)
            policy = distribution(student_scores(student, text, advice), seen.legal)
            action, log_prob = policy.sample_and_log_prob(seed=key_act)
            envs, step, ended = core.step(env, key_step, envs, seen, action, env_params)
            # Line 5: the TD error estimates the advantage.
            next_text = step.next_observation[:, 0].astype(jnp.int32)
            value = student["value"][text]
            next_value = student["value"][next_text]
            now = Said(step.reward + gamma * next_value * ~step.terminated - value, text, advice)
            # Lines 6 to 10: better or worse than the last one?
            known = jax.tree.map(lambda x: x[text], in_text)
            rival = jax.tree.map(lambda a, b: jnp.where(choices.same_state, a, b), known, last)
            gain = now.advantage - rival.advantage
            better = gain >= 0
            coin = jax.random.bernoulli(key_coin, shape=(num_envs,))
            gain = jnp.where(choices.shuffled, jnp.roll(gain, 1), gain)
            better = jnp.where(choices.shuffled, jnp.roll(better, 1), better)
            better = jnp.where(choices.random, coin, better)
            gain = jnp.where(choices.random, jnp.where(coin, 1, -1) * jnp.abs(gain), gain)
            verdict = jnp.where(better, 1.0, -1.0)
            # What the verdict asks of log M: of this token, and of the one it is compared with.
            margin = table[row, advice] - table[rival.text, rival.advice]
            pull = jnp.where(choices.difference, gain, verdict)
            pull = jnp.where(choices.pairs, verdict * jax.nn.sigmoid(-verdict * margin), pull)
            wish = (row, advice, pull, rival.text, rival.advice, -pull * choices.pairs)
            remark = jnp.where(better, POSITIVE, NEGATIVE)
            in_text = jax.tree.map(lambda memory, x: memory.at[text].set(x), in_text, now)
            followed = (action == advice).mean() if method.teacher else jnp.nan
            record = (step, text, advice, log_prob, value, next_value, ended)
            return (envs, remark, now, in_text), (record, wish, followed, better)

        carry = (state.envs, state.remark, state.last, state.in_text)
        carry, out = jax.lax.scan(act, carry, jax.random.split(key, config.num_steps))
        return carry, out

    def improve(state: TeachingState, record: Any, key: Key) -> tuple[PyTree, optax.OptState]:
        """One PPO update of the student."""
        hyper = state.hyperparams.student
        step, text, advice, log_prob, value, next_value, _ = record
        advantage = advantages(
            step.reward, value, next_value, step.terminated, step.done,
            hyper.gamma, hyper.gae_lambda,
        )  # fmt: skip
        samples = Samples(
            text, advice, step.legal, step.action, log_prob, value, advantage, advantage + value
        )
        optimizer = adam(hyper.max_grad_norm, hyper.learning_rate)

        def loss(student: PyTree, samples: Samples) -> Any:
            scores = student_scores(student, samples.text, samples.advice)
            value = student["value"][samples.text]
            return ppo_loss(scores, value, samples, hyper, normalize_advantage=True)

        def minibatch(carry: Any, samples: Samples) -> Any:
            student, opt_state = carry
            grads, _ = jax.grad(loss, has_aux=True)(student, samples)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(student, updates), opt_state), None

        def epoch(carry: Any, key: Key) -> Any:
            return jax.lax.scan(minibatch, carry, shuffle(key, samples, config.num_minibatches))

        start = (state.student, state.optimizer)
        return jax.lax.scan(epoch, start, jax.random.split(key, config.num_epochs))[0]

    def iterate(
        state: TeachingState, table: jax.Array, env_params: PyTree
    ) -> tuple[TeachingState, Any]:
        key, key_collect, key_update = jax.random.split(state.key, 3)
        carry, (record, wish, followed, better) = collect(state, table, env_params, key_collect)
        student, optimizer = improve(state, record, key_update)
        envs, remark, last, in_text = carry
        state = state.replace(
            key=key, student=student, optimizer=optimizer,
            envs=envs, remark=remark, last=last, in_text=in_text,
            heard=state.heard.at[record[1], better.astype(jnp.int32)].add(1),
        )  # fmt: skip
        ended = jax.tree.map(jnp.sum, record[-1])
        return state, (wish, ended, followed.mean(), better.mean())

    def round_(state: TeachingState, env_params: PyTree) -> tuple[TeachingState, Round]:
        def tabulate(adapted: PyTree) -> jax.Array:
            return teacher.table(weights(state, adapted), remarks=remarks)

        def iterations_of(state: TeachingState, table: jax.Array) -> Any:
            def body(carry: Any, _: None) -> Any:
                state, asked = carry
                state, (wish, *rest) = iterate(state, table, env_params)
                if method.learns:
                    row, advice, pull, other_row, other_advice, push = wish
                    asked = asked.at[row, advice].add(pull).at[other_row, other_advice].add(push)
                return (state, asked), rest

            return jax.lax.scan(body, (state, jnp.zeros_like(table)), None, iterations)

        if not method.learns:
            table: Any = state.table
            silence = jnp.zeros((num_texts, num_advice))
            (state, _), out = iterations_of(state, silence if table is None else table)
        else:
            table, pull_back = jax.vjp(tabulate, state.adapted)
            (state, asked), out = iterations_of(state, table)
            hyper = state.hyperparams
            asked = asked / (iterations * num_envs * config.num_steps)
            spread = jax.grad(
                lambda t: -(jnp.exp(t) * t * task.acted_on[:, None]).sum() / task.acted_on.sum()
            )
            asked = asked + hyper.teacher_entropy * spread(table)
            (grads,) = pull_back(-asked)
            optimizer = adam(hyper.teacher_max_grad_norm, hyper.teacher_learning_rate)
            updates, opt_state = optimizer.update(grads, state.teacher_optimizer)
            adapted = optax.apply_updates(state.adapted, updates)
            state = state.replace(adapted=adapted, teacher_optimizer=opt_state)
        ended, followed, positive = out
        ended = jax.tree.map(jnp.sum, ended)
        policy = together(state.student, None if table is None else table[:num_texts])
        return state, Round(
            ended.metrics()["episode_return"],
            followed.mean(),
            positive.mean(),
            task.value(policy),
        )

    def together(student: PyTree, table: jax.Array | None) -> jax.Array:
        """The policy [T, A] of teacher, hearing no remark, and student."""
        texts, advices = jnp.arange(num_texts)[:, None], jnp.arange(num_advice)[None]
        acts = distribution(student_scores(student, texts, advices), task.legal[:, None]).probs
        return acts[:, 0] if table is None else (jnp.exp(table)[..., None] * acts).sum(1)

    def examine(state: TeachingState) -> dict[str, jax.Array]:
        """The teacher by itself, hearing no remark.

        ``advice`` [T, A]: how likely it says each; ``accuracy``: the expert's probability of its
        likeliest advice, mean over the texts acted on; ``return`` and so on: exact, of obeying it.
        """
        table = teacher.table(weights(state, state.adapted))
        right = task.expert[jnp.arange(num_texts), table.argmax(1)]
        obeyed = task.value(distribution(table, task.legal).probs)
        return obeyed | {
            "advice": jnp.exp(table),
            "accuracy": (right * task.acted_on).sum() / task.acted_on.sum(),
        }

    return Teaching(init, round_, examine)
