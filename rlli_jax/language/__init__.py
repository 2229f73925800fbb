"""Language models in JAX: scoring of candidate texts, low-rank adapters, loading without torch."""
