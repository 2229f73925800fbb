"""A T5 with its tokenizer, from the tensors of a Hugging Face folder and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.language.base import LanguageModel
from rlli_jax.language.files import (
    fill_params,
    make_config,
    named_tensors,
    tensor_name,
    tokenise,
)
from rlli_jax.language.products import ComputeDtype
from rlli_jax.language.scoring import (
    Candidates,
    Prompts,
    encode_candidates,
    encode_prompts,
)
from rlli_jax.language.t5.model import T5Config, draw_params, init_params

_SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"


@dataclass(frozen=True, eq=False)
class T5Model(LanguageModel):
    """An encoder reads the prompt, a decoder the candidates."""

    config: T5Config

    def prompts(self, texts: Sequence[str]) -> Prompts:
        most = min(self.config.n_positions, self.tokenizer.model_max_length)
        return encode_prompts(texts, tokenise(self.tokenizer, texts) if texts else [], most)

    def candidates(self, texts: Sequence[str]) -> Candidates:
        return encode_candidates(
            texts,
            tokenise(self.tokenizer, texts) if texts else [],
            start=self.config.decoder_start_token_id,
            unknown=self.tokenizer.unk_token_id,
        )

    def draw_params(self, key: Any) -> dict:
        return draw_params(key, self.config)

    def folder(self) -> tuple[dict[str, Any], dict[str, Any]]:
        config = asdict(self.config)
        config["tie_word_embeddings"] = config.pop("tie_head")
        del config["compute_dtype"]  # how it is used, not what it is
        config |= {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
        config |= {"pad_token_id": self.tokenizer.pad_token_id}
        config |= {"eos_token_id": self.tokenizer.eos_token_id, "is_encoder_decoder": True}
        return config, named_tensors(self.params, tensor_name)


def read_t5_config(given: Mapping[str, Any], source: Path) -> T5Config:
    """From what ``config.json`` holds. Raises InputError for a T5 that is not known here."""
    # num_decoder_layers: as many as in the encoder. Scaling: T5 v1.1 is told by its untied head.
    given = {"num_decoder_layers": given.get("num_layers", T5Config.num_layers)} | dict(given)
    given.setdefault("scale_decoder_outputs", given.get("tie_word_embeddings", True))
    given.setdefault("decoder_start_token_id", given.get("pad_token_id", 0))
    config = make_config(T5Config, given, source)
    if config.feed_forward_proj not in ("relu", "gated-gelu"):
        raise InputError(
            f"{source}: feed_forward_proj is {config.feed_forward_proj!r}; only 'relu' and "
            "'gated-gelu' are known, so give another T5."
        )
    return config


def t5_from_tensors(
    name: str, config: T5Config, tensors: dict[str, Any], tokenizer: Any, dtype: ComputeDtype,
    source: Path,
) -> T5Model:  # fmt: skip
    """A T5 from the tensors of its folder. Raises InputError where they do not fit."""
    for alias in _SHARED:
        if alias in tensors:
            tensors.setdefault("shared.weight", tensors[alias])
    # No head, or a copy of the embedding: transformers' own rule, whatever the config says.
    head, shared = tensors.get(_HEAD), tensors.get("shared.weight")
    tied = head is None or (shared is not None and np.array_equal(head, shared))
    config = replace(config, tie_head=tied, compute_dtype=dtype)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    return T5Model(name, config, fill_params(expected, tensors, tensor_name, source), tokenizer)
