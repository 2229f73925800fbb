"""Files of teaching studies."""

from collections.abc import Mapping

from pydantic import Field

from rlli_jax.run_files import Record


class TeachingTask(Record):
    """``task.json`` of a teaching study."""

    name: str
    texts: list[str]
    advice: list[str]
    teacher: str
    """Name of the language model."""
    stand_in: bool
    env_steps_per_iteration: dict[str, int]
    """Of each case."""
    expert: list[int]
    """The expert's advice for each text."""
    metric: str
    """By which a student is judged: "success" or "return"."""
    expert_value: dict[str, float]
    """What following the expert is worth, exactly."""
    references: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    """What chance and the best constant policy are worth, exactly, by name: ``accuracy`` (the
    expert's probability of what they do, mean over texts), ``return``, ``success``."""
