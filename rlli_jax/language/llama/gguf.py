"""A decoder-only model in a GGUF file, llama.cpp's format: its weights, made whole again.

The packages ``gguf`` (weights) and ``transformers`` with torch (tokenizer) read it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.errors import InputError, why
from rlli_jax.language.files import make_config, read_tokenizer
from rlli_jax.language.llama.language_model import LlamaModel, llama_from_tensors
from rlli_jax.language.llama.model import LlamaConfig
from rlli_jax.language.products import ComputeDtype

# What stands in one layer, and outside of them: llama.cpp's names, Hugging Face's.
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def require_file(path: Path) -> None:
    """Raise InputError if there is no such file."""
    if not path.is_file():
        raise InputError(f"Model file {path} does not exist; give a .gguf file.")


def load_gguf(path: Path, *, name: str, compute_dtype: ComputeDtype = "float32") -> LlamaModel:
    """Load the model of a GGUF file; quantised weights become float32.

    Raises:
        InputError: there is no such file, it is damaged, or its architecture is not known here; a
            package that reads it is missing.
    """
    require_file(path)
    try:
        import gguf
        import torch  # noqa: F401  transformers reads the file's tokenizer with it
    except ImportError as error:
        raise InputError(
            f"{path} is a GGUF file, for which the package {error.name} is missing; "
            "pip install 'rlli_jax[smollm]'."
        ) from error
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} is damaged ({why(error)}); fetch it again.") from error
    facts = {key: field.contents() for key, field in reader.fields.items()}
    config = _config(facts, path)
    tensors = {}
    for tensor in reader.tensors:
        named = _name(tensor.name)
        if named is None:
            continue
        whole = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        # llama.cpp turns neighbouring numbers of a head, (2 i, 2 i + 1), where Hugging Face turns
        # (i, i + d / 2); Llama's queries and keys are stored in its order.
        if facts["general.architecture"] == "llama" and named.endswith(
            ("q_proj.weight", "k_proj.weight")
        ):
            whole = _halves(whole, config.head_dim)
        tensors[named] = whole
    tokenizer = read_tokenizer(path.parent, config.vocab_size, gguf_file=path.name)
    return llama_from_tensors(name, config, tensors, tokenizer, compute_dtype, path)


def _config(facts: Mapping[str, Any], path: Path) -> LlamaConfig:
    kind = facts.get("general.architecture")
    if kind not in ("llama", "qwen2"):  # Mistral calls itself llama
        raise InputError(
            f"{path} holds a model of the architecture {kind!r}; known in this format are llama "
            "and qwen2."
        )

    def fact(key: str, otherwise: Any = None) -> Any:
        value = facts.get(f"{kind}.{key}", otherwise)
        if value is None:
            raise InputError(f"{path} does not tell its {kind}.{key}; fetch it again.")
        return value

    heads, width = fact("attention.head_count"), fact("embedding_length")
    if "rope_freqs.weight" in facts or fact("rope.scaling.type", "none") != "none":
        raise InputError(
            f"{path}: scaled rotary positions are not read from GGUF files; give the model's "
            "Hugging Face folder."
        )
    given = {
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": fact("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fact("attention.head_count_kv", heads),
        "head_dim": fact("attention.key_length", width // heads),
        "rms_norm_eps": fact("attention.layer_norm_rms_epsilon"),
        "rope_theta": fact("rope.freq_base", 10_000.0),
        "qkv_bias": kind == "qwen2",
        "max_position_embeddings": fact("context_length"),
    }
    return make_config(LlamaConfig, given, path)


def _name(gguf_name: str) -> str | None:
    """Hugging Face's name of a tensor; None of one that is not a weight of the model."""
    *place, what, kind = gguf_name.split(".")
    if place and place[0] == "blk":
        return f"model.layers.{place[1]}.{_LAYER[what]}.{kind}" if what in _LAYER else None
    return f"{_OUTSIDE[what]}.{kind}" if what in _OUTSIDE else None


def _halves(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows [heads x d, in] (or a bias) from neighbouring pairs to halves."""
    pairs = weight.reshape(-1, head_dim // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)
