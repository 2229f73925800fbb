"""``python -m rlli_jax.cli``."""

from rlli_jax.cli import main

main()
