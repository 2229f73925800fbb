"""How a teacher learns from the feedback of a round: gradient steps on its table of advice."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from rlli_jax.envs.contract import Key, PyTree, typed_key
from rlli_jax.language import init_lora, merge_lora
from rlli_jax.learners import core
from rlli_jax.learners.optimizer import adam
from rlli_jax.teaching.bidirectional import FeedbackSum
from rlli_jax.teaching.distinct import over_distinct
from rlli_jax.teaching.methods import DEFAULTS, Adapt, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.objective import distribution, draw
from rlli_jax.teaching.tasks import TextTask
from rlli_jax.teaching.teachers import Teacher


class TeacherState(struct.PyTreeNode):
    """All that a teacher needs to go on."""

    key: Key  # []
    adapted: PyTree  # its weights now, or its LoRA
    optimizer: optax.OptState
    # log M(x | s) at the temperature, [3 T, A], see ``advice_table``. Only the first T, of no
    # remark, are kept up to date: whoever learns hears of its advice otherwise.
    table: jax.Array
    hyperparams: TeachingHyperparams


def teacher_loss(
    new: jax.Array, old: jax.Array, asked: jax.Array, kl: float | jax.Array
) -> jax.Array:
    """-(what is asked of log M) + kl KL(old || new), mean over texts.

    new, old: log M now and before the round, [B, A]; asked [B, A]. At new = old its gradient is
    that of the policy gradient; the divergence keeps further steps near.
    """
    divergence = (jnp.exp(old) * (old - new)).sum(1)
    return (kl * divergence - (asked * new).sum(1)).mean()


class TeacherUpdate(NamedTuple):
    """Pure functions of a teacher's training; vmap or map them over states."""

    # key, the language model's params, what it says (``advice_table``), hyperparams -> TeacherState
    init: Any
    # state, the params of ``init``, FeedbackSum -> state; what is asked is done. The params are
    # what a LoRA adapts: no part of the state, so that teachers of one model share them.
    run: Any


def _log_m(scores: jax.Array, hyperparams: TeachingHyperparams) -> jax.Array:
    return jax.nn.log_softmax(scores / hyperparams.temperature)


def advice_table(teacher: Teacher, params: PyTree, hyperparams: TeachingHyperparams) -> jax.Array:
    """All that a teacher may say, log M(x | s) after each remark, [3 T, A]."""
    count = len(teacher.remarked.ids)
    read = over_distinct(partial(teacher.scores, remarked=True), count, teacher.group())
    return _log_m(read(params, jnp.arange(count)), hyperparams)


def teacher_update(
    task: TextTask,
    teacher: Teacher,
    config: TeachingConfig = DEFAULTS,
    *,
    adapt: Adapt = "full",
) -> TeacherUpdate:
    """The side of a teacher that learns; ``adapt``: how its weights change."""
    num_texts = len(task.texts)

    def scores(adapted: PyTree, texts: jax.Array, params: PyTree) -> jax.Array:
        weights = merge_lora(params, adapted) if adapt == "lora" else adapted
        return teacher.scores(weights, texts)

    read = over_distinct(scores, num_texts, teacher.group())
    read_some = over_distinct(scores, num_texts, teacher.group(config.teacher_texts))

    def init(
        key: Key, params: PyTree, table: jax.Array, hyperparams: TeachingHyperparams
    ) -> TeacherState:
        key, key_lora = jax.random.split(typed_key(key))
        lora = adapt == "lora"
        adapted = init_lora(key_lora, params, rank=config.lora_rank) if lora else params
        return TeacherState(
            key=key,
            adapted=adapted,
            optimizer=adam(1.0, 1.0, eps=1e-5).init(adapted),
            table=table,
            hyperparams=core.traced(hyperparams),
        )

    def run(state: TeacherState, params: PyTree, asked: FeedbackSum) -> TeacherState:
        """A few gradient steps of the teacher towards what was asked of it."""
        hyper, old, wish = state.hyperparams, state.table, asked.of_visit()
        optimizer = adam(hyper.teacher_max_grad_norm, hyper.teacher_learning_rate, eps=1e-5)
        key, key_texts = jax.random.split(state.key)

        def loss(adapted: PyTree, text: jax.Array) -> jax.Array:
            new = _log_m(read_some(adapted, text, params), hyper)
            return teacher_loss(new, old[text], wish[text], hyper.teacher_kl)

        def descend(carry: Any, key: Key) -> Any:
            adapted, opt_state = carry
            text = draw(asked.visits, jax.random.uniform(key, (config.teacher_texts,)))
            grads = jax.grad(loss)(adapted, text)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(adapted, updates), opt_state), None

        start = (state.adapted, state.optimizer)
        keys = jax.random.split(key_texts, config.teacher_steps)
        adapted, opt_state = jax.lax.scan(descend, start, keys)[0]
        said = _log_m(read(adapted, jnp.arange(num_texts), params), hyper)
        table = old.at[:num_texts].set(said)
        return state.replace(key=key, adapted=adapted, optimizer=opt_state, table=table)

    return TeacherUpdate(init, run)


def evaluate_teacher(task: TextTask, table: jax.Array) -> dict[str, jax.Array]:
    """A teacher by itself, hearing no remark; ``table`` as in ``TeacherState``.

    ``advice`` [T, A]: how likely it says each; ``accuracy``: the expert's probability of its
    likeliest advice, mean over the texts acted on; ``return`` and so on: exact, of obeying it.
    """
    table = table[: len(task.texts)]
    right = task.expert[jnp.arange(len(task.texts)), table.argmax(1)]
    obeyed = task.value(distribution(table, task.legal).probs)
    return obeyed | {
        "advice": jnp.exp(table),
        "accuracy": (right * task.acted_on).sum() / task.acted_on.sum(),
    }
