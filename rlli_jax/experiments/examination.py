"""A judge is examined before its table is asked, and what is found is kept and shown.

``examination.json`` of a run directory holds one finding for each check, see
:class:`rlli_jax.run_files.examination.Examination`. The answers are in the judge's store like all
others, so that a second examination asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from rlli_jax.errors import InputError
from rlli_jax.experiments.judge_blocks import AnyJudge, RecordedScores
from rlli_jax.judges.examination import Finding
from rlli_jax.oracle import Asker
from rlli_jax.personas import Wording
from rlli_jax.run_files.examination import Examination, Wordings

if TYPE_CHECKING:
    from rlli_jax.experiments.sources import Inquiry, PopulationBlock
    from rlli_jax.judges.examination.examine import Setting

FILE = "examination.json"
MARKS = {"pass": "green", "weak": "yellow", "fail": "bold red", "not applicable": "dim"}


def setting_of(
    inquiry: Inquiry,
    judge: AnyJudge,
    population: PopulationBlock | None,
    human: RecordedScores | None,
    *,
    require: Sequence[Any] = (),
) -> Setting:
    """What the judge of a study is examined by."""
    from rlli_jax.judges.examination.examine import Setting

    wording = inquiry.population.personas[0].wording
    scores = {} if human is None else _human_scores(human, inquiry)
    answers = _answers(population, judge.people)
    return Setting(
        inquiry.catalog, inquiry.scale, wording=wording, human=scores, require=tuple(require),
        answers=answers, **judge.examining(),
    )  # fmt: skip


def _human_scores(block: RecordedScores, inquiry: Inquiry) -> Mapping[tuple[str, str], float]:
    """(request, provider) -> mean score, of the pictures that people scored."""
    from rlli_jax.experiments.sources import recorded
    from rlli_jax.oracle import ask

    people = recorded(block, inquiry.catalog)
    table = people.table(ask(people.judge, people.questions()))
    scores = np.where(table.legal, table.mean, np.nan)  # [people, R, L]
    return {
        (request, provider): float(np.nanmean(scores[:, r, p]))
        for r, request in enumerate(table.requests)
        for p, provider in enumerate(table.providers)
        if not np.isnan(scores[:, r, p]).all()
    }


def _answers(population: PopulationBlock | None, count: int) -> np.ndarray | None:
    """[people, 50] of the first people whose answers to the questionnaire have no gap."""
    if population is None or population.questionnaire is None or not count:
        return None
    from rlli_jax.personas.questionnaire import read_answers

    _, answers = read_answers(population.questionnaire)
    whole = answers[~np.isnan(answers).any(1)]
    return whole[np.random.default_rng(0).permutation(len(whole))[:count]]


def examine_judge(
    inquiry: Inquiry,
    judge: AnyJudge,
    population: PopulationBlock | None,
    human: RecordedScores | None,
    ask: Asker,
    console: Console,
    path: Path | None,
    *,
    require: Sequence[Any] = (),
) -> list[Finding]:
    """Examine the judge; write what is found into the run directory ``path``, and show it.

    Raises:
        InputError: a check of ``require`` failed, after everything is written and shown.
    """
    from rlli_jax.judges.examination.examine import examine

    findings = examine(ask, setting_of(inquiry, judge, population, human, require=require))
    if path is not None:
        Examination(
            judge=inquiry.judge.identity.describe(),
            stand_in=inquiry.judge.identity.stand_in,
            wording=inquiry.population.personas[0].wording,
            findings=tuple(findings),
        ).write(path / FILE)
    show(findings, console)
    failed = [f for f in findings if f.check in require and f.outcome == "fail"]
    if failed:
        first = failed[0]
        rest = [check for check in require if check != first.check]
        raise InputError(
            f"the judge fails the check {first.check!r} ({first.says}), so its table was not "
            f"asked; change the judge, or set judge.require to [{', '.join(rest)}] to go on all "
            "the same."
        )
    return findings


def show(findings: Sequence[Finding], console: Console) -> None:
    """The findings as a table for people."""
    table = Table("check", "verdict", "measured", "95 % interval", "what it says")
    for finding in findings:
        table.add_row(finding.check, *_cells(finding))
    console.print(table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def compare_wordings(ask: Asker, setting: Setting, console: Console) -> Wordings:
    """How well personas are played in each wording, shown beside each other: from traits drawn
    from norms (``persona``), and where people answered the questionnaire from half of their answers
    (``prediction``)."""
    from rlli_jax.judges.examination.examine import persona_checks

    found = {w: tuple(persona_checks(ask, replace(setting, wording=w))) for w in get_args(Wording)}
    table = Table("wording", "check", "verdict", "r", "95 % interval", "what it says")
    for wording, findings in found.items():
        for finding in findings:
            table.add_row(wording, finding.check, *_cells(finding))
    console.print(table)
    return Wordings.checked(found)


def _cells(finding: Finding) -> tuple[str, str, str, str]:
    """Verdict, estimate, interval and words of a row."""
    return (
        f"[{MARKS[finding.outcome]}]{finding.outcome}[/]",
        "" if finding.estimate is None else f"{finding.estimate:.3g}",
        ""
        if finding.low is None or finding.high is None or not np.isfinite(finding.low)
        else f"{finding.low:.2f} to {finding.high:.2f} ({finding.over})",
        _plain(finding.says),
    )


def examine_study(
    population: PopulationBlock | None,
    catalog: Any,
    judge: AnyJudge,
    human: RecordedScores | None,
    console: Console,
    path: Path,
    *,
    wordings: bool = False,
) -> list[Finding]:
    """Examine the judge of a study and nothing else; nothing is required of it.

    With ``wordings`` personas are first compared in every wording (:func:`compare_wordings`), which
    is kept as ``wordings.json`` beside ``examination.json``.

    Raises:
        InputError: the judge replays recorded scores, so nobody can be asked.
    """
    from rlli_jax.experiments.sources import inquire

    judge.examining()  # refuses one that is not asked
    inquiry = inquire(population, catalog, judge)
    with judge.asker(inquiry.judge, console) as ask:
        if wordings and judge.paid:
            setting = setting_of(inquiry, judge, population, human)
            compare_wordings(ask, setting, console).write(path / "wordings.json")
        return examine_judge(inquiry, judge, population, human, ask, console, path)
