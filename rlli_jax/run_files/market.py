"""Files of studies of the edge market."""

from rlli_jax.run_files import Record, dims
from rlli_jax.run_files.policies import Evaluation, Summary


class MarketSummary(Summary):
    """Of a policy in a study of the edge market."""

    observation: tuple[str, ...]
    mask: bool
    reward: str
    """What it learned from: "paid", or "regret"."""


class MarketEvaluation(Evaluation):
    """Of a study of the edge market: sums over each episode of ``EdgeMarket.statistics``."""

    tasks: dims("seeds episodes")  # type: ignore[valid-type]
    finished: dims("seeds episodes")  # type: ignore[valid-type]
    crashed: dims("seeds episodes")  # type: ignore[valid-type]
    lost: dims("seeds episodes")  # type: ignore[valid-type]
    utility: dims("seeds episodes")  # type: ignore[valid-type]
    load: dims("seeds episodes ...")  # type: ignore[valid-type]
    """Denoising steps assigned to each provider."""


class MarketReferences(Record):
    """``references.json`` of the edge market."""

    split: str = "tuning"
    """Of the evaluation episodes: "test", or "tuning", on which settings are chosen; runs that do
    not say were judged by what are the tuning episodes now."""
    optimum: list[float] | None = None
    """Return of each episode under the offline optimum."""
    tasks: tuple[int, ...] = ()
    """Served in each episode."""
    tasks_per_episode: float | None = None
    """Expected."""
