"""The report of a run: figures for a paper and one self-contained HTML page. Knows no JAX."""

from rlli_jax.report.data import Run, load_run
from rlli_jax.report.page import render

__all__ = ["Run", "load_run", "render"]
