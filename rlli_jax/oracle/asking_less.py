"""Asking some of the questions, in rounds, and predicting the answers to the others.

Each round's questions follow from the answers of those before it and a seed alone. So a judge
whose answers are stored is asked the same questions again after an interruption, finds them
answered, and goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.qoe.choosing import (
    Choice,
    Expected,
    Strategy,
    belief,
    expected_regret,
    first_questions,
    next_questions,
)
from rlli_jax.qoe.model import FEWEST, QoEModel, fit_model

FIRST = 2  # questions of each picture in the first round
GROWTH = 0.25  # of what was asked, in each later round
LARGEST_ROUND = 4_096
CHECKS = 0.05  # of the questions, asked last to check the intervals
MOST_CHECKS = 200

AskCells = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class AskLess:
    """How much to ask, and how to choose it."""

    questions: int  # cells, at most
    strategy: Strategy = "decision"
    choice: Choice = "user"
    tolerance: float = 0.0  # stop when choices are expected to lose less than this, QoE
    seed: int = 0


class Round(NamedTuple):
    """What one round left."""

    asked: int  # cells, with those of the rounds before
    model: QoEModel
    expected: Expected


class Asked(NamedTuple):
    """What was asked and what follows from it."""

    offered: np.ndarray  # bool [K, R, L], what could be asked
    asked: np.ndarray  # bool [K, R, L]
    answers: np.ndarray  # [K, R, L], NaN where there is none
    model: QoEModel
    expected: Expected
    stopped: str  # why no more was asked
    checks: int  # answers to questions drawn at random, asked last
    covered: int  # how many of them lay in the model's 90 % intervals before it saw them


def ask_less(
    ask_cells: AskCells,
    offered: np.ndarray,
    traits: np.ndarray | None,
    plan: AskLess,
    *,
    after: Callable[[Round], None] = lambda _: None,
) -> Asked:
    """Ask round after round until the questions are used up or the choices are sure enough.

    The last questions are drawn at random and check the intervals: those that a strategy chose
    would say nothing of the others. The model is then fitted to all answers.

    Args:
        ask_cells: places in the flattened cells [n] -> QoE [n], NaN where there is no rating.
        offered: bool [K, R, L], the cells that can be asked.
        traits: Big Five [K, 5] on the 1-5 scale; None where they are unknown.
        plan: how much, and how.
        after: is told of each round.

    Raises:
        InputError: too few answers came to predict others from; whatever ``ask_cells`` raises.
    """
    check_plan(offered, plan)
    pictures = int(offered.any(0).sum())
    answers, unasked = np.full(offered.shape, np.nan), offered.copy()
    most = min(plan.questions, int(offered.sum()))
    checks = min(int(CHECKS * most), MOST_CHECKS)
    most -= checks
    size, asked = min(max(FIRST * pictures, FEWEST), most), 0
    wanted = first_questions(unasked, size, plan.strategy, plan.seed)
    while True:
        answers.reshape(-1)[wanted] = ask_cells(wanted)
        unasked.reshape(-1)[wanted] = False
        asked += len(wanted)
        if np.isfinite(answers).sum() < FEWEST <= most - asked + np.isfinite(answers).sum():
            # Too many refusals to fit anything yet: go on at random.
            wanted = first_questions(unasked, min(size, most - asked), "random", plan.seed + asked)
            continue
        model = fit_model(answers, traits, seed=plan.seed)
        expected = expected_regret(belief(model, plan.choice), seed=plan.seed)
        after(Round(asked, model, expected))
        if plan.tolerance and expected.regret < plan.tolerance:
            stopped = "choices are sure enough"
            break
        size = min(max(pictures // 2, int(GROWTH * asked), 1), LARGEST_ROUND, most - asked)
        if size <= 0:
            stopped = "the share is used up"
            break
        wanted = next_questions(model, unasked, size, plan.strategy, plan.choice, plan.seed + asked)
    wanted = first_questions(unasked, checks, "random", plan.seed)
    given = ask_cells(wanted) if checks else np.zeros(0)
    rated = np.isfinite(given)
    covered = 0
    if rated.any():
        low, high = (ends.reshape(-1)[wanted] for ends in model.users().interval())
        covered = int(((given >= low) & (given <= high))[rated].sum())
        answers.reshape(-1)[wanted] = given
        unasked.reshape(-1)[wanted] = False
        model = fit_model(answers, traits, seed=plan.seed)
        expected = expected_regret(belief(model, plan.choice), seed=plan.seed)
    return Asked(
        offered, offered & ~unasked, answers, model, expected, stopped, int(rated.sum()), covered
    )


def check_plan(offered: np.ndarray, plan: AskLess) -> None:
    """Raise InputError where asking some of the questions has no sense."""
    if plan.questions < FEWEST:
        raise InputError(
            f"judge.ask: asking about {plan.questions} of {int(offered.sum()):,} cells is too "
            f"little to predict the others from; allow at least {FEWEST}, or ask everything."
        )
    if plan.strategy == "decision" and offered.shape[2] < 2:
        raise InputError(
            "judge.ask: with one provider there is nothing to decide; set strategy: variance or "
            "random, or ask everything."
        )
