"""Teachers: what a language model is asked, and a tiny one with partial knowledge.

Where no trained weights are at hand, ``stand_in_teachers`` trains a tiny model, from random
weights, to give the expert's advice for a random part of the texts. It is a real language model
and knows only part of the task, but it is no substitute for one that has read the world:
everything that shows its results must say so.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlli_jax.errors import InputError
from rlli_jax.language import Candidates, LanguageModel, Prompts
from rlli_jax.language.tiny import TINY, Kind, tiny_model
from rlli_jax.teaching.distinct import group_size
from rlli_jax.teaching.quick import over_seeds, quick_jit
from rlli_jax.teaching.tasks import TextTask

# What a teacher hears before its next advice; by number. Algorithm 1, lines 7 and 9.
REMARKS = (
    "",
    "Your advice was better than the last one.\n",
    "Your advice was worse than the last one.\n",
)
NO_REMARK, POSITIVE, NEGATIVE = range(3)


class Teacher(NamedTuple):
    """What a teacher is asked: all texts after no remark, and after every remark.

    ``model``: its weights are the default ones; the loop takes weights as an argument.
    """

    model: LanguageModel
    prompts: Prompts  # [T, S]
    remarked: Prompts  # [3 * T, S'], in the order of REMARKS
    candidates: Candidates  # A

    def scores(self, params: Any, texts: jax.Array, *, remarked: bool = False) -> jax.Array:
        """Scores of each advice about some texts, [len(texts), A].

        ``texts``: their numbers, or with ``remarked`` remark x T + text.
        """
        prompts = (self.remarked if remarked else self.prompts).take(texts)
        return self.model.score(params, prompts, self.candidates).candidates

    def group(self, most: int | None = None) -> int:
        """Texts that are read together, see ``group_size``."""
        return group_size(self.model.text_bytes(self.remarked, self.candidates), most)


def teacher(task: TextTask, model: LanguageModel) -> Teacher:
    """A language model as a teacher of a task.

    Raises:
        InputError: a text is longer than the model takes, or an advice has no tokens for it.
    """
    return Teacher(
        model,
        model.prompts([task.prompt(text) for text in task.texts]),
        model.prompts([task.prompt(text, remark) for remark in REMARKS for text in task.texts]),
        model.candidates(task.advice),
    )


class StandIns(NamedTuple):
    """Teachers of one shape, one a seed: tiny ones, or one loaded model for all seeds."""

    teacher: Teacher
    params: Any  # leaves [seeds, ...]; of a loaded model without the axis, one copy for all
    own: bool  # whether each seed has weights of its own
    taught: jax.Array  # bool [seeds, T], the texts whose advice each has been taught


def stand_in_teachers(
    keys: jax.Array,
    task: TextTask,
    ability: float,
    *,
    kind: Kind = "t5",
    d_model: int = 16,
    steps: int = 100,
    batch: int = 64,
    learning_rate: float = 1e-2,
) -> StandIns:
    """Train one tiny model a key on the expert's advice for a random part of the texts.

    Remarks are shown in training, and the advice does not depend on them: the stand-in knows the
    words of the feedback but has not been told what to make of them.

    Args:
        keys: typed keys [seeds].
        kind: of model.
        ability: the part of the texts acted on that is taught, 0 to 1; 0 leaves random weights.

    Raises:
        InputError: ``ability`` is not in [0, 1].
    """
    if not 0 <= ability <= 1:
        raise InputError(f"ability is {ability}; it is a part of the texts, from 0 to 1.")
    words = [task.prompt(text, remark) for remark in REMARKS for text in task.texts]
    model = tiny_model(
        kind, jax.random.key(0), [*words, *task.advice], width=d_model, heads=max(1, d_model // 16)
    )
    what = f"a {TINY[kind]} taught the expert's advice for {ability:.0%} of the texts"
    asked = teacher(task, model.named(f"tiny stand-in teacher ({what})"))
    acted_on = jnp.flatnonzero(task.acted_on)
    count = round(ability * len(acted_on))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
    )

    key_model, key_known, key_train = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T
    drawn = [model.draw_params(key) for key in key_model]

    def train(params: Any, keys: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        key_known, key_train = keys
        known = jax.random.permutation(key_known, acted_on)[:count]
        taught = jnp.zeros(len(task.texts), bool).at[known].set(True)
        if not count:
            return params, taught

        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            key_text, key_remark = jax.random.split(key)
            text = jax.random.choice(key_text, known, (batch,))
            remark = jax.random.randint(key_remark, (batch,), 0, len(REMARKS))

            def loss(params: Any) -> jax.Array:
                prompts = asked.remarked.take(remark * len(task.texts) + text)
                scores = model.score(params, prompts, asked.candidates).candidates
                return -(task.expert[text] * jax.nn.log_softmax(scores)).sum(1).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = (params, optimizer.init(params))
        return jax.lax.scan(step, carry, jax.random.split(key_train, steps))[0][0], taught

    params, taught = quick_jit(over_seeds(train, own=True, tiny=True))(
        jax.tree.map(lambda *x: jnp.stack(x), *drawn), (key_known, key_train)
    )
    return StandIns(asked, params, True, taught)
