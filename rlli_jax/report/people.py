"""The page of `rlli evaluate`: what a log of people says, from the JSON file that it wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.files import write_text
from rlli_jax.report.section import Header, Report, Section, one
from rlli_jax.report.style import BLUE, COLUMN, INK, LIGHT_GREY, MUTED, PAGE, Drawing
from rlli_jax.run_files.people import LogFindings, RatingsPoint, ValuedPolicy, WithInterval

LONGEST = 34  # characters of a name in a figure


@dataclass(frozen=True)
class PeopleRun:
    """What ``rlli evaluate`` found."""

    title: str
    found: LogFindings
    description: str = ""

    @property
    def low(self) -> float:
        """The scale of the log begins here."""
        return self.found.scale[0]

    @property
    def high(self) -> float:
        """The scale of the log ends here."""
        return self.found.scale[1]

    @property
    def policies(self) -> list[ValuedPolicy]:
        """What each policy would have been worth, best first."""
        return sorted(self.found.policies, key=lambda policy: -policy.best.value)

    def own(self, value: Any) -> Any:
        """QoE from 0 to 1 on the scale of the log."""
        return self.low + (self.high - self.low) * value

    def qoe(self, value: float | None) -> str:
        """The same, to print."""
        return "–" if value is None else f"{self.own(value):.3f}"

    def ends(self, x: WithInterval) -> str:
        """The ends of an interval, to print; none lies beyond the scale."""
        cut = x.cut()
        return f"{self.qoe(cut.low)} to {self.qoe(cut.high)}"

    def gain(self, value: float) -> str:
        """A difference on the scale of the log, to print."""
        return f"{(self.high - self.low) * value:+.3f}"


def render_findings(findings: str | Path, title: str) -> Path:
    """Write the page of a file of findings beside it, with the ending ``.html``; its path.

    InputError where the file is missing or damaged, or the page cannot be written.
    """
    path = Path(findings)
    page, _ = REPORT.page(PeopleRun(title, LogFindings.read(path)))
    target = path.with_suffix(".html")
    write_text(target, page)
    return target


def _header(run: PeopleRun) -> Header:
    found = run.found
    summary = (
        f"{found.rounds:,} rounds of {found.users:,} people; QoE on the scale from "
        f"{run.low:g} to {run.high:g}. What served them was worth "
        f"{run.qoe(found.logging_policy)}. Propensities: {found.propensities}."
    )
    judge = [("The run was trained on", found.judge.judge)] if found.judge else []
    return Header([("", summary), *judge, *(("", f"{note}.") for note in found.notes)])


def _forest(run: PeopleRun) -> Figure:
    policies = run.policies
    figure = Figure((PAGE, 0.7 + 0.24 * len(policies)))
    axes = figure.subplots()
    logged = run.own(run.found.logging_policy)
    axes.axvline(logged, color=MUTED, linewidth=0.8, linestyle="dashed")
    axes.text(
        logged, -0.75, " as logged", color=MUTED, fontsize=7, ha="left", va="center", clip_on=False
    )
    for row, policy in enumerate(policies):
        best = policy.best.cut()
        value, start, end = map(run.own, (best.value, best.low, best.high))
        told = not policy.warning
        colour = BLUE if policy.name in run.found.of_run else INK
        axes.plot([start, end], [row, row], color=colour if told else LIGHT_GREY, linewidth=1.6)
        axes.plot(
            value, row, "s" if told else "o", color=colour, markersize=4.5,
            markerfacecolor=colour if told else "white",
        )  # fmt: skip
    axes.set_yticks(range(len(policies)), [_short(policy.name) for policy in policies])
    axes.set_ylim(len(policies) - 0.4, -1.1)
    axes.set_xlabel(f"QoE, {run.low:g} to {run.high:g}")
    axes.grid(axis="y", visible=False)
    return figure


def _bought(run: PeopleRun) -> list[Drawing]:
    curve = run.found.judge.curve if run.found.judge else ()
    if len(curve) < 2:
        return []
    return [("bought", "What ratings of so many people buy", _curve(run, curve))]


def _curve(run: PeopleRun, curve: Sequence[RatingsPoint]) -> Figure:
    figure = Figure((COLUMN, 2.4))
    axes = figure.subplots()
    people = np.array([point.people for point in curve])
    for key, label, colour, dash in (
        ("with_judge", "with the judge", BLUE, "solid"),
        ("without", "people alone", INK, "dashed"),
    ):
        value, start, end = (
            run.own(np.array([getattr(getattr(point, key), part) for point in curve]))
            for part in ("value", "low", "high")
        )
        axes.plot(people, value, color=colour, linestyle=dash, label=label, marker=".")
        axes.fill_between(people, start, end, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xticks(people, [str(x) for x in people])
    axes.set_xlabel("people whose ratings are used")
    axes.set_ylabel("QoE of the choices for others")
    axes.legend()
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


REPORT = Report(
    kicker="rlli_jax: what people say",
    load=Path,
    header=_header,
    sections=(
        Section("people/worth_it", when=lambda run: run.found.gain_of_personalising is not None),
        Section(
            "people/policies",
            figures=one(
                "forest", "What each policy would have been worth to these people", _forest
            ),
        ),
        Section("people/judge", figures=_bought, when=lambda run: run.found.judge is not None),
    ),
    made=False,
)
