"""Decoder-only models in JAX: Llama, SmolLM2, Mistral, Qwen2."""

from rlli_jax.language.llama.language_model import ARCHITECTURES, LlamaModel
from rlli_jax.language.llama.model import Llama, LlamaConfig
from rlli_jax.language.llama.tiny import tiny_llama

__all__ = ["ARCHITECTURES", "Llama", "LlamaConfig", "LlamaModel", "tiny_llama"]
