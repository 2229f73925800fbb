"""Feedback of real people: logs, the value of policies by a log, and whether personalising pays.

A :class:`Log` says what was offered to whom, what was chosen with which probability, and how it
was liked. :func:`value_policies` values policies that never served anybody;
:func:`interaction_test` and :func:`gain_of_personalising` say whether choosing by persona is
worth it at all.
"""

from rlli_jax.feedback.evaluation import Estimate, Valued, baselines, value_policies
from rlli_jax.feedback.log import Log, log_from_frame
from rlli_jax.feedback.personal import Gain, Interaction, gain_of_personalising, interaction_test
from rlli_jax.feedback.reward_model import cross_fitted

__all__ = [
    "Estimate",
    "Gain",
    "Interaction",
    "Log",
    "Valued",
    "baselines",
    "cross_fitted",
    "gain_of_personalising",
    "interaction_test",
    "log_from_frame",
    "value_policies",
]
