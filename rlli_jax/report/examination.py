"""Whether the judge can be believed: ``examination.json`` of a run directory, in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlli_jax.report.labels import number
from rlli_jax.report.run import RunDirectory
from rlli_jax.report.section import Header, Note, of_file
from rlli_jax.run_files.examination import Check, Examination, Finding

FILE = "examination.json"

ABOUT: dict[Check, str] = {
    "sight": "Do pictures change the answer?",
    "scale": "Does it answer with the labels?",
    "order": "Is the answer the same in other words and label orders?",
    "quality": "Does it like what people like?",
    "persona": "Does it answer a questionnaire as the persona?",
    "prediction": "Told half of a person's answers, does it know the rest?",
    "steering": "Do traits change which pictures are liked?",
}
NO_CLAIM = (
    "As a persona this judge {0}. What was learned here is about pictures and not about people: "
    "differences between users are differences between prompts."
)
NOT_EXAMINED = (
    "This judge was not examined: whether it sees, follows the scale and answers as the persona is "
    "not known."
)
YARDSTICK = (
    "Convergent r",
    "Alpha",
    "Alpha of people",
    "Mean",
    "Mean of people",
    "SD",
    "SD of people",
)
KEYS = ("convergent", "alpha", "alpha of people", "mean", "mean of people", "sd", "sd of people")


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    check: str
    about: str
    outcome: str
    measured: str
    interval: str
    threshold: str
    says: str


@dataclass(frozen=True)
class ExaminationView:
    """The section of the report, ready to print."""

    verdicts: list[Verdict]
    claim: str  # what may not be claimed; empty if nothing
    personas: int
    traits: list[tuple[str, list[str]]]  # trait, its numbers in the order of ``yardstick``
    yardstick: tuple[str, ...] = YARDSTICK


def _view(file: Path, run: RunDirectory) -> ExaminationView:
    found = Examination.read(file)
    persona = found.by_check["persona"]
    claim = ""
    if not found.stand_in and persona.outcome != "pass":
        word = {"fail": "fails", "weak": "is weak"}.get(persona.outcome, "was not examined")
        claim = NO_CLAIM.format(word)
    measures = persona.measures
    traits = [
        (trait, [_figure(measures[key][i]) for key in KEYS])
        for i, trait in enumerate(measures.get("traits", []))
    ]
    verdicts = [_verdict(finding) for finding in found.findings]
    return ExaminationView(verdicts, claim, int(measures.get("personas", 0)), traits)


def _verdict(finding: Finding) -> Verdict:
    low, high = finding.low, finding.high
    interval = "" if low is None or high is None else f"{_figure(low)} to {_figure(high)}"
    if interval and finding.over:
        interval += f", over {finding.over}"
    measured = "" if finding.estimate is None else _figure(finding.estimate)
    if measured:
        measured += f" ({finding.what})"
    return Verdict(
        finding.check, ABOUT[finding.check], finding.outcome, measured, interval,
        finding.threshold, finding.says,
    )  # fmt: skip


def _figure(value: float | None) -> str:
    return "–" if value is None else number(value, 3 if abs(value) < 0.1 else 2)


SECTION = of_file("examination", FILE, _view)

STAND_IN = (
    "Scores come from a stand-in for a language model.",
    "No language model rated these pictures. The judge named above took its place, so the numbers "
    "below show how the policies behave, not how a language model would rate.",
)


def judged(
    summary: Callable[[Any], str],
    *,
    word: str = "Judge",
    stand_in: Note = STAND_IN,
    notes: Callable[[Any], Sequence[Note]] = lambda run: (),
) -> Callable[[Any], Header]:
    """The header of a run: who rated the pictures, if anybody, and what of that a reader must know.

    Args:
        summary: run -> a line of its own.
        word: what the judge is called.
        stand_in: what a reader must know where it stands in for a language model.
        notes: run -> what else must not be missed.
    """

    def header(run: RunDirectory) -> Header:
        lines = [("", summary(run)), *([(word, run.judge)] if run.judge else [])]
        judge = run.config.get("judge") or {}
        asked = judge.get("kind") in ("transformers", "openai")
        known = (run.path / FILE).exists() or judge.get("examination")  # sweeps keep no file
        told = [stand_in] if run.stand_in else []
        told += [*notes(run), *([(NOT_EXAMINED, "")] if asked and not known else [])]
        return Header(lines, told)

    return header
