"""Reports: figures and one self-contained HTML page of a run directory. Knows no JAX."""

from rlli_jax.report.data import SelectionRun, load_run

__all__ = ["SelectionRun", "load_run"]
