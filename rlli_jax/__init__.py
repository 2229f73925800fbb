"""Reinforcement learning with language-model interaction, at accelerator speed.

Ask the language model everything first; then learn at accelerator speed. See
``docs/architecture.md`` for the rooms of this package and what may import what.
"""

__version__ = "0.1.0"
