"""A tiny Llama with its own word-level tokenizer, for places where no trained weights are at hand.

Its weights are random: it knows nothing until it is trained, and must be named so wherever its
results show.
"""

from collections.abc import Sequence

import jax

from rlli_jax.language.llama.language_model import LlamaModel
from rlli_jax.language.llama.model import LlamaConfig, draw_params
from rlli_jax.language.words import MAX_TOKENS, word_tokenizer


def tiny_llama(
    key: jax.Array,
    texts: Sequence[str],
    *,
    width: int = 32,
    num_heads: int = 4,
    num_layers: int = 1,
) -> LlamaModel:
    """A randomly initialised Llama whose vocabulary is the words of the texts, and ":".

    ``texts``: all that it will ever read or write: prompts, candidates, feedback.
    """
    tokenizer = word_tokenizer([":", *texts])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, num_heads // 2),
        head_dim=width // num_heads,
        max_position_embeddings=MAX_TOKENS,
    )
    return LlamaModel("tiny Llama (random weights)", config, draw_params(key, config), tokenizer)
