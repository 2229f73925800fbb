"""Files of studies of a planner above a low level."""

from rlli_jax.run_files import Array, Record, dims
from rlli_jax.run_files.policies import Evaluation, Summary


class Author(Record):
    """Who made a plan."""

    model: str = ""
    """Of a language model: its name."""
    stand_in: bool = False
    """Whether that takes a trained model's place."""
    asked: int = 0
    """Situations that a model was asked about."""
    unanswered: int = 0
    """Of these, how many it named no goal in; there any is taken."""


class MadePlan(Author):
    """``plans/<name>.json``: what a model that was asked named."""

    plan: list[list[float]]
    """[situations, options], probabilities."""


class PlannerSummary(Summary, Author):
    """Of a planner, or of a flat policy."""

    low_steps: int = 0
    """Environment steps in which its low level learned, of one seed; 0 for a flat policy."""


class PlannerEvaluation(Evaluation):
    """Of a planner, or of a flat policy; further numbers [seeds, episodes] by their names."""

    objective: dims("seeds")  # type: ignore[valid-type]
    """Success rate, or mean return."""
    plan: Array | None = None
    """[seeds, situations, options], probabilities; None for a flat policy."""


class PlannerReferences(Record):
    """``references.json``: what there is to plan, and how well the low level follows."""

    situations: list[str]
    options: list[str]
    prompt: str
    """What a language model goes on with in the first situation."""
    question: str
    """What a judge is asked there."""
    oracle: list[list[int]]
    """Number of the option in each situation, of each seed."""
    estimated: bool
    """Whether that is the best plan of an estimated process, or the right one."""
    low_iterations: int
    low_steps: int
    """Of one seed."""
    low_seconds: float
    """Of all seeds together."""
    low_return: list[float]
    """Mean return of its goals in the last tenth of training, of each seed."""
