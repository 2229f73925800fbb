"""What was found when a judge was examined."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BeforeValidator, ConfigDict, PlainSerializer

from rlli_jax.run_files import Record

Check: TypeAlias = Literal[
    "sight", "scale", "order", "quality", "persona", "prediction", "steering"
]
Outcome: TypeAlias = Literal["pass", "weak", "fail", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: Check
    outcome: Outcome
    says: str
    """One sentence for people: what was found, and what helps."""
    what: str = ""
    """What ``estimate`` is."""
    estimate: float | None = None
    low: float | None = None
    """Of the 95 % interval, as ``high``; None where there is none."""
    high: float | None = None
    over: str = ""
    """What the interval is over."""
    threshold: str = ""
    """What would pass, and what is weak."""
    questions: int = 0
    """Answers that it rests on."""
    measures: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that was measured."""


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers short, and NaN, which JSON has not, as null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if not np.isfinite(value) else float(f"{value:.6g}")
    return value


Kept = Annotated[Finding, PlainSerializer(lambda finding: _plain(vars(finding)))]


class Examination(Record):
    """``examination.json``: whether the judge of a run can be believed."""

    judge: str
    stand_in: bool
    """Whether it takes a language model's place."""
    wording: str
    """Of the personas."""
    findings: tuple[Kept, ...]
    """One for each check."""

    @property
    def by_check(self) -> dict[Check, Finding]:
        """The findings by the names of their checks."""
        return {finding.check: finding for finding in self.findings}


def _several(findings: Any) -> Any:
    """Earlier versions made one check in each wording, and wrote it without a list."""
    return [findings] if isinstance(findings, Mapping) else findings


class Wordings(Record):
    """``wordings.json`` beside it: the findings in each wording of the personas, by its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[tuple[Kept, ...], BeforeValidator(_several)]]

    @property
    def findings(self) -> dict[str, tuple[Finding, ...]]:
        """Of each wording."""
        return dict(self.__pydantic_extra__)
