"""What a run directory says of the answers in its table; see :mod:`rlli_jax.run_files`."""

from rlli_jax.run_files import Record


class ScaleRecord(Record):
    """How much of the scale one user's ratings use, as QoE in [0, 1]."""

    mean: float
    low: float
    """5th percentile."""
    high: float
    """95th percentile."""
    entropy: float
    """Of ten equal bins, over its maximum."""


class ReliabilityFile(Record):
    """``reliability.json``: how far the answers can be trusted, as they were given; None where
    there is nothing to measure. See :class:`rlli_jax.qoe.reliability.Reliability`."""

    ratings: int
    """Answers that are ratings."""
    missing: int
    """Questions about a picture that have no rating."""
    imputed: int
    """How many of those the table fills with a provider's mean."""
    valid_mass: float
    """Mean probability that ratings put on the scale's labels."""
    repeat_sd: float | None
    """Standard deviation between the repeats of a cell."""
    repeats: tuple[float | None, float | None]
    """ICC(1) and ICC(1,k) of the repeats of a cell."""
    agreement: float | None
    """Mean correlation between two different users."""
    users: tuple[float | None, float | None]
    """ICC(1) and ICC(1,k) of the users' means of a picture."""
    variance: dict[str, float]
    """Share of each effect, and of the residual, in the variance of an answer."""
    scale_use: dict[str, ScaleRecord]
    """Of each user."""


class AskingFile(Record):
    """``asking.json``, with ``judge.ask``: what was asked, and what is believed of the rest; QoE in
    [0, 1]. See :class:`rlli_jax.oracle.asking_less.Asked`."""

    strategy: str
    """By which questions were chosen: random, variance or decision."""
    choice: str
    """What they are to decide: a provider for each user, user and request, or request."""
    cells: int
    """That could be asked."""
    asked: int
    rated: int
    """Of those asked."""
    stopped: str
    """Why no more were asked."""
    expected_regret: float
    """QoE that choices by what is believed are expected to lose."""
    checks: int
    """Random questions that the model had not seen."""
    covered: int
    """Of their answers, those in the model's 90 % interval."""
    coverage_interval: tuple[float, float] | None
    """95 %, of that share; None without a check."""
    noise_sd: float
    """Of the judge."""
    mean_sd: float
    """Of what is believed of a cell, mean over the cells."""
