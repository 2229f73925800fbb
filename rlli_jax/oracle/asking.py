"""Asking a judge: everything once, in batches, within a budget, and never twice.

A judge that costs nothing is asked in one call. With a store, the questions are looked up first,
and what is missing is claimed, asked and kept batch by batch, so that a process that dies loses at
most the batch it was asking. Several processes may fill one store at the same time: a question that
another one is asking is waited for, and taken over if that process dies.

Every question ends as Rated, Invalid or Failed. Failed questions, and those for which the budget
did not suffice, are asked again in the next run.
"""

from __future__ import annotations

import gc
import math
import shlex
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, Judge, Question, Rated, Usage
from rlli_jax.oracle.budget import (
    LARGEST_BATCH,
    Advance,
    Budget,
    Tally,
    expected_usage,
    progress,
    tokens_of,
)
from rlli_jax.oracle.housekeeping import write_answers
from rlli_jax.oracle.keys import Keys
from rlli_jax.oracle.leases import LEASE_SECONDS, waiting, worker
from rlli_jax.oracle.store import Row, Store
from rlli_jax.qoe.answers import Answers

FIRST_BATCH = 32
LARGEST_GROUP = 64  # questions about one picture that a batch does not divide
BATCH_SECONDS = 2.0  # what a batch should take: little is lost with it, little time goes to commits
POLL_SECONDS = 0.25  # how often to look for what other processes have asked
GUESSES = 1000  # questions of which a judge is asked what they may cost

NO_PICTURE = Invalid("no picture")


@dataclass(frozen=True)
class Plan:
    """What asking would mean. Expectations are None where nobody knows."""

    questions: int
    no_picture: int  # need no judge
    unique: int  # of those with a picture
    cached: int
    to_ask: int
    tokens: float | None
    cost: float | None
    seconds: float | None

    def __add__(self, other: Plan) -> Plan:
        """Both together; what nobody knows of one, nobody knows of both."""

        def both(a: float | None, b: float | None) -> float | None:
            return None if a is None or b is None else a + b

        return Plan(
            questions=self.questions + other.questions,
            no_picture=self.no_picture + other.no_picture,
            unique=self.unique + other.unique,
            cached=self.cached + other.cached,
            to_ask=self.to_ask + other.to_ask,
            tokens=both(self.tokens, other.tokens),
            cost=both(self.cost, other.cost),
            seconds=both(self.seconds, other.seconds),
        )

    def describe(self) -> str:
        """Seven lines for people."""
        rows = {
            "questions": f"{self.questions:,}",
            "without a picture": f"{self.no_picture:,}",
            "unique": f"{self.unique:,}",
            "cached": f"{self.cached:,}",
            "to ask": f"{self.to_ask:,}",
            "expected tokens": "unknown" if self.tokens is None else f"{self.tokens:,.0f}",
            "expected cost": "unknown" if self.cost is None else f"{self.cost:,.2f}",
            "expected time": "unknown until some are answered"
            if self.seconds is None
            else _duration(self.seconds),
        }
        return "\n".join(f"{name:18}{value:>12}" for name, value in rows.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@dataclass(frozen=True)
class Lookup:
    """The questions, each once, beside what the store knows of them."""

    questions: Sequence[Question]
    keys: Keys
    key_of: list[bytes | None]  # of every question; None without a picture
    places: dict[bytes, int]  # where in ``questions`` each distinct one is
    answers: Answers  # at these places, the final ones

    @property
    def missing(self) -> dict[bytes, Question]:
        """What is to be asked; questions about one picture are neighbours, so that a judge can
        look at it once for all of them."""
        unknown = self.answers.unknown.tolist()
        missing = [(k, self.questions[i]) for k, i in self.places.items() if unknown[i]]
        return dict(sorted(missing, key=lambda pair: _neighbours(pair[1])))


def _neighbours(question: Question) -> str:
    """What questions share whose prompts begin alike: what is shown, or the persona."""
    return question.shown or f"statement {question.persona.name}"


def look_up(judge: Judge, questions: Sequence[Question], store: Store) -> Lookup:
    """Make the keys, drop repetitions, and fetch what is stored.

    Questions without a picture are nobody's to answer: they get no key.
    """
    with _no_garbage_collection():
        keys = Keys(judge.identity)
        made = keys.of(questions)
        places = {key: i for i, key in enumerate(made) if key is not None}
        answers = Answers.empty(len(questions))
        store.fill(answers, places)
        return Lookup(questions, keys, made, places, answers)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """For millions of new objects without cycles, the collector would only look and find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def plan(judge: Judge, questions: Sequence[Question], store: Store) -> Plan:
    """What :func:`ask` would do now, without asking.

    Tokens, cost and time of a question are the means over the judge's stored answers where there
    are any. Else tokens and cost are the means that the judge expects of up to ``GUESSES``
    questions, and the time is unknown.
    """
    found = look_up(judge, questions, store)
    missing = list(found.missing.values())
    known = store.experience(found.keys.judge)
    some = missing[:: math.ceil(len(missing) / GUESSES) or 1]

    def total(mean: float | None, guess: Callable[[Usage], float | None]) -> float | None:
        if mean is None and some:
            guesses = [guess(expected_usage(judge, question)) for question in some]
            sure = [value for value in guesses if value is not None]
            mean = sum(sure) / len(sure) if len(sure) == len(some) else None
        return None if mean is None and missing else (mean or 0.0) * len(missing)

    return Plan(
        questions=len(questions),
        no_picture=found.key_of.count(None),
        unique=len(found.places),
        cached=len(found.places) - len(missing),
        to_ask=len(missing),
        tokens=total(known.tokens, tokens_of),
        cost=total(known.cost, lambda usage: usage.cost),
        seconds=total(known.seconds, lambda usage: None),
    )


def ask(
    judge: Judge,
    questions: Sequence[Question],
    store: Store | None = None,
    *,
    budget: Budget | None = None,
    console: Console | None = None,
    tally: Tally | None = None,
) -> Sequence[Answer]:
    """One answer to each question, in order; equal questions are asked once.

    Args:
        judge: who is asked.
        questions: see :func:`build_questions`.
        store: where answers are looked up and kept; None, for judges that cost nothing, asks
            everything in one call and keeps nothing.
        budget: what this call may use up; the rest is answered Failed("not asked: ...").
        console: shows a progress bar and a summary.
        tally: counts what is used up, in place of ``budget``, for the caller to read.

    Raises:
        InputError: the store cannot be used (answers that it does not take any more are kept in a
            file, which the message names); a budget is set for what the judge cannot tell.
        RuntimeError: the judge gave more or fewer answers than it was asked for.
    """
    if store is None:
        distinct = list(dict.fromkeys(questions))
        given = dict(zip(distinct, _rate(judge, distinct), strict=True))
        return [given[question] for question in questions]
    found = look_up(judge, questions, store)
    answers, missing = found.answers, found.missing

    def say(text: str) -> None:
        if console is not None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    tally = tally or Tally(budget or Budget())
    if missing:
        name = judge.identity.name
        with progress(console, name, len(missing), tally) as advance:
            asked = _ask_missing(judge, missing, found.keys, store, tally, advance, say)
        for question, answer in asked.items():
            answers.put(found.places[question], answer)
    say(tally.summary(len(questions), len(found.places) - len(missing)))
    if len(found.places) == len(questions):
        return answers
    for place, key in enumerate(found.key_of):
        if key is None:
            answers.put(place, NO_PICTURE)
    return answers.take(
        [i if key is None else found.places[key] for i, key in enumerate(found.key_of)]
    )


class Asker:
    """Asks several times within one budget; called with questions, it gives their answers.

    Args:
        judge, store, budget, console: as of :func:`ask`.
        left: of the budget, where another has used up a part of it.

    Attributes:
        left: what the budget still allows.
    """

    def __init__(
        self,
        judge: Judge,
        store: Store | None = None,
        budget: Budget | None = None,
        console: Console | None = None,
        left: Budget | None = None,
    ) -> None:
        self._judge, self._store, self._console = judge, store, console
        self._budget = budget or Budget()
        self.left = left or self._budget

    def __call__(self, questions: Sequence[Question], *, quiet: bool = False) -> Sequence[Answer]:
        """See :func:`ask`; ``quiet``: shows nothing."""
        tally, console = Tally(self.left, self._budget), None if quiet else self._console
        given = ask(self._judge, questions, self._store, console=console, tally=tally)
        self.left = tally.left
        return given


def _rate(judge: Judge, questions: Sequence[Question]) -> list[Answer]:
    answers = judge.rate(questions)
    if len(answers) != len(questions):
        raise RuntimeError(
            f"judge {judge.identity.name!r} gave {len(answers)} answers to "
            f"{len(questions)} questions."
        )
    return answers


def on_scale(question: Question, answer: Answer) -> Answer:
    """The answer, or Invalid if it is a rating that is not on the question's scale."""
    scale = question.scale
    if isinstance(answer, Rated) and not scale.low <= answer.rating <= scale.high:
        reason = f"the rating {answer.rating:g} is not on the scale {scale.name}"
        return Invalid(reason, answer.raw, answer.usage)
    return answer


def _ask_missing(
    judge: Judge,
    missing: Mapping[bytes, Question],
    keys: Keys,
    store: Store,
    tally: Tally,
    advance: Advance,
    say: Callable[[str], None],
) -> dict[bytes, Answer]:
    answers: dict[bytes, Answer] = {}
    pending = deque(missing)
    size = FIRST_BATCH
    elsewhere = 0  # questions in a row that other processes were asking
    told = -math.inf  # when it was last said what is waited for
    with worker(store, LEASE_SECONDS) as owner:
        while pending:
            expected = expected_usage(judge, missing[pending[0]])
            allowed = tally.allowed(expected)
            if tally.stopped:
                break
            count = _whole_groups(pending, missing, size, allowed)
            window = [pending.popleft() for _ in range(count)]
            claimed = store.claim(owner, window, LEASE_SECONDS)
            found = store.lookup([key for key in window if key not in claimed])
            answers |= found
            batch = [key for key in window if key in claimed]
            if batch:
                asked = [missing[key] for key in batch]
                started = time.perf_counter()
                given = list(map(on_scale, asked, _rate(judge, asked)))
                seconds = (time.perf_counter() - started) / len(batch)
                now = time.time()
                rows = [
                    Row.of(keys.parts(question), answer, seconds=seconds, now=now)
                    for question, answer in zip(asked, given, strict=True)
                ]
                _keep(store, owner, rows, keys.take_texts())
                answers |= zip(batch, given, strict=True)
                tally.add(given, expected)
                wanted = BATCH_SECONDS / max(seconds, BATCH_SECONDS / LARGEST_BATCH)
                size = max(1, min(round(wanted), 4 * size))
            advance(len(batch) + len(found))
            others = [key for key in window if key not in claimed and key not in found]
            pending.extend(others)
            elsewhere = 0 if batch or found else elsewhere + len(others)
            if pending and elsewhere >= len(pending):
                if time.monotonic() - told > LEASE_SECONDS:
                    say(waiting(store.waiting(owner, pending), "questions", "asking"))
                    told = time.monotonic()
                time.sleep(POLL_SECONDS)
                elsewhere = 0
    return answers | {key: Failed(f"not asked: {tally.stopped}") for key in pending}


def _whole_groups(
    pending: Sequence[bytes], missing: Mapping[bytes, Question], size: int, allowed: int
) -> int:
    """How many questions to ask next: ``size``, and the neighbours of the last one.

    Of a slow judge a batch would be so small that it divides the questions about one picture,
    whose prompts begin alike; then that beginning would be passed anew for each.
    """
    most = min(allowed, len(pending), max(size, LARGEST_GROUP))
    count = min(size, most)
    while 0 < count < most and (
        _neighbours(missing[pending[count]]) == _neighbours(missing[pending[count - 1]])
    ):
        count += 1
    return count


def _keep(store: Store, owner: str, rows: Sequence[Row], texts: Mapping[str, str]) -> None:
    """Keep a batch; what the store does not take, although it is paid for, goes into a file.

    Raises:
        InputError: the store did not take it; the message names the file.
    """
    try:
        store.record(owner, rows, texts)
    except InputError as error:
        file = Path(tempfile.gettempdir(), f"rlli-answers-{uuid.uuid4().hex[:8]}.jsonl.gz")
        try:
            write_answers(file, rows, texts)
        except InputError as full:
            raise InputError(f"{error} The last {len(rows):,} answers are lost: {full}") from error
        raise InputError(
            f"{error} The last {len(rows):,} answers are in {file}: take them over with "
            f"rlli cache import {file} --store {shlex.quote(str(store.name))}"
        ) from error
