"""The ``rlli`` command. What a command needs is imported when it runs: ``--help`` is instant."""

from rlli_jax.cli.app import main

__all__ = ["main"]
