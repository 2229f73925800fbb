"""Bi-directional feedback between a language model and a reinforcement learner, compiled.

Algorithm 1 of Gu, "Mutual Enhancement of Large Language and Reinforcement Learning Models through
Bi-Directional Feedback Mechanisms: A Case Study" (2024). A teacher M(x | s) says a token x about
the situation s, a student P(a | x, s) acts, the TD error estimates the student's advantage, and the
teacher hears whether its token was better or worse than the last one. The paper leaves open how the
teacher hears it and what "the last one" is; every reading here is one choice of ``Method``.

The texts are finite, so the teacher is a table that the compiled loop looks up: the student's side,
which is here. Whatever the feedback asks of log M(x | s) adds up in a table of the same shape, and
after a round of iterations a few gradient steps on that table improve the language model's weights:
the teacher's side, :mod:`rlli_jax.teaching.teacher_update`. They meet in these tables only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from rlli_jax.envs.contract import Key, PyTree, typed_key
from rlli_jax.errors import InputError
from rlli_jax.learners import core
from rlli_jax.learners.optimizer import adam
from rlli_jax.learners.ppo import advantages
from rlli_jax.teaching.methods import DEFAULTS, Choices, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.objective import (
    Samples,
    check_single_choice,
    distribution,
    draw,
    score_loss,
    shuffle,
)
from rlli_jax.teaching.tasks import TextTask
from rlli_jax.teaching.teachers import NEGATIVE, NO_REMARK, POSITIVE


class Utterance(NamedTuple):
    """A token that a verdict is about, and the advantage it led to."""

    advantage: jax.Array  # float32
    text: jax.Array  # int32
    advice: jax.Array  # int32


class StudentState(struct.PyTreeNode):
    """All that a student needs to go on."""

    key: Key  # []
    params: dict[str, jax.Array]  # see ``student_scores``
    optimizer: optax.OptState
    envs: core.Envs
    remark: jax.Array  # [N] int32, what the teacher hears next
    last: Utterance  # [N], of the step before
    in_text: Utterance  # [T], the last one about each text
    heard: jax.Array  # [T, 2] int32, how often the verdict about a text was worse, better
    choices: Choices
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


def remember(memory: Utterance, now: Utterance) -> Utterance:
    """The memory [T] of the last token about each text, after what N environments said at once.

    Of several about the same text the last environment's is kept, whole and on every backend:
    which of equal indices a scatter writes last is defined on none.
    """
    environment = jnp.arange(now.text.shape[0], dtype=jnp.int32)
    last = jnp.full_like(memory.text, -1).at[now.text].max(environment)
    return jax.tree.map(lambda old, new: jnp.where(last < 0, old, new[last]), memory, now)


class FeedbackSum(NamedTuple):
    """What the feedback of a round asks of the teacher, summed over its steps."""

    log: jax.Array  # [T, A] float32, of log M(x | s)
    times: jax.Array  # [T, A] float32, how often a verdict was about each token
    squares: jax.Array  # [] float32, of what the verdicts ask
    standardise: jax.Array  # [] bool; False for constant verdicts, which have no spread

    @staticmethod
    def nothing(texts: int, advice: int, *, standardise: bool | jax.Array = True) -> "FeedbackSum":
        zeros = jnp.zeros((texts, advice), jnp.float32)
        return FeedbackSum(zeros, zeros, jnp.float32(0), jnp.asarray(standardise))

    @property
    def visits(self) -> jax.Array:
        """How often each text was met, [T]."""
        return self.times.sum(1)

    def of_visit(self) -> jax.Array:
        """Mean over each text's visits, [T, A], of the verdicts less their mean, over their spread.

        As PPO standardises advantages: what all verdicts of a round have in common tells no token
        from another. While the critic still expects too little, most are positive.
        """
        total = jnp.maximum(self.times.sum(), 1)
        mean = self.log.sum() / total
        spread = jnp.sqrt(jnp.maximum(self.squares / total - mean**2, 0)) + 1e-4
        mean = jnp.where(self.standardise, mean, 0.0)
        spread = jnp.where(self.standardise, spread, 1.0)
        return (self.log - mean * self.times) / (spread * jnp.maximum(self.visits, 1)[:, None])


class Round(NamedTuple):
    """What a round of iterations is about."""

    episode_return: jax.Array  # float32, NaN if no episode ended
    followed: jax.Array  # share of steps in which the student did what it was advised
    positive: jax.Array  # share of verdicts that were positive
    value: dict[str, jax.Array]  # exact, of the student at the end and the teacher it had


class StudentLoop(NamedTuple):
    """Pure functions of a student's training; vmap or map them over states."""

    init: Any  # key, choices, hyperparams, env_params -> StudentState
    run: Any  # state, the teacher's table, env_params, iterations -> state, FeedbackSum, Round
    together: Any  # state, the teacher's table -> policy [T, A] of both


def student_loop(task: TextTask, config: TeachingConfig = DEFAULTS) -> StudentLoop:
    """The student's loop for one task, with a teacher that is a table.

    Every choice of a method is traced, as is the number of iterations, so all methods share one
    compilation.

    Raises:
        InputError: the actions are not one choice a step with one phrase each; JAX's 64-bit mode
            is on.
    """
    if jax.dtypes.canonicalize_dtype(float) == jnp.float64:
        raise InputError(
            "teaching computes in 32 bits, but JAX's 64-bit mode is on; unset JAX_ENABLE_X64 or "
            "jax_enable_x64."
        )
    check_single_choice(task.env, task.env_params, task.advice)
    env, num_texts, num_advice = task.env, len(task.texts), len(task.advice)
    num_envs = config.num_envs

    def init(
        key: Key, choices: Choices, hyperparams: TeachingHyperparams, env_params: PyTree
    ) -> StudentState:
        key, key_reset = jax.random.split(typed_key(key))
        params = init_student(num_texts, num_advice, hyperparams.trust * choices.teacher)
        said = Utterance(jnp.float32(0), jnp.int32(0), jnp.int32(0))
        return StudentState(
            key=key,
            params=params,
            optimizer=adam(1.0, 1.0, eps=1e-5).init(params),
            envs=core.reset(env, key_reset, env_params, num_envs),
            remark=jnp.full(num_envs, NO_REMARK),
            last=jax.tree.map(lambda x: jnp.full(num_envs, x), said),
            in_text=jax.tree.map(lambda x: jnp.full(num_texts, x), said),
            heard=jnp.zeros((num_texts, 2), jnp.int32),
            choices=choices,
            hyperparams=core.traced(hyperparams),
        )

    def judge(choices: Choices, gain: jax.Array, coin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lines 6 to 10: better or worse, and by how much; or what a control makes of it.

        gain: how much more the advantage is than the one it is compared with, [..., N].
        """
        gain = jnp.where(choices.shuffled, jnp.roll(gain, 1, -1), gain)
        gain = jnp.where(choices.random, jnp.where(coin, 1, -1) * jnp.abs(gain), gain)
        gain = jnp.where(choices.constant, 1, gain)
        return jnp.where(choices.random, coin, gain >= 0), gain  # a tie is better

    def collect(state: StudentState, table: jax.Array, env_params: PyTree, key: Key) -> Any:
        """Act for ``num_steps``: what the loop carries on, and what happened."""
        student, choices, gamma = state.params, state.choices, state.hyperparams.student.gamma

        # Drawn for all steps at once: many numbers take hardly longer than a few.
        shape = (config.num_steps, num_envs)
        key_advice, key_act, key_step, key_coin = jax.random.split(key, 4)
        chance = (
            jax.random.uniform(key_advice, shape),
            jax.random.uniform(key_act, shape),
            jax.random.split(key_step, config.num_steps),
            jax.random.bernoulli(key_coin, shape=shape),
        )

        def act(carry: Any, chance: Any) -> Any:
            envs, remark, last, in_text = carry
            chance_advice, chance_act, key_step, coin = chance
            text = envs.observation
            row = jnp.where(choices.prompt, remark * num_texts, 0) + text
            advice = draw(jnp.exp(table[row]), chance_advice)
            advice = jnp.where(choices.teacher, advice, 0)
            seen = core.view(env, envs, env_params)
            policy = distribution(student_scores(student, text, advice), seen.legal)
            action = draw(policy.probs, chance_act)
            log_prob = policy.log_prob(action)
            envs, step, ended = core.step(env, key_step, envs, seen, action, env_params)
            # Line 5: the TD error estimates the advantage.
            next_text = step.next_observation[:, 0].astype(jnp.int32)
            value = student["value"][text]
            next_value = student["value"][next_text]
            td_error = step.reward + gamma * next_value * ~step.terminated - value
            now = Utterance(td_error, text, jnp.where(choices.taken, action, advice))
            known = jax.tree.map(lambda x: x[text], in_text)
            rival = jax.tree.map(lambda a, b: jnp.where(choices.same_state, a, b), known, last)
            gain = td_error - jnp.where(choices.expected, 0, rival.advantage)
            remark = jnp.where(judge(choices, gain, coin)[0], POSITIVE, NEGATIVE)
            in_text = remember(in_text, now)
            record = (step, advice, log_prob, value, next_value, ended, now, rival, gain, coin)
            return (envs, remark, now, in_text), record

        carry = (state.envs, state.remark, state.last, state.in_text)
        return jax.lax.scan(act, carry, chance)

    def improve(state: StudentState, samples: Samples, key: Key) -> Any:
        """One PPO update of the student: its parameters and its optimizer's state."""
        hyper = state.hyperparams.student
        optimizer = adam(hyper.max_grad_norm, hyper.learning_rate, eps=1e-5)

        def loss(student: PyTree, samples: Samples) -> Any:
            scores = student_scores(student, samples.text, samples.advice)
            value = student["value"][samples.text]
            return score_loss(scores, value, samples, hyper, normalize_advantage=True)

        def minibatch(carry: Any, samples: Samples) -> Any:
            student, opt_state = carry
            grads, _ = jax.grad(loss, has_aux=True)(student, samples)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(student, updates), opt_state), None

        def epoch(carry: Any, key: Key) -> Any:
            return jax.lax.scan(minibatch, carry, shuffle(key, samples, config.num_minibatches))

        start = (state.params, state.optimizer)
        return jax.lax.scan(epoch, start, jax.random.split(key, config.num_epochs))[0]

    def ask(
        asked: FeedbackSum,
        choices: Choices,
        table: jax.Array,
        now: Utterance,
        rival: Utterance,
        verdict: Any,
    ) -> FeedbackSum:
        """Add what the verdicts [num_steps, N] ask of log M: of a token, and of its rival."""
        better, gain = verdict
        sign = jnp.where(better, 1.0, -1.0)
        margin = table[now.text, now.advice] - table[rival.text, rival.advice]
        pull = jnp.where(choices.difference, gain, sign)
        pull = jnp.where(choices.pairs, sign * jax.nn.sigmoid(-sign * margin), pull)
        log = asked.log.at[now.text, now.advice].add(pull)
        return asked._replace(
            log=log.at[rival.text, rival.advice].add(-pull * choices.pairs),
            times=asked.times.at[now.text, now.advice].add(1.0),
            squares=asked.squares + (pull**2).sum(),
        )

    def iterate(
        state: StudentState, asked: FeedbackSum, table: jax.Array, env_params: PyTree
    ) -> tuple[StudentState, FeedbackSum, Any]:
        hyper, choices = state.hyperparams.student, state.choices
        key, key_collect, key_update = jax.random.split(state.key, 3)
        (envs, remark, last, in_text), record = collect(state, table, env_params, key_collect)
        step, advice, log_prob, value, next_value, ended, now, rival, gain, coin = record
        advantage = advantages(
            step.reward, value, next_value, step.terminated, step.done,
            hyper.gamma, hyper.gae_lambda,
        )  # fmt: skip
        samples = Samples(
            now.text, advice, step.legal, step.action, log_prob, value, advantage,
            advantage + value,
        )  # fmt: skip
        params, optimizer = improve(state, samples, key_update)
        verdict = judge(choices, jnp.where(choices.gae, advantage, gain), coin)
        better = verdict[0]
        state = state.replace(
            key=key, params=params, optimizer=optimizer,
            envs=envs, remark=remark, last=last, in_text=in_text,
            heard=state.heard.at[now.text, better.astype(jnp.int32)].add(1),
        )  # fmt: skip
        followed = (step.action == advice).mean()
        asked = ask(asked, choices, table, now, rival, verdict)
        return state, asked, (jax.tree.map(jnp.sum, ended), followed, better.mean())

    def run(
        state: StudentState, table: jax.Array, env_params: PyTree, iterations: int | jax.Array
    ) -> tuple[StudentState, FeedbackSum, Round]:
        """Some iterations of the student with the teacher as it is."""

        def body(_: Any, carry: Any) -> Any:
            state, asked, total = carry
            state, asked, new = iterate(state, asked, table, env_params)
            return state, asked, jax.tree.map(jnp.add, total, new)

        total = (core.Episodes(jnp.float32(0), jnp.int32(0)), jnp.float32(0), jnp.float32(0))
        nothing = FeedbackSum.nothing(num_texts, num_advice, standardise=~state.choices.constant)
        start = (state, nothing, total)
        state, asked, (ended, followed, positive) = jax.lax.fori_loop(0, iterations, body, start)
        result = Round(
            ended.metrics()["episode_return"],
            jnp.where(state.choices.teacher, followed / iterations, jnp.nan),
            positive / iterations,
            task.value(together(state, table)),
        )
        return state, asked, result

    def together(state: StudentState, table: jax.Array) -> jax.Array:
        """The policy [T, A] of teacher, hearing no remark, and student."""
        texts, advices = jnp.arange(num_texts)[:, None], jnp.arange(num_advice)[None]
        scores = student_scores(state.params, texts, advices)
        acts = distribution(scores, task.legal[:, None]).probs  # [T, advice, A]
        advised = (jnp.exp(table[:num_texts])[..., None] * acts).sum(1)
        return jnp.where(state.choices.teacher, advised, acts[:, 0])

    return StudentLoop(init, run, together)
