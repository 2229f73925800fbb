"""Files of studies of preferences."""

import numpy as np

from rlli_jax.run_files import Arrays, Record, dims


class PreferenceReferences(Record):
    """``references.json``: mean QoE of a choice, every user and request weighing alike; exact."""

    users: int
    requests: int
    providers: int
    reference: float
    """Of the policy that is optimised away from."""
    optimum: float
    """The best provider for each user and request."""
    best_single: float
    best_single_provider: str
    random: float
    comparisons: int | None = None
    """How many the file of pairs has, or the judge answered; None for a simulated rater."""


class AskedPairs(Arrays):
    """``pairs.npz``: what the judge said of pairs, where it was asked; NaN is no answer."""

    place: dims("pairs")  # type: ignore[valid-type]
    """Number of the context and pair: (user x requests + request) x pairs of providers + pair."""
    shown_first: dims("pairs")  # type: ignore[valid-type]
    """Probability that the pair's first provider is preferred, where its picture is shown first."""
    shown_second: dims("pairs")  # type: ignore[valid-type]
    """The same, where it is shown second."""
    gap: dims("pairs")  # type: ignore[valid-type]
    """By how much QoE the first is better, by the table."""

    @property
    def answered(self) -> np.ndarray:
        """Which have an answer in both orders, bool [pairs]."""
        return np.isfinite(self.shown_first) & np.isfinite(self.shown_second)

    def comparisons(self) -> tuple[np.ndarray, np.ndarray]:
        """Place of each answered pair and how much of it the first won, the mean of both orders."""
        there = self.answered
        won = (self.shown_first[there] + self.shown_second[there]) / 2
        return self.place[there].astype(np.int32), won.astype(np.float32)


class PreferenceRuns(Arrays):
    """``runs.npz``: every run, and the points of each optimisation; kl in nats, the rest in QoE."""

    count: dims("runs")  # type: ignore[valid-type]
    """Pairs."""
    noise: dims("runs")  # type: ignore[valid-type]
    size: dims("runs")  # type: ignore[valid-type]
    """Number of the reward model's size in the config."""
    seed: dims("runs")  # type: ignore[valid-type]
    ties: dims("runs")  # type: ignore[valid-type]
    """Share of the comparisons."""
    gradient: dims("runs")  # type: ignore[valid-type]
    """Norm that was left when the reward model was fitted."""
    exact_kl: dims("runs points")  # type: ignore[valid-type]
    exact_gold: dims("runs points")  # type: ignore[valid-type]
    exact_proxy: dims("runs points")  # type: ignore[valid-type]
    ppo_kl: dims("runs iterations")  # type: ignore[valid-type]
    ppo_gold: dims("runs iterations")  # type: ignore[valid-type]
    ppo_proxy: dims("runs iterations")  # type: ignore[valid-type]
    dpo_kl: dims("runs iterations")  # type: ignore[valid-type]
    dpo_gold: dims("runs iterations")  # type: ignore[valid-type]
    dpo_proxy: dims("runs iterations")  # type: ignore[valid-type]
    seconds: dims("chunks")  # type: ignore[valid-type]
    """Of runs that were made together, without compilation."""
