"""What asking may use up, what it has used up so far, and how that is shown."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, TextColumn

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Judge, Question, Usage
from rlli_jax.progress import counted

LARGEST_BATCH = 4096
GIVE_UP = 64  # questions that fail one after another


@dataclass(frozen=True)
class Budget:
    """The most that one call of :func:`ask` may use up; None is no limit.

    Questions are never exceeded; tokens and money by at most what one batch costs beyond what
    was expected of it. Raises :class:`InputError` for a negative limit.
    """

    questions: int | None = None
    tokens: int | None = None
    money: float | None = None  # in the currency of the judge's prices

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not limit >= 0:
                raise InputError(f"budget.{name} is {limit}; give a number from 0.")


def expected_usage(judge: Judge, question: Question) -> Usage:
    """What a judge expects of a question; nothing is known of a judge that does not say."""
    expect = getattr(judge, "expected_usage", None)
    return Usage() if expect is None else expect(question)


def tokens_of(usage: Usage) -> int | None:
    """Prompt and completion together, None if one is unknown."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens


@dataclass
class Tally:
    """What was used up so far, and why to stop."""

    budget: Budget
    whole: Budget | None = None  # of which ``budget`` is what earlier calls left
    asked: int = 0
    tokens: float = 0
    cost: float = 0
    counted: bool = True  # every answer told its tokens; else some are as expected
    priced: bool = True  # every cost is known, at least as an expectation
    kinds: Counter[str] = field(default_factory=Counter)
    failures: int = 0  # in a row, up to now
    stopped: str = ""
    started: float = field(default_factory=time.perf_counter)

    def allowed(self, expected: Usage) -> int:
        """How many questions may be asked now; none sets ``stopped``."""
        allowed = LARGEST_BATCH
        for name, limit, spent, each in (
            ("questions", self.budget.questions, self.asked, 1),
            ("tokens", self.budget.tokens, self.tokens, tokens_of(expected)),
            ("money", self.budget.money, self.cost, expected.cost),
        ):
            if limit is None:
                continue
            if each is None:
                raise InputError(
                    f"budget.{name}: the judge cannot tell what a question costs; give it its "
                    "prices, or limit budget.questions instead."
                )
            # What answers cost up to now says more than what was expected.
            mean = spent / self.asked if self.asked else each
            if spent >= limit or mean > limit - spent:
                whole = getattr(self.whole or self.budget, name)
                self.stopped = f"the budget of {whole:,} {name} is used up"
            elif mean > 0:
                allowed = min(allowed, math.floor((limit - spent) / mean))
        return allowed

    def add(self, answers: Sequence[Answer], expected: Usage) -> None:
        """Count a batch; where an answer does not say what it cost, take what was expected."""
        self.asked += len(answers)
        for answer in answers:
            usage = answer.usage or Usage()
            tokens = tokens_of(usage)
            self.tokens += (tokens_of(expected) or 0) if tokens is None else tokens
            self.counted &= tokens is not None or not tokens_of(expected)
            cost = expected.cost if usage.cost is None else usage.cost
            self.cost += cost or 0
            self.priced &= cost is not None
            self.kinds[type(answer).__name__.lower()] += 1
            self.failures = self.failures + 1 if isinstance(answer, Failed) else 0
            if self.failures == GIVE_UP and isinstance(answer, Failed):
                self.stopped = f"{GIVE_UP} questions failed one after another ({answer.reason})"

    @property
    def left(self) -> Budget:
        """What a next call may use up."""
        spent = {"questions": self.asked, "tokens": self.tokens, "money": self.cost}
        limits = vars(self.budget).items()
        return Budget(**{n: None if m is None else max(0, m - spent[n]) for n, m in limits})

    @property
    def rate(self) -> float:
        """Questions asked in a second."""
        return self.asked / max(time.perf_counter() - self.started, 1e-9)

    @property
    def cost_text(self) -> str:
        """What was spent; a cost that nobody knows is not 0."""
        return f"cost {self.cost:,.2f}" if self.priced else "cost unknown"

    def summary(self, questions: int, cached: int) -> str:
        """One line for people, two if the end was not reached."""
        line = (
            f"{questions:,} questions: {cached:,} answers were stored, {self.asked:,} asked "
            f"({self.rate:,.1f}/s): {self.kinds['rated']:,} rated, "
            f"{self.kinds['invalid']:,} invalid, {self.kinds['failed']:,} failed; "
            f"{'' if self.counted else 'about '}{self.tokens:,.0f} tokens, {self.cost_text}"
        )
        return f"{line}\nstopped: {self.stopped}; run again to go on" if self.stopped else line


class Advance:
    """Moves a progress bar on."""

    def __init__(self, progress: Progress, name: str, total: int, tally: Tally) -> None:
        self._progress, self._tally = progress, tally
        self._task = progress.add_task(name, total=total, rate="", cost="", failed="")

    def __call__(self, count: int) -> None:
        tally = self._tally
        self._progress.update(
            self._task,
            advance=count,
            rate=f"{tally.rate:,.1f}/s",
            cost=tally.cost_text,
            failed=f"{tally.kinds['failed']:,} failed",
        )


@contextmanager
def progress(console: Console | None, name: str, total: int, tally: Tally) -> Iterator[Advance]:
    fields = (TextColumn(f"{{task.fields[{key}]}}") for key in ("rate", "cost", "failed"))
    with counted("asking", console, *fields) as progress:
        yield Advance(progress, name, total, tally)
