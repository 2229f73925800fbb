"""Tiny models with random weights and words of their own, one of each architecture."""

from collections.abc import Sequence
from typing import Literal

import jax

from rlli_jax.language.base import LanguageModel
from rlli_jax.language.llama.tiny import tiny_llama
from rlli_jax.language.t5.tiny import tiny_t5

Kind = Literal["t5", "llama"]
TINY = {"t5": "T5", "llama": "Llama"}  # what reports call them


def tiny_model(
    kind: Kind, key: jax.Array, texts: Sequence[str], *, width: int, heads: int
) -> LanguageModel:
    """A tiny model of one layer whose vocabulary is the words of the texts."""
    if kind == "t5":
        return tiny_t5(key, texts, d_model=width, num_heads=heads)
    return tiny_llama(key, texts, width=width, num_heads=heads)
