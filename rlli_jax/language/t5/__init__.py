"""T5 in JAX (Raffel et al. 2020; v1.1 and Flan-T5 included)."""

from rlli_jax.language.base import score
from rlli_jax.language.t5.language_model import T5Model
from rlli_jax.language.t5.model import T5, T5Config
from rlli_jax.language.t5.tiny import tiny_t5

__all__ = ["T5", "T5Config", "T5Model", "score", "tiny_t5"]
