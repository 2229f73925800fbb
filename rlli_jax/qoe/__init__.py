"""Quality of experience: the answers, the table they become, and how far it can be trusted.

:class:`QoETable` holds QoE of every user, request, provider and sample with a mask for what is
missing. :mod:`~rlli_jax.qoe.reliability` tells how much of it is noise and shrinks it,
:mod:`~rlli_jax.qoe.calibration` fits it to a few people's scores, and
:mod:`~rlli_jax.qoe.model` predicts what was not asked. NumPy and SciPy only.
"""

from rlli_jax.qoe.laying_down import OnMissing
from rlli_jax.qoe.table import QoETable, References

__all__ = ["OnMissing", "QoETable", "References"]
