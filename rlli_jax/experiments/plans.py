"""What is named in each of finitely many situations, made before anything learns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.plan_blocks import (
    GivenPlan,
    JudgePlan,
    ModelPlan,
    RulePlan,
    TinyPlan,
)
from rlli_jax.judges import Answer, Failed, Rated, Scale
from rlli_jax.judges.prompting import plan_question
from rlli_jax.judges.scoring import text_answer
from rlli_jax.language import load_model
from rlli_jax.language.tiny import tiny_model
from rlli_jax.run_files.planner import MadePlan
from rlli_jax.teaching.planner import Situations

NO_PICTURES: Any = None  # of a judge that is shown none


def kept_plan(
    name: str, block: Any, todo: Situations, seed: int, path: Path | None, console: Console
) -> MadePlan | None:
    """The plan of a policy by its block, made once and kept in ``plans/``; None where it has none
    before something was learned.

    Raises:
        InputError: the policy's plan cannot be had, with the path of its key.
    """
    file = None if path is None else path / "plans" / f"{name}.json"
    if file is not None and file.exists():
        return MadePlan.read(file)
    try:
        made = make_plan(block, todo, seed, console)
    except InputError as error:
        raise InputError(f"policies.{name}: {error}") from None
    if file is not None and made is not None and made.asked:
        made.write(file)
    return made


def make_plan(block: Any, todo: Situations, seed: int, console: Console) -> MadePlan | None:
    """See :func:`kept_plan`."""
    if isinstance(block, GivenPlan) and block.learner == "random":
        return MadePlan(plan=_rows(todo.chance()))
    if isinstance(block, GivenPlan) and block.learner == "oracle" and todo.right is not None:
        return MadePlan(plan=_rows(todo.oracle()))
    if isinstance(block, RulePlan):
        return MadePlan(plan=_rows(todo.by_rule(block.goals)))
    if isinstance(block, ModelPlan | TinyPlan):
        if isinstance(block, ModelPlan):
            model = load_model(block.model, compute_dtype=block.compute_dtype)
        else:
            key = jax.random.key(np.uint32(seed % 2**32))
            words = [*todo.prompts, *todo.options]
            model = tiny_model(block.architecture, key, words, width=16, heads=2)
        with console.status(f"asking {model.name}"):
            plan = todo.asked(model)
        tiny = isinstance(block, TinyPlan)
        count = len(todo.prompts)
        return MadePlan(plan=_rows(plan), model=model.name, stand_in=tiny, asked=count)
    return _judged(block, todo, console) if isinstance(block, JudgePlan) else None


def _rows(plan: Any) -> list[list[float]]:
    return np.asarray(plan, np.float64).tolist()


def _judged(block: JudgePlan, todo: Situations, console: Console) -> MadePlan:
    """What a judge names, looked up and kept in its store."""
    judge = block.judge.make(NO_PICTURES)
    questions = [plan_question(text, todo.question, todo.options) for text in todo.situations]
    with block.judge.asker(judge, console) as ask:
        answers = list(ask(questions))
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    if failed:
        raise InputError(
            f"{len(failed):,} of {len(answers):,} situations have no answer ({failed[0].reason}); "
            "the others are stored: repeat the command with --resume."
        )
    plan = [named(questions[0].scale, answer) for answer in answers]
    unanswered = sum(row is None for row in plan)
    if unanswered == len(plan):
        raise InputError(
            f"{judge.identity.name} named no goal in any of {len(plan)} situations "
            f"({getattr(answers[0], 'reason', '')}); choose another model."
        )
    anything = [1 / len(todo.options)] * len(todo.options)
    rows = [anything if row is None else row for row in plan]
    name = str(judge.identity.parameters.get("model", judge.identity.name))
    return MadePlan(plan=rows, model=name, asked=len(plan), unanswered=unanswered)


def named(scale: Scale, answer: Answer) -> list[float] | None:
    """The goal that an answer says or finds likeliest, one-hot; None where it is none.

    An answer has a line for each order of the labels, of probabilities as JSON or of one label.
    """
    if not isinstance(answer, Rated):
        return None
    share = np.zeros(len(scale.labels))
    for line in filter(None, map(str.strip, answer.raw.splitlines())):
        share += _line(scale, line)
    return np.eye(len(share))[share.argmax()].tolist() if share.any() else None


def _line(scale: Scale, line: str) -> Sequence[float]:
    label = text_answer(scale, line, None)
    if isinstance(label, Rated):
        return np.eye(len(scale.labels))[round(label.rating)].tolist()
    known = json.loads(line)["probabilities"]
    return [known[label] for label in scale.labels]
