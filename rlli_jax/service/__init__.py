"""A policy as a service: it selects a provider over HTTP, logs, and takes people's ratings back.

What is served is a :class:`ServedPolicy`, made elsewhere; this room knows no learner and no study.
"""

from rlli_jax.service.decisions import Decisions, open_decisions, read_decisions
from rlli_jax.service.exploration import Epsilon, Rule, Softmax, Thompson, parse_rule
from rlli_jax.service.selecting import Arm, ServedPolicy

__all__ = [
    "Arm",
    "Decisions",
    "Epsilon",
    "Rule",
    "ServedPolicy",
    "Softmax",
    "Thompson",
    "open_decisions",
    "parse_rule",
    "read_decisions",
]
