"""Experiments: a config becomes a run directory."""
