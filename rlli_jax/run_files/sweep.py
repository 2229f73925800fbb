"""Files of sweeps."""

from rlli_jax.run_files import Record


class PlannedGroup(Record):
    """Runs of a sweep that one compiled program serves."""

    learner: str
    varies: dict[str, str]
    """Swept keys that have one value in this group but several in the sweep."""
    chunk: int
    """Runs side by side on one device."""
    runs: list[tuple[int, str, int]]
    """Point, policy and seed."""


class SweepPlan(Record):
    """``plan.json`` of a sweep: what ran beside what, and in which chunk its result is."""

    runs: int
    groups: list[PlannedGroup]
