"""Reports: figures and one self-contained HTML page of a run directory. Knows no JAX."""

from rlli_jax.report.data import Run, load_run

__all__ = ["Run", "load_run"]
