"""Files of studies in which a language model is tuned by reward."""

from rlli_jax.run_files import Record, dims
from rlli_jax.run_files.policies import Evaluation, Summary


class TunedSummary(Summary):
    """Of a policy in a study of a tuned language model."""

    observation: tuple[str, ...]
    """("text",) of the language model."""
    adapt: str | None = None
    """What of the model is trained: "lora" or "full"; None for a policy on numbers."""


class TunedEvaluation(Evaluation):
    """Of the likeliest choices; returns [seeds, 1] are exact."""

    choices: dims("seeds users requests")  # type: ignore[valid-type]
    """Number of the provider chosen."""


class TuningReferences(Record):
    """``references.json``: exact values, each the objective of Eq. (2), a round's QoE summed over
    users."""

    model: str
    """Name of the language model."""
    parameters: int
    """How many it has."""
    prompts: int
    """One for each user and request."""
    optimum_per_request: float
    """The best provider for each user and request: what no policy exceeds."""
    optimum: float
    """The best provider for each user."""
    best_single: float
    best_single_provider: str
    random: float
    untuned: float
    """The language model as it begins, drawing its answers."""
