"""Having pictures made: each once, within a budget, by any number of workers, and never twice.

What a store holds is looked up first. What is missing is claimed, made and kept picture by picture,
so that a process that dies loses at most the pictures that it was making. A picture that another
process is making is waited for, and taken over if that process dies.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.generation.base import Made, NotMade, Provider, Refused, key_of
from rlli_jax.generation.store import Kept, PictureStore
from rlli_jax.oracle.leases import LEASE_SECONDS, waiting, worker
from rlli_jax.progress import counted

POLL_SECONDS = 0.25  # how often to look for what other processes have made
GIVE_UP = 8  # pictures of a provider that fail one after another

Pictures = dict[tuple[str, str], Kept]  # by (prompt, name of the provider)


@dataclass(frozen=True)
class PictureBudget:
    """The most that one call may use up; None is no limit. Money is exceeded by no picture."""

    pictures: int | None = None
    money: float | None = None  # in the currency of the prices


@dataclass(frozen=True)
class PicturePlan:
    """What having pictures made would mean. Expectations are None where nobody knows."""

    pictures: int
    cached: int
    refused: int  # of those; holes
    to_make: int
    cost: float | None
    seconds: float | None  # one after another, by the pictures of the same provider that are there
    steps: int = 0  # of denoising, where it is known
    saved_steps: int = 0  # how many more there would be if no prompts shared any

    def describe(self) -> str:
        """Lines for people."""
        rows = {
            "pictures": f"{self.pictures:,}",
            "cached": f"{self.cached:,}",
            "refused": f"{self.refused:,}",
            "to make": f"{self.to_make:,}",
            "expected cost": "unknown" if self.cost is None else f"{self.cost:,.2f}",
            "expected seconds": "unknown until some are made"
            if self.seconds is None
            else f"{self.seconds:,.1f}",
        }
        if self.steps:
            rows |= {"denoising steps": f"{self.steps:,}", "steps saved": f"{self.saved_steps:,}"}
        return "\n".join(f"{name:18}{value:>12}" for name, value in rows.items())


def plan_pictures(
    providers: Sequence[Provider], prompts: Sequence[str], store: PictureStore
) -> PicturePlan:
    """What :func:`make_pictures` would do now, without making anything."""
    cached = refused = steps = saved = 0
    missing: list[Provider] = []
    seconds: dict[str, list[float]] = {}
    for provider in providers:
        wanted = []
        for prompt in prompts:
            kept = store.get(key_of(provider.settings(prompt)))
            if kept is None:
                wanted.append(prompt)
                continue
            cached += 1
            refused += kept.picture is None
            if kept.seconds is not None:
                seconds.setdefault(provider.name, []).append(kept.seconds)
        missing += [provider] * len(wanted)
        run, spared = provider.steps(wanted)
        steps, saved = steps + run, saved + spared
    means = {name: sum(each) / len(each) for name, each in seconds.items()}
    return PicturePlan(
        pictures=len(providers) * len(prompts),
        cached=cached,
        refused=refused,
        to_make=len(missing),
        cost=_total([provider.price for provider in missing]),
        seconds=_total([means.get(provider.name) for provider in missing]),
        steps=steps,
        saved_steps=saved,
    )


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


@dataclass
class _Tally:
    """What was made so far."""

    budget: PictureBudget
    made: int = 0
    refused: int = 0
    cost: float = 0.0
    priced: bool = True
    failures: list[str] = field(default_factory=list)
    stopped: str = ""
    in_a_row: int = 0

    def allowed(self, provider: Provider) -> int:
        """How many more pictures of a provider the budget pays for; none sets ``stopped``."""
        left = math.inf
        if self.budget.pictures is not None:
            left = self.budget.pictures - self.made - self.refused
        if self.budget.money is not None:
            if provider.price is None:
                raise InputError(
                    f"catalog.generate.budget.money: nobody knows what a picture of {provider.name}"
                    " costs; give its price, or limit budget.pictures instead."
                )
            if provider.price > 0:
                pays_for = (self.budget.money - self.cost) / provider.price
                left = min(left, math.floor(pays_for + 1e-9))
        if left <= 0:
            self.stopped = "the budget is used up"
        return int(min(left, 2**31))

    def add(self, provider: Provider, outcome: Made | Refused | NotMade) -> None:
        if isinstance(outcome, NotMade):
            self.failures.append(f"{provider.name}: {outcome.reason}")
            self.in_a_row += 1
            return
        self.in_a_row = 0
        self.made += isinstance(outcome, Made)
        self.refused += isinstance(outcome, Refused)
        self.priced &= outcome.cost is not None
        self.cost += outcome.cost or 0.0


def make_pictures(
    providers: Sequence[Provider],
    prompts: Sequence[str],
    store: PictureStore,
    *,
    budget: PictureBudget = PictureBudget(),
    console: Console | None = None,
) -> Pictures:
    """The picture of every prompt by every provider, or why there will never be one.

    Args:
        providers: with names of their own.
        prompts: each once.
        store: where pictures are looked up and kept.
        budget: what this call may use up.
        console: shows a progress bar and a summary.

    Raises:
        InputError: a picture could not be made this time, the budget is used up, or the disk is
            full. What was made is kept, and the next call goes on from there.
    """

    def say(text: str) -> None:
        if console is not None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    found: Pictures = {}
    missing: dict[str, dict[bytes, str]] = {}
    for provider in providers:
        for prompt in prompts:
            key = key_of(provider.settings(prompt))
            kept = store.get(key)
            if kept is None:
                missing.setdefault(provider.name, {})[key] = prompt
            else:
                found[prompt, provider.name] = kept
    stored = len(found)
    tally = _Tally(budget)
    if missing:
        total = sum(map(len, missing.values()))
        with (
            _progress(console, total) as advance,
            worker(store.leases, LEASE_SECONDS) as owner,
        ):
            for provider in providers:
                wanted = missing.get(provider.name, {})
                made = _make_missing(provider, wanted, store, owner, tally, advance, say)
                found |= {(wanted[key], provider.name): kept for key, kept in made.items()}
                if tally.stopped:
                    break
    total = len(providers) * len(prompts)
    cost = f"cost {tally.cost:,.2f}" if tally.priced else "cost unknown"
    say(
        f"{total:,} pictures: {stored:,} were stored, {tally.made:,} made, {tally.refused:,} "
        f"refused, {len(tally.failures):,} failed; {cost}"
    )
    if len(found) < total:
        why = tally.stopped or tally.failures[0].rstrip(".")
        raise InputError(
            f"catalog.generate: {total - len(found):,} of {total:,} pictures are not made ({why}); "
            "what was made is kept, run again to go on."
        )
    return found


def _make_missing(
    provider: Provider,
    missing: Mapping[bytes, str],
    store: PictureStore,
    owner: str,
    tally: _Tally,
    advance: Callable[[str, int], None],
    say: Callable[[str], None],
) -> dict[bytes, Kept]:
    """Have the missing pictures of one provider made."""
    key_for = {prompt: key for key, prompt in missing.items()}
    found: dict[bytes, Kept] = {}
    pending = deque(prompt for batch in provider.batches(list(key_for)) for prompt in batch)
    tally.in_a_row = 0
    elsewhere = 0  # pictures in a row that other processes were making
    told = -math.inf
    while pending:
        allowed = tally.allowed(provider)
        if tally.stopped:
            break
        window = provider.batches(list(pending))[0][:allowed]
        pending = deque(prompt for prompt in pending if prompt not in window)
        keys = [key_for[prompt] for prompt in window]
        claimed = store.leases.claim(owner, keys, LEASE_SECONDS)
        # Another may have made one after it was looked up and before it was claimed.
        there = {key: kept for key in keys if (kept := store.get(key)) is not None}
        found |= there
        batch = [p for p in window if key_for[p] in claimed and key_for[p] not in there]
        hopeless = False
        if batch:
            hopeless = _make_batch(provider, batch, key_for, store, tally, found)
        store.leases.release(owner)
        others = [p for p in window if key_for[p] not in claimed and key_for[p] not in there]
        pending.extend(others)
        advance(provider.name, len(window) - len(others))
        if hopeless or tally.in_a_row >= GIVE_UP:
            break
        elsewhere = 0 if batch or there else elsewhere + len(others)
        if pending and elsewhere >= len(pending):
            if time.monotonic() - told > LEASE_SECONDS:
                keys = [key_for[prompt] for prompt in pending]
                say(waiting(store.leases.waiting(owner, keys), "pictures", "making"))
                told = time.monotonic()
            time.sleep(POLL_SECONDS)
            elsewhere = 0
    return found


def _make_batch(
    provider: Provider,
    batch: Sequence[str],
    key_for: Mapping[str, bytes],
    store: PictureStore,
    tally: _Tally,
    found: dict[bytes, Kept],
) -> bool:
    """Make and keep pictures; whether it is hopeless to go on with this provider.

    What the store does not take, although it was paid for, goes into another folder.

    Raises:
        InputError: the store did not take it; the message names that folder.
    """
    full: InputError | None = None
    target, rescued, hopeless = store, 0, False
    for prompt, outcome in provider.make(batch):
        tally.add(provider, outcome)
        if isinstance(outcome, NotMade):
            hopeless |= outcome.hopeless
            continue
        settings = provider.settings(prompt)
        if full is None:
            try:
                found[key_for[prompt]] = store.keep(settings, outcome)
                continue
            except InputError as error:
                full = error
                target = PictureStore(Path(tempfile.mkdtemp(prefix="rlli-pictures-")))
        try:
            target.keep(settings, outcome)
            rescued += 1
        except InputError as error:
            raise InputError(f"{full} The last picture is lost: {error}") from error
    if full is not None:
        raise InputError(
            f"{full} The last {rescued:,} pictures are in {target.folder}: copy what is in it into "
            f"{store.folder}."
        )
    return hopeless


@contextmanager
def _progress(console: Console | None, total: int) -> Iterator[Callable[[str, int], None]]:
    with counted("making pictures:", console) as progress:
        task = progress.add_task("", total=total)
        yield lambda name, count: progress.update(task, advance=count, description=name)
