"""Language models in JAX: scoring of candidate texts, low-rank adapters, loading without torch.

model = load_model("smollm2")   # or a Hugging Face folder, a .gguf file, a name on the hub
prompts, candidates = model.prompts(texts), model.candidates(["turn left", "turn right"])
scores = model.score(model.params, prompts, candidates)   # [prompts, candidates]
log_policy = jax.nn.log_softmax(scores.candidates)
"""

from rlli_jax.language.base import LanguageModel
from rlli_jax.language.loading import load_model
from rlli_jax.language.lora import init_lora, merge_lora
from rlli_jax.language.products import ComputeDtype
from rlli_jax.language.scoring import Candidates, Prompts, Scores, Scoring
from rlli_jax.language.value_head import ValueHead

__all__ = [
    "Candidates",
    "ComputeDtype",
    "LanguageModel",
    "Prompts",
    "Scores",
    "Scoring",
    "ValueHead",
    "init_lora",
    "load_model",
    "merge_lora",
]
