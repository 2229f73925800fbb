"""A decoder-only model with its tokenizer, from the tensors of a Hugging Face folder and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rlli_jax.errors import InputError
from rlli_jax.language.base import LanguageModel
from rlli_jax.language.files import (
    fill_params,
    make_config,
    named_tensors,
    tensor_name,
    tokenise,
)
from rlli_jax.language.llama.model import (
    LlamaConfig,
    LongContext,
    draw_params,
    init_params,
)
from rlli_jax.language.products import ComputeDtype
from rlli_jax.language.scoring import (
    Candidates,
    Prompts,
    encode_candidates,
    encode_prompts,
)

ARCHITECTURES = ("llama", "mistral", "qwen2")
HEAD = "lm_head.weight"
_LAYERS = "layers"


@dataclass(frozen=True, eq=False)
class LlamaModel(LanguageModel):
    """One decoder reads the prompt and goes on with the candidates."""

    config: LlamaConfig

    def prompts(self, texts: Sequence[str]) -> Prompts:
        rows = tokenise(self.tokenizer, texts) if texts else []
        beginning = self._beginning()
        rows = [[*beginning, *row] if row else row for row in rows]
        most = min(self.config.max_position_embeddings, self.tokenizer.model_max_length)
        return encode_prompts(texts, rows, most)

    def _beginning(self) -> list[int]:
        """What the tokenizer puts before every text: Llama's and Mistral's begin of a sequence."""
        bos = self.tokenizer.bos_token_id
        begun = self.tokenizer("a", verbose=False)["input_ids"][:1]
        return begun if bos is not None and begun == [bos] else []

    def candidates(self, texts: Sequence[str]) -> Candidates:
        # As they are written after a prompt: with the space that byte-level tokenizers want to be
        # given, and that others put before every text by themselves.
        colon, *rows = tokenise(self.tokenizer, [":", *(f": {text}" for text in texts)])
        rows = [
            row[len(colon) :] if text.strip() else [] for text, row in zip(texts, rows, strict=True)
        ]
        return encode_candidates(texts, rows, unknown=self.tokenizer.unk_token_id)

    def draw_params(self, key: Any) -> dict:
        return draw_params(key, self.config)

    def folder(self) -> tuple[dict[str, Any], dict[str, Any]]:
        c = self.config
        kind, named = "llama", "Llama"
        if c.sliding_window:
            kind, named = "mistral", "Mistral"
        elif c.qkv_bias and not c.output_bias:
            kind, named = "qwen2", "Qwen2"
        config = asdict(c)
        for ours in ("compute_dtype", "qkv_bias", "output_bias", "long_context"):
            del config[ours]
        config |= {"attention_bias": c.output_bias, "hidden_act": "silu", "model_type": kind}
        config |= {"architectures": [f"{named}ForCausalLM"]}
        if c.long_context is not None:
            config |= {"rope_scaling": {"rope_type": "llama3", **asdict(c.long_context)}}
        for token in ("bos", "eos", "pad"):
            config[f"{token}_token_id"] = getattr(self.tokenizer, f"{token}_token_id")
        return config, named_tensors(self.params, partial(tensor_names, c.num_hidden_layers))


def tensor_names(layers: int, path: tuple[str, ...]) -> str | list[str]:
    """Of a parameter in a Hugging Face folder: one for each layer where it has that axis."""
    if path[0] == _LAYERS:
        return [f"model.{tensor_name((f'layers_{i}', *path[1:]))}" for i in range(layers)]
    name = tensor_name(path)
    return name if name == HEAD else f"model.{name}"


def read_llama_config(given: Mapping[str, Any], source: Path) -> LlamaConfig:
    """From what ``config.json`` holds.

    Raises:
        InputError: a number is missing or none; a kind of activation, of rotary positions or of
            attention that is not known here.
    """
    given = dict(given)
    kind = given["model_type"]
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads"):  # fmt: skip
        if name not in given:
            raise InputError(f"{source} has no {name}; fetch the model again.")
    if given.get("hidden_act", "silu") != "silu":
        raise InputError(
            f"{source}: hidden_act is {given['hidden_act']!r}; only 'silu' is known, so give "
            "another model."
        )
    given.setdefault("num_key_value_heads", given["num_attention_heads"])
    given.setdefault("head_dim", given["hidden_size"] // given["num_attention_heads"])
    # Qwen2 has these biases always and no key for them; Llama's key means all four.
    given["output_bias"] = kind != "qwen2" and bool(given.get("attention_bias", False))
    given["qkv_bias"] = kind == "qwen2" or given["output_bias"]
    # transformers 5 keeps all about rotary positions in one block, earlier ones in two keys.
    rope = {"rope_theta": given.get("rope_theta", 10_000.0)}
    rope |= given.get("rope_scaling") or {}
    rope |= given.get("rope_parameters") or {}
    given["rope_theta"] = rope["rope_theta"]
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type == "llama3":
        given["long_context"] = make_config(LongContext, rope, source)
    elif rope_type != "default":
        raise InputError(
            f"{source}: rotary positions of the type {rope_type!r}; only 'default' and 'llama3' "
            "are known, so give another model."
        )
    if kind != "mistral":  # Qwen2 has the key, whether it is used or not
        given.pop("sliding_window", None)
    if given.get("use_sliding_window", False):
        raise InputError(
            f"{source}: attention with a window in some layers only is not known, so give another "
            "model."
        )
    config = make_config(LlamaConfig, given, source)
    if config.num_attention_heads % max(config.num_key_value_heads, 1):
        raise InputError(
            f"{source}: {config.num_attention_heads} heads do not share "
            f"{config.num_key_value_heads} keys evenly; fetch the model again."
        )
    return config


def llama_from_tensors(
    name: str, config: LlamaConfig, tensors: Mapping[str, Any], tokenizer: Any,
    dtype: ComputeDtype, source: Path,
) -> LlamaModel:  # fmt: skip
    """A model from the tensors of its folder. Raises InputError where they do not fit."""
    # Weights without a head have a tied one; with one, the config tells.
    tied = config.tie_word_embeddings or HEAD not in tensors
    config = replace(config, tie_word_embeddings=tied, compute_dtype=dtype)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    names = partial(tensor_names, config.num_hidden_layers)
    return LlamaModel(name, config, fill_params(expected, tensors, names, source), tokenizer)
