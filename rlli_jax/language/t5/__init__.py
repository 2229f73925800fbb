"""T5 in JAX: load a Hugging Face folder, score candidate texts, adapt by LoRA; torch is not needed.

model = load_t5("google/flan-t5-small")
prompts, candidates = model.prompts(texts), model.candidates(["turn left", "turn right"])
scores = score(model.config, model.params, prompts, candidates)   # [prompts, candidates]
log_policy = jax.nn.log_softmax(scores.candidates)
"""

from rlli_jax.language.t5.language_model import LanguageModel, load_t5
from rlli_jax.language.t5.lora import init_lora, merge_lora
from rlli_jax.language.t5.model import T5, T5Config, ValueHead
from rlli_jax.language.t5.scoring import (
    Candidates,
    Prompts,
    Scores,
    Scoring,
    encode_candidates,
    encode_prompts,
    score,
)
from rlli_jax.language.t5.tiny import tiny_t5, word_tokenizer

__all__ = [
    "T5",
    "Candidates",
    "LanguageModel",
    "Prompts",
    "Scores",
    "Scoring",
    "T5Config",
    "ValueHead",
    "encode_candidates",
    "encode_prompts",
    "init_lora",
    "load_t5",
    "merge_lora",
    "score",
    "tiny_t5",
    "word_tokenizer",
]
