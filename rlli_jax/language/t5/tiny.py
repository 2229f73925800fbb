"""A tiny T5 with its own word-level tokenizer, for places where no trained weights are at hand.

Its weights are random: it knows nothing until it is trained, and must be named so wherever its
results show.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax

from rlli_jax.language.t5.language_model import LanguageModel
from rlli_jax.language.t5.model import T5Config, draw_params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 512


def word_tokenizer(texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    """One token per word or punctuation mark of the texts; T5's special ids (0 pad, 1 end, 2 unk).

    A word that the texts do not have becomes <unk>.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def tiny_t5(
    key: jax.Array,
    texts: Sequence[str],
    *,
    d_model: int = 32,
    num_heads: int = 4,
    num_layers: int = 1,
) -> LanguageModel:
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
    return LanguageModel("tiny T5 (random weights)", config, draw_params(key, config), tokenizer)
