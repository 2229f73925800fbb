"""A tiny T5 with its own word-level tokenizer, for places where no trained weights are at hand.

Its weights are random: it knows nothing until it is trained, and must be named so wherever its
results show.
"""

from collections.abc import Sequence

import jax

from rlli_jax.language.t5.language_model import T5Model
from rlli_jax.language.t5.model import T5Config, draw_params
from rlli_jax.language.words import MAX_TOKENS, word_tokenizer


def tiny_t5(
    key: jax.Array,
    texts: Sequence[str],
    *,
    d_model: int = 32,
    num_heads: int = 4,
    num_layers: int = 1,
) -> T5Model:
    """A randomly initialised T5 (v1.1 shape) whose vocabulary is the words of the texts.

    ``texts``: all that it will ever read or write: prompts, candidates, feedback.
    """
    tokenizer = word_tokenizer(texts)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=d_model,
        d_kv=d_model // num_heads,
        d_ff=2 * d_model,
        num_layers=num_layers,
        num_decoder_layers=num_layers,
        num_heads=num_heads,
        feed_forward_proj="gated-gelu",
        tie_head=False,
        scale_decoder_outputs=False,
        n_positions=MAX_TOKENS,
    )
    return T5Model("tiny T5 (random weights)", config, draw_params(key, config), tokenizer)
