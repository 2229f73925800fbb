"""A language model as a policy over a task's texts: scores of the actions, a value, what adapts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.language import (
    Candidates,
    LanguageModel,
    Prompts,
    Scoring,
    ValueHead,
    init_lora,
    merge_lora,
)
from rlli_jax.teaching.distinct import group_size, over_distinct
from rlli_jax.teaching.methods import Adapt
from rlli_jax.teaching.tasks import TextTask


class ScoredTexts(NamedTuple):
    """Pure functions of a model's weights; T texts, A actions."""

    init: Callable[[Key, PyTree], tuple[PyTree, PyTree]]
    """key, the model's weights -> what is trained, {"model", "value"} (no head: ()), and
    what of the weights is not: all of them where a LoRA adapts them, else (). Runs of one model
    share the second."""
    read: Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, jax.Array]]
    """what is trained, numbers of texts [B], what is not -> scores [B, A] and values [B]; each
    distinct text is read once, in groups sized to the memory."""


def tokens(task: TextTask, model: LanguageModel) -> tuple[Prompts, Candidates]:
    """A task's texts and actions, as the model reads them.

    Raises:
        InputError: a text is longer than the model takes, or an action has no tokens for it.
    """
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    return prompts, model.candidates(task.advice)


def scored_texts(
    task: TextTask,
    model: LanguageModel,
    *,
    adapt: Adapt,
    lora_rank: int,
    value_width: int | None,
    scoring: Scoring = "log_probability",
) -> ScoredTexts:
    """A language model that chooses one of the task's actions after each of its texts.

    ``value_width``: units of the value head; None: there is none, and values are 0.

    Raises:
        InputError: a text is longer than the model takes, or an action has no tokens for it.
    """
    prompts, candidates = tokens(task, model)
    head = None if value_width is None else ValueHead(value_width)

    def init(key: Key, weights: PyTree) -> tuple[PyTree, PyTree]:
        value = () if head is None else head.init(key, jnp.zeros(model.width))
        if adapt == "full":
            return {"model": weights, "value": value}, ()
        lora = init_lora(jax.random.fold_in(key, 1), weights, rank=lora_rank)
        return {"model": lora, "value": value}, weights

    def read(params: PyTree, texts: jax.Array, loaded: PyTree) -> tuple[jax.Array, jax.Array]:
        weights = merge_lora(loaded, params["model"]) if adapt == "lora" else params["model"]
        scores = model.score(weights, prompts.take(texts), candidates, scoring)
        if head is None:
            return scores.candidates, jnp.zeros(len(texts))
        return scores.candidates, head.apply(params["value"], scores.hidden)

    group = group_size(model.text_bytes(prompts, candidates))
    return ScoredTexts(init, over_distinct(read, len(task.texts), group))
