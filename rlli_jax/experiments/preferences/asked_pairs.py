"""Comparisons by the judge itself: which of two described pictures does this user prefer?

Each pair is asked twice, either picture shown first. How much of a pair its first picture won is
the mean of both answers, which is free of a liking for the place; where both orders wholly
disagree it is 0.5, a tie. A judge of whom only words are known says 0 or 1, one with probabilities
anything between.
"""

from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.preferences.config import PreferencesStudy
from rlli_jax.experiments.sources import Inquiry, inquire
from rlli_jax.judges import Answer, Failed, Invalid, Question, Rated
from rlli_jax.judges.prompting import pair_question
from rlli_jax.oracle import Budget
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.preferences import AskedPairs
from rlli_jax.teaching.preferences import pairs_of

FILE = "pairs.npz"


def kept_pairs(
    config: PreferencesStudy, table: QoETable, path: Path, console: Console, left: Budget | None
) -> AskedPairs:
    """The judge's comparisons: asked, and kept in the run directory, or read from there.

    ``left``: what the table left of the judge's budget; None: all of it.

    Raises:
        InputError: there are fewer pairs than a run is to have; the judge left some unanswered, or
            answered none.
    """
    file = path / FILE
    if not file.exists():
        ask_pairs(config, table, console, left).write(file)
    return AskedPairs.read(file)


def ask_pairs(
    config: PreferencesStudy, table: QoETable, console: Console, left: Budget | None = None
) -> AskedPairs:
    """Ask the judge of a study about ``pairs.ask`` pairs of its table, drawn evenly; answers are
    looked up and kept in its store. Raises InputError, as :func:`kept_pairs`."""
    block = config.judge
    inquiry = inquire(config.population, config.catalog, block, console=console)
    people = inquiry.population.select(table.users).personas
    words = _words(inquiry, table)
    both = pairs_of(len(table.providers))
    places: list[int] = []
    questions: list[Question] = []
    gold = np.where(table.legal, table.mean, 0)
    gaps: list[float] = []
    every = product(range(len(people)), range(len(words)), range(len(both)))
    for place, (k, r, q) in enumerate(every):
        a, b = both[q]
        one, other = words[r][a], words[r][b]
        # Of two that read alike none can be preferred.
        if table.legal[k, r, a] and table.legal[k, r, b] and one and other and one != other:
            places.append(place)
            gaps.append(gold[k, r, a] - gold[k, r, b])
            asks = partial(pair_question, people[k], table.requests[r])
            questions += [asks(one, other), asks(other, one)]
    chosen = _drawn(config, len(places))
    asked = [questions[2 * i + order] for i in chosen for order in (0, 1)]
    with block.asker(inquiry.judge, console, left) as ask:
        answers = ask(asked)
    shares = _shares(list(answers)).reshape(-1, 2)
    return AskedPairs(
        place=np.array(places, np.int32)[chosen],
        shown_first=shares[:, 0],
        shown_second=1 - shares[:, 1],
        gap=np.array(gaps, np.float32)[chosen],
    )


def _words(inquiry: Inquiry, table: QoETable) -> list[list[str | None]]:
    """What is said of each picture of a table, [R][L]."""
    names = inquiry.catalog.requests, inquiry.catalog.providers
    return [
        [inquiry.catalog.description(names[0].index(r), names[1].index(p)) for p in table.providers]
        for r in table.requests
    ]


def most_pairs(inquiry: Inquiry) -> int:
    """Of how many pairs the judge can be asked if it rates every picture."""
    alike = 0
    for row in _words(inquiry, inquiry.rehearsal()):
        alike += sum(bool(a and b and a != b) for a, b in combinations(row, 2))
    return alike * len(inquiry.population)


def wanted(config: PreferencesStudy, there: int) -> int:
    """How many of the pairs that are ``there`` are asked. Raises InputError if they are too few."""
    asked = there if config.pairs.ask == "all" else config.pairs.ask
    assert asked is not None
    for key, count in (("ask", asked), ("counts", max(config.pairs.counts))):
        if count > there:
            raise InputError(
                f"pairs.{key}: {count:,} pairs are wanted, but there are {there:,} of which the "
                "judge can be asked; give less, or more users."
            )
    return asked


def _drawn(config: PreferencesStudy, there: int) -> np.ndarray:
    """Numbers of the pairs that are asked; a larger number of pairs has those of a smaller."""
    order = np.random.default_rng(config.seed % 2**32).permutation(there)
    return np.sort(order[: wanted(config, there)])


def _shares(answers: list[Answer]) -> np.ndarray:
    """Probability that the picture shown first is preferred; NaN where there is no answer, and
    none is to come."""
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    if failed:
        raise InputError(
            f"{len(failed):,} of {len(answers):,} questions about pairs have no answer "
            f"({failed[0].reason}); the others are stored: repeat the command with --resume."
        )
    shares = [answer.rating if isinstance(answer, Rated) else np.nan for answer in answers]
    if np.isnan(np.reshape(shares, (-1, 2))).any(1).all():
        reason = next(answer.reason for answer in answers if isinstance(answer, Invalid))
        raise InputError(
            f"the judge has no answer to any of {len(answers) // 2:,} pairs ({reason}); choose "
            "another judge, or give pairs.file."
        )
    return np.array(shares, np.float32)
