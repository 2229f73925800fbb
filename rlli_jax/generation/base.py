"""What a provider of pictures is: settings that are part of every picture's key, and a way to make
pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

from rlli_jax.oracle.keys import canonical

SCHEMA = 1  # of the key; another meaning of any part needs another number


@dataclass(frozen=True)
class Made:
    """A picture."""

    content: bytes  # of a PNG, JPEG or WebP file
    seconds: float | None = None  # what it took; a group's shared part is divided among its members
    joules: float | None = None  # of the whole processor meanwhile; None: nobody knows
    cost: float | None = None
    steps: int | None = None  # denoising steps that were run for it alone
    shared_steps: int = 0  # and those that were run once for its group
    seconds_per_step: float | None = None  # of those that were run for it; if none, for its group


@dataclass(frozen=True)
class Refused:
    """The provider will never make a usable picture of this prompt: a hole, which is final."""

    reason: str
    cost: float | None = None


@dataclass(frozen=True)
class NotMade:
    """It did not work this time; the next run tries again."""

    reason: str
    hopeless: bool = False  # every other prompt would meet the same


Outcome = Made | Refused | NotMade


class Provider(Protocol):
    """Makes pictures."""

    name: str
    price: float | None
    """Of a picture; 0 for what runs on one's own machine, None if nobody knows."""

    def settings(self, prompt: str) -> Mapping[str, Any]:
        """All that can change the picture of a prompt, as JSON. Raises InputError."""

    def batches(self, prompts: Sequence[str]) -> list[list[str]]:
        """The prompts in parts that are claimed and made together."""

    def steps(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Denoising steps that making these takes, and how many more it would take if no prompts
        shared any; 0 where nobody knows."""

    def make(self, prompts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
        """Make pictures, each handed over as soon as it is there, in any order.

        Raises:
            InputError: nothing can be made at all.
        """


def key_of(settings: Mapping[str, Any]) -> bytes:
    """SHA-256 (32 bytes) of the canonical JSON of settings, which hold the prompt."""
    return hashlib.sha256(canonical({**settings, "schema": SCHEMA}).encode()).digest()


def in_parts(prompts: Sequence[str], size: int) -> list[list[str]]:
    """The prompts in lists of ``size``, the last of which may be shorter."""
    return [list(prompts[i : i + size]) for i in range(0, len(prompts), size)]


def in_parallel(
    make: Callable[[str], Outcome], prompts: Sequence[str], concurrency: int
) -> Iterator[tuple[str, Outcome]]:
    """Make pictures in so many threads; what has not begun when one is hopeless never does."""
    with ThreadPoolExecutor(concurrency, "provider") as pool:
        asked = {pool.submit(make, prompt): prompt for prompt in prompts}
        stop = ""
        try:
            for done in as_completed(asked):
                if done.cancelled():
                    yield asked[done], NotMade(f"not tried: {stop}", hopeless=True)
                    continue
                outcome = done.result()
                if isinstance(outcome, NotMade) and outcome.hopeless and not stop:
                    stop = outcome.reason
                    for other in asked:
                        other.cancel()
                yield asked[done], outcome
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
