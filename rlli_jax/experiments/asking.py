"""``judge.ask``: part of the questions are asked, and a model of QoE predicts the others."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from rlli_jax.errors import InputError, why
from rlli_jax.experiments.yaml_blocks import Block, Positive, Whole, exactly_one
from rlli_jax.files import whole
from rlli_jax.judges import Answer, Failed, Judge, Question, Rated
from rlli_jax.oracle import Questions, ask
from rlli_jax.oracle.asking import look_up
from rlli_jax.oracle.asking_less import Asked, AskLess, Round, ask_less, check_plan
from rlli_jax.oracle.budget import expected_usage, tokens_of
from rlli_jax.oracle.store import Store
from rlli_jax.qoe.choosing import Belief, belief, expected_regret
from rlli_jax.run_files.answers import AskingFile

ANSWERS = "answers.npz"  # of a run directory, with judge.ask: what the model was fitted to
GUESSES = 64  # questions by which is guessed what one costs

Rate = Callable[[list[Question]], Sequence[Answer]]


class AskBlock(Block):
    """Ask part of the questions and predict the answers to the others. Give one of share,
    questions, tokens and money."""

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of the cells (user, request, provider) that is asked at most."""
    questions: Positive | None = None
    """Questions asked at most; each sample of a cell is one."""
    tokens: Positive | None = None
    """Tokens of prompts and answers used up at most, as the judge expects them."""
    money: Annotated[float, Field(gt=0)] | None = None
    """In the currency of the prices, used up at most, as the judge expects it."""
    strategy: Literal["random", "variance", "decision"] = "decision"
    """Which questions come next: any, where predictions are least sure, or those that most change
    which provider a user should get."""
    choice: Literal["user", "user request", "request"] = "user"
    """What is to be decided: a provider for each user, for each user and request, or for each
    request whoever asks."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Stop when choices are expected to lose less QoE than this, on average."""
    seed: Whole = 0
    """Of random draws."""

    @model_validator(mode="after")
    def _one_limit(self) -> "AskBlock":
        exactly_one(self, ("share", "questions", "tokens", "money"))
        return self

    def plan(self, judge: Judge, questions: Questions, offered: np.ndarray) -> AskLess:
        """How many of the cells ``offered`` [K, R, L] are asked, and how they are chosen.

        Raises:
            InputError: a limit in tokens or money, and the judge cannot tell what a question costs;
                so few questions that nothing can be predicted from them.
        """
        cells_offered = int(offered.sum())
        if self.share is not None:
            cells = round(self.share * cells_offered)
        elif self.questions is not None:
            cells = self.questions // questions.samples
        else:
            cells = int(self._affordable(judge, questions) // questions.samples)
        cells = min(cells, cells_offered)
        plan = AskLess(cells, self.strategy, self.choice, self.tolerance, self.seed)
        check_plan(offered, plan)
        return plan

    def _affordable(self, judge: Judge, questions: Questions) -> float:
        """How many questions the tokens or the money pay for."""
        name, limit = ("tokens", self.tokens) if self.tokens else ("money", self.money)
        assert limit is not None  # one of the four is given
        some = [questions[i] for i in range(0, len(questions), -(-len(questions) // GUESSES))]
        usages = [expected_usage(judge, question) for question in some]
        costs = [tokens_of(u) if name == "tokens" else u.cost for u in usages]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs) or not sum(known):
            raise InputError(
                f"judge.ask.{name}: the judge cannot tell what a question costs; give it its "
                "prices, or set judge.ask.share or judge.ask.questions instead."
            )
        return limit * len(known) / sum(known)


def ask_some(
    block: AskBlock,
    judge: Judge,
    questions: Questions,
    offered: np.ndarray,
    traits: np.ndarray | None,
    rate: Rate,
    tell: Callable[[Round], None] = lambda _: None,
) -> Asked:
    """Ask what ``block`` allows.

    Args:
        block: how much to ask.
        judge: who is asked, for what a question costs.
        questions: all of them.
        offered: bool [K, R, L], the cells with a picture.
        traits: Big Five [K, 5] on the 1-5 scale; None where they are unknown.
        rate: asks and keeps.
        tell: is told of each round.

    Raises:
        InputError: see :meth:`AskBlock.plan` and :func:`ask_less`; a question failed, so that
            those after it would be others than if it had been answered.
    """
    samples = questions.samples

    def ask_cells(places: np.ndarray) -> np.ndarray:
        asked = [questions[int(place) * samples + s] for place in places for s in range(samples)]
        answers = rate(asked)
        failed = [answer for answer in answers if isinstance(answer, Failed)]
        if failed:
            raise InputError(
                f"judge.ask: {len(failed):,} of {len(asked):,} questions of a round failed "
                f"({failed[0].reason.rstrip('.')}); what was answered is kept, run again to go on."
            )
        qoe = np.array(
            [questions.scale.qoe(a.rating) if isinstance(a, Rated) else np.nan for a in answers]
        ).reshape(len(places), samples)
        rated = np.isfinite(qoe)
        count = rated.sum(1)
        means = np.where(rated, qoe, 0).sum(1) / np.maximum(count, 1)
        return np.where(count > 0, means, np.nan)

    plan = block.plan(judge, questions, offered)
    return ask_less(ask_cells, offered, traits, plan, after=tell)


class SoFar(NamedTuple):
    """How far asking part of the questions has come, by what a store holds."""

    limit: int  # cells that are asked at most
    last: Round | None  # the last round that is answered
    missing: list[Question]  # of the next round; empty if all rounds are answered


def so_far(
    block: AskBlock,
    judge: Judge,
    questions: Questions,
    offered: np.ndarray,
    traits: np.ndarray | None,
    store: Store,
) -> SoFar:
    """Go through the rounds as :func:`ask_some` does, up to one that is not answered."""
    rounds: list[Round] = []

    def rate(asked: list[Question]) -> Sequence[Answer]:
        missing = list(look_up(judge, asked, store).missing.values())
        if missing:
            raise _Unanswered(missing)
        return ask(judge, asked, store)

    missing: list[Question] = []
    try:
        ask_some(block, judge, questions, offered, traits, rate, rounds.append)
    except _Unanswered as stop:
        missing = stop.questions
    limit = block.plan(judge, questions, offered).questions
    return SoFar(limit, rounds[-1] if rounds else None, missing)


class _Unanswered(Exception):
    def __init__(self, questions: list[Question]) -> None:
        super().__init__()
        self.questions = questions


def prospect(found: SoFar, block: AskBlock) -> str:
    """What to expect of asking, in a line for people."""
    if found.last is None:
        return "expected loss of choices: told after the first round of answers"
    believed = belief(found.last.model, block.choice)
    # Variances go as the reciprocal of the number of answers.
    scale = min(found.last.asked / found.limit, 1)
    later = expected_regret(Belief(believed.mean, believed.covariance * scale), seed=block.seed)
    return (
        f"expected loss of choices: {found.last.expected.regret:.4f} QoE by the "
        f"{found.last.asked:,} cells that are answered, about {later.regret:.4f} by "
        f"{found.limit:,}"
    )


def summary(asked: Asked, block: AskBlock) -> AskingFile:
    """What a run says of it."""
    offered = asked.offered
    count = int(asked.asked.sum())
    interval = None
    if asked.checks:
        from scipy.stats import binomtest  # slow to import, and few studies need it

        ends = binomtest(asked.covered, asked.checks).proportion_ci(method="wilson")
        interval = float(ends.low), float(ends.high)
    return AskingFile(
        strategy=block.strategy,
        choice=block.choice,
        cells=int(offered.sum()),
        asked=count,
        rated=int(np.isfinite(asked.answers).sum()),
        stopped=asked.stopped,
        expected_regret=asked.expected.regret,
        checks=asked.checks,
        covered=asked.covered,
        coverage_interval=interval,
        noise_sd=float(asked.model.variances.noise**0.5),
        mean_sd=float(asked.model.users().sd[offered].mean()),
    )


def save_answers(path: Path, answers: np.ndarray) -> None:
    """Keep the answers [K, R, L] that a model was fitted to, NaN where there is none."""
    with whole(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, answers=answers)


def load_answers(path: Path) -> np.ndarray:
    """What :func:`save_answers` kept.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with np.load(path) as archive:
            return np.asarray(archive["answers"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({why(error)}); make the run again.") from error
