"""Judges: who rates a picture as a persona, and what an answer may be.

A judge is asked :class:`Question` s and gives one answer to each: :class:`Rated`,
:class:`Invalid` or :class:`Failed`, never a number in place of a missing answer. The judges
themselves are in modules of their own: :mod:`rlli_jax.judges.psychometric` and
:mod:`rlli_jax.judges.recorded` need no language model; :mod:`rlli_jax.judges.transformers`
runs one in this process, :mod:`rlli_jax.judges.openai` asks one behind a server, and
:mod:`rlli_jax.judges.batch_files` one behind a batch service.
"""

from rlli_jax.judges.base import (
    JSON,
    MAX_LABELS,
    SCALES,
    USUAL,
    Answer,
    Failed,
    Form,
    Invalid,
    Judge,
    JudgeIdentity,
    PaidJudge,
    Question,
    Rated,
    Scale,
    Usage,
    named_scale,
    scale_of,
)

__all__ = [
    "JSON",
    "MAX_LABELS",
    "SCALES",
    "USUAL",
    "Answer",
    "Failed",
    "Form",
    "Invalid",
    "Judge",
    "JudgeIdentity",
    "PaidJudge",
    "Question",
    "Rated",
    "Scale",
    "Usage",
    "named_scale",
    "scale_of",
]
