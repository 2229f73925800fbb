"""Providers measured: denoising steps against latency, and energy where a counter can be read.

What is measured becomes a fleet of the edge market, in place of AGOD's constants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.generation.diffusers import DiffusersProvider
from rlli_jax.generation.meters import energy


@dataclass(frozen=True)
class Profile:
    """What pictures of one provider took."""

    name: str
    steps: np.ndarray  # [S] int
    seconds: np.ndarray  # [S, repeats] float
    joules: np.ndarray | None  # [S, repeats] float, of the whole processor; None: no counter

    def median(self) -> np.ndarray:
        """Seconds by steps, [S]."""
        return np.asarray(np.median(self.seconds, 1))


@dataclass(frozen=True)
class Measured:
    """Providers as the edge market takes them."""

    runtime: tuple[float, float, float]
    """(a, b, c): a task of t steps runs a t^2 + b t + c seconds, on average over providers."""
    pace: np.ndarray
    """[L] float, factors of that runtime."""
    error: float
    """The most by which runtime x pace misses a median, as a part of it."""
    watts: float | None
    """Mean power of the processor while it made pictures."""


def measure(
    provider: DiffusersProvider,
    prompt: str,
    steps: Sequence[int],
    repeats: int = 3,
    counter: Callable[[], float | None] | None = None,
) -> Profile:
    """Make pictures of so many steps, one after another, ``repeats`` times each.

    The first picture, with which things are loaded and compiled, does not count. Nothing is kept.

    Args:
        provider: its shared steps do not matter here.
        prompt: of all pictures.
        steps: S numbers of denoising steps.
        repeats: of each.
        counter: joules that were used so far, or None; the machine's own
            (:func:`rlli_jax.generation.meters.energy`) if not given.

    Raises:
        InputError: the model cannot be loaded.
    """
    counter = counter or energy
    provider.denoise(prompt, min(steps))
    seconds, joules = np.zeros((2, len(steps), repeats))
    for j in range(repeats):  # in turn, so that what else the machine does falls on all alike
        for i, count in enumerate(steps):
            before, started = counter(), time.monotonic()
            provider.denoise(prompt, count)
            seconds[i, j] = time.monotonic() - started
            after = counter()
            joules[i, j] = np.nan if before is None or after is None else after - before
    known = None if np.isnan(joules).any() or (joules < 0).any() else joules  # counters run over
    return Profile(provider.name, np.asarray(steps), seconds, known)


def fitted(profiles: Sequence[Profile], clock: float = 1.0) -> Measured:
    """The market's runtime and the providers' paces that fit medians best.

    The runtime is the least-squares line through the mean over providers; a provider's pace is the
    mean over steps of its median over that line.

    Args:
        profiles: L, at the same steps.
        clock: seconds of the market for one that was measured; its clock knows whole seconds only.
    """
    steps = profiles[0].steps
    medians = clock * np.stack([profile.median() for profile in profiles])  # [L, S]
    slope, level = np.polyfit(steps, medians.mean(0), 1)
    line = slope * steps + level
    if line.min() <= 0 or line[-1] < 1.01 * line[0]:
        raise InputError(
            "measure-providers: more steps did not take longer; measure steps that are further "
            "apart, or more repeats."
        )
    pace = (medians / line).mean(1)
    error = float(np.abs(pace[:, None] * line / medians - 1).max())
    used = [p.joules.sum() for p in profiles if p.joules is not None]
    lasted = sum(p.seconds.sum() for p in profiles if p.joules is not None)
    watts = float(sum(used) / lasted) if used else None
    return Measured((0.0, float(slope), float(level)), pace, error, watts)


def fleet_of(measured: Measured, most_steps: int) -> dict[str, Any]:
    """The arguments of a :class:`rlli_jax.envs.edge_market.Fleet`.

    A provider runs one picture of ``most_steps`` at a time, as it was measured. Every picture has
    the utility 1: what more steps are worth is the judge's to say, not this measurement's.
    """
    count = len(measured.pace)
    return {
        "capacity": np.full(count, most_steps),
        "utility": np.tile([0.0, 0.0, 1.0, 1.0], (count, 1)),
        "pace": measured.pace,
    }
