"""Reinforcement learning with language-model interaction, at accelerator speed.

Ask the language model everything first; then learn at accelerator speed. See
``docs/architecture.md`` for the rooms of this package and what may import what.
"""

import os

__version__ = "0.1.0"

# On a CPU, XLA's programs wait inside their pool of threads for work that needs threads of the
# same pool: with as few threads as a small machine has cores, a training can wait for itself
# forever. XLA reads these when JAX first asks for devices (NPROC in older versions of JAX).
for _name in ("PJRT_NPROC", "NPROC"):
    os.environ.setdefault(_name, str(max(8, 4 * (os.cpu_count() or 1))))
