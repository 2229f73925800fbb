"""Files of studies of sessions."""

from rlli_jax.run_files import Record, dims
from rlli_jax.run_files.planner import Author
from rlli_jax.run_files.policies import Evaluation, Summary


class SessionSummary(Summary, Author):
    """Of a policy in a study of sessions."""

    observation: tuple[str, ...]
    remembered: int = 0
    """Of a language model: how many of the last turns it is told; 0 for others."""


class SessionEvaluation(Evaluation):
    """Of a study of sessions; returns are the sum of what was felt in a session."""

    felt: dims("seeds turns")  # type: ignore[valid-type]
    """Expected QoE in each turn."""


class SessionReferences(Record):
    """``references.json`` of sessions: what one is worth, with the people of evaluation."""

    turns: int
    people: tuple[int, int]
    """To learn from, and of evaluation."""
    random: float
    """Uniformly random choices, exact."""
    best_without_adapting: float
    """The best of all policies that ignore what is felt, exact."""
    known_person: float
    """The best that knows a person's row of the table, but no taste of the moment, exact."""
    hindsight: list[float]
    """Of sampled sessions whose person, requests and tastes are known: a bound on any policy."""
