"""How a language model is best asked: digits or words, a beginning of the answer, label orders.

A few questions tell, and what they tell is written into the config, where everybody sees it: what
changes answers is never chosen silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from rlli_jax.errors import InputError
from rlli_jax.experiments.yaml_blocks import from_yaml
from rlli_jax.files import write_text
from rlli_jax.judges import Failed, Form, Rated, scale_of
from rlli_jax.judges.prompting import ORDERS
from rlli_jax.oracle import Asker, Budget, open_store

PREFILL = "Rating: "
NEARLY = 0.05  # of the probability: so little more is no reason for another scale or a prefill


class Trial(NamedTuple):
    """One way to ask, and what a few questions say of it."""

    scale: str
    prefill: str
    mass: float  # mean probability on the labels
    shift: float  # of the mean rating from worst first to best first, part of the scale
    fault: str = ""  # why it cannot be asked so

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of the judge that it stands for."""
        from rlli_jax.judges.examination.checks import SHIFT_PASS

        both = not abs(self.shift) <= SHIFT_PASS
        return {"scale": self.scale, "prefill": self.prefill, "both_orders": both}


def tune(study: Any, console: Console) -> Trial:
    """Try scales and beginnings of the answer; the best one, with every trial shown.

    Of those that put nearly as much probability on the labels as the best, the one that is nearest
    to the config is taken: its own scale before digits, no prefill before one.

    Raises:
        InputError: the judge is no language model, or no way of asking gives an answer.
    """
    from rlli_jax.experiments.sources import inquire

    block = study.judge
    if not block.paid:
        raise InputError("examine --tune: only language models are asked in words.")
    own = block.scale if isinstance(block.scale, str) else None
    scales = list(dict.fromkeys([own or "adjectives", "1-5", "adjectives"]))
    trials = []
    for scale, prefill in product(scales, dict.fromkeys([block.prefill, "", PREFILL])):
        changed: Any = block.model_copy(
            update={"scale": scale, "prefill": prefill, "both_orders": False, "min_valid_mass": 0.0}
        )
        inquiry = inquire(study.population, study.catalog, changed)
        tell = partial(console.print, highlight=False, markup=False)
        with closing(open_store(block.store, message=tell)) as store:
            ask = Asker(inquiry.judge, store, Budget(**block.budget.model_dump()))
            trials.append(_trial(ask, inquiry, scale, prefill))
    _show(trials, console)
    best = max(trial.mass for trial in trials)
    if not best > 0:
        why = next((trial.fault for trial in trials if trial.fault), "no label has probability")
        raise InputError(f"examine --tune: no way of asking gives a rating ({why}).")
    return next(trial for trial in trials if trial.mass >= best - NEARLY)


def _trial(ask: Asker, inquiry: Any, scale: str, prefill: str) -> Trial:
    """Two people, two plainly different pictures, both label orders: eight questions."""
    from rlli_jax.judges.examination import design
    from rlli_jax.judges.examination.examine import label_mass

    wording = inquiry.population.personas[0].wording
    shown = design.exhibits(inquiry.catalog, 6, inquiry.described)
    pictures = [shown[i] for i in design.most_different(shown)]
    asked = [
        design.rating(persona, exhibit, scale_of(scale), Form(order=order))
        for order in ORDERS
        for persona in design.poles(wording)[4:6]
        for exhibit in pictures
    ]
    answers = list(ask(asked))
    failed = next((answer for answer in answers if isinstance(answer, Failed)), None)
    if failed is not None:
        return Trial(scale, prefill, 0.0, float("nan"), failed.reason)
    mass = float(np.mean([label_mass(answer) for answer in answers]))
    rated = [
        question.scale.qoe(answer.rating) if isinstance(answer, Rated) else np.nan
        for question, answer in zip(asked, answers, strict=True)
    ]
    worst, best = np.array(rated).reshape(2, -1).mean(1)
    return Trial(scale, prefill, mass, float(best - worst))


def _show(trials: Sequence[Trial], console: Console) -> None:
    table = Table("scale", "prefill", "mass on the labels", "shift by label order", "")
    for trial in trials:
        shift = "" if np.isnan(trial.shift) else f"{trial.shift:+.2f}"
        table.add_row(trial.scale, trial.prefill, f"{trial.mass:.3f}", shift, trial.fault)
    console.print(table)


def write_settings(path: Path, settings: Mapping[str, Any]) -> str:
    """Set keys of the block ``judge`` in a YAML file, leaving all else as it is written.

    Returns what was changed, for people.

    Raises:
        InputError: the block is not written as keys below ``judge:``; the message says what to
            write by hand.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    by_hand = ", ".join(f"{key}: {_yaml(value)}" for key, value in settings.items())
    refusal = InputError(f"{path}: cannot be changed in place; set by hand in judge: {by_hand}.")
    start = next((i for i, line in enumerate(lines) if re.fullmatch(r"judge:\s*(#.*)?", line)), -1)
    if start < 0:
        raise refusal
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " #"):
        end += 1
    indent = next((re.match(r"\s+", line) for line in lines[start + 1 : end] if line.strip()), None)
    if indent is None:
        raise refusal
    for key, value in settings.items():
        new = f"{indent[0]}{key}: {_yaml(value)}"
        at = [i for i in range(start, end) if re.match(rf"{indent[0]}{key}\s*:", lines[i])]
        if at:
            comment = re.search(r"\s+#.*$", lines[at[0]])
            lines[at[0]] = new + (comment[0] if comment else "")
        elif value not in ("", False):
            lines.insert(start + 1, new)
            end += 1
    changed = "\n".join(lines)
    wanted, found = from_yaml(text), from_yaml(changed)
    wanted["judge"] |= {k: v for k, v in settings.items() if k in found["judge"]}
    if wanted != found:
        raise refusal
    write_text(path, changed)
    return f"written into {path}: judge: {by_hand}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if ":" in value or not value else str(value)
