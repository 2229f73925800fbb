"""The report of a study of sessions: what adapting to a person is worth, turn by turn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlli_jax.report import asking, examination, reliability
from rlli_jax.report.examination import judged
from rlli_jax.report.labels import about_zero, number, plus_minus
from rlli_jax.report.market_figures import COLOURS, convergence, means
from rlli_jax.report.run import (
    PolicyFolder,
    RunDirectory,
    effort,
    learns,
    load_policies,
    opened_with_table,
)
from rlli_jax.report.section import Report, Section, each, one
from rlli_jax.report.style import DASHES, INK, PAGE, legend, legend_columns
from rlli_jax.run_files.session import SessionEvaluation, SessionReferences, SessionSummary
from rlli_jax.statistics import Estimate, t_interval
from rlli_jax.two_way import interval_over, two_way_bootstrap

DIGITS = 2
FELT, BELIEVED = "what was felt", "what was felt, by the belief"
WORDS = "what was felt, in words"
ADAPTS = {"reward", "history", "belief"}  # parts of an observation that tell what was felt


class SessionPolicy(SessionSummary, PolicyFolder):
    """One policy, and its sessions of evaluation; returns are the sum of what was felt."""

    evaluation: SessionEvaluation

    def mean(self) -> Estimate:
        """A session's sum, with its interval over seeds and sessions."""
        return two_way_bootstrap(np.asarray, self.evaluation.returns)

    @property
    def kind(self) -> str:
        """What of the person it uses."""
        if self.learner in ("random", "round_robin", "best_fixed"):
            return "nothing"
        if self.remembered:
            return WORDS
        if not self.learned:
            return BELIEVED
        used = [FELT] if ADAPTS & set(self.observation) else []
        used += ["the persona"] if "persona" in self.observation else []
        return " and ".join(used) or "nothing"


@dataclass(frozen=True, kw_only=True)
class SessionRun(RunDirectory):
    """All that a run directory holds for the report."""

    references: SessionReferences
    policies: tuple[SessionPolicy, ...]  # in the order of the config

    @property
    def hindsight(self) -> Estimate:
        """Mean over the sampled sessions, with its interval over them."""
        return t_interval(np.asarray(self.references.hindsight))

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        over = interval_over(*self.policies[0].evaluation.returns.shape)
        if over is None:
            return "Too few sessions for intervals."
        return f"±: half the 95 % interval over {over}, by a bootstrap; the people are these."


def _load(path: Path) -> SessionRun:
    files = opened_with_table(path)
    return SessionRun(
        **files,
        references=SessionReferences.read(path / "references.json"),
        policies=load_policies(path, files["config"], SessionPolicy),
    )


def gain(run: SessionRun, policy: SessionPolicy) -> Estimate:
    """What a session is worth above the exact value of the best that does not adapt."""
    return two_way_bootstrap(
        np.asarray, policy.evaluation.returns - run.references.best_without_adapting
    )


def _summary(run: SessionRun) -> str:
    known, met = run.references.people
    seeds, episodes = run.policies[0].evaluation.returns.shape
    return (
        f"{run.references.turns} turns a session; learned with {known} people, judged with "
        f"{met} others; {seeds} seed{'' if seeds == 1 else 's'}, {episodes:,} sessions each."
    )


def _adapting(run: SessionRun) -> list[SessionPolicy]:
    """Those that know of the person only what was felt in the session."""
    return [p for p in run.policies if p.kind in (FELT, BELIEVED, WORDS)]


def _lead(run: SessionRun) -> str:
    adapting = _adapting(run) or list(run.policies)
    best = max(adapting, key=lambda policy: float(policy.returns.mean()))
    return f"{best.name} {_against(run, best)}"


def _against(run: SessionRun, policy: SessionPolicy) -> str:
    more = gain(run, policy)
    low, high = number(float(more.low), DIGITS), number(float(more.high), DIGITS)
    text = f"brings {number(float(more.value), DIGITS)} QoE a session more than the best policy "
    text += "that does not adapt"
    if not np.isfinite(more.low):
        return text + "; so few sessions give no interval."
    return text + f" (95 % interval {low} to {high}), which {about_zero(more)}."


def _details(run: SessionRun) -> list[str]:
    first = max(_adapting(run) or run.policies, key=lambda p: float(p.returns.mean()))
    others = [f"{p.name} {_against(run, p)}" for p in _adapting(run) if p is not first]
    told = [p for p in run.policies if "persona" in p.observation]
    others += [f"{p.name}, told the persona, {_against(run, p)}" for p in told]
    room = float(run.hindsight.value) - run.references.best_without_adapting
    share = 100 * float(gain(run, first).value) / room
    return [
        *others,
        f"{first.name} makes {number(share, 0)} % of the gain that would be possible if the person "
        "and all that is to come were known; no policy can make all of it.",
    ]


def _reference_rows(run: SessionRun) -> list[tuple[str, str, str]]:
    known, bound = run.references, run.hindsight
    return [
        (
            "Hindsight",
            plus_minus(bound, DIGITS),
            "person, requests and tastes of the whole session known; a bound on every policy, "
            "estimated on sampled sessions",
        ),
        (
            "Person known",
            number(known.known_person, DIGITS),
            "the person's row of the table known, tastes of the moment not; exact",
        ),
        (
            "Best without adapting",
            number(known.best_without_adapting, DIGITS),
            "the best of all policies that ignore what is felt; knows request, turn and satiation, "
            "and the mean of these very people; exact",
        ),
        ("Random", number(known.random, DIGITS), "exact"),
    ]


def _row(run: SessionRun, policy: SessionPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "reference": not policy.learned,
        "kind": _told(policy) or policy.kind,
        "returns": plus_minus(policy.mean(), DIGITS),
        "gain": plus_minus(gain(run, policy), DIGITS),
    }


def _told(policy: SessionPolicy) -> str:
    """What a language model was told, which one, and how often it was asked."""
    if not policy.remembered:
        return ""
    turns = f"the last {policy.remembered} turns" if policy.remembered > 1 else "the last turn"
    model = f"{policy.model}{', a stand-in' if policy.stand_in else ''}"
    return f"{turns} in words ({model}, asked {policy.asked:,} times)"


def _learning_row(run: SessionRun, policy: SessionPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "reference": not policy.learned,
        "sees": ", ".join(policy.observation) or "–",
        **effort(policy),
    }


def _sessions(run: SessionRun) -> Figure:
    """Mean of each policy with its interval, and the references as lines."""
    figure = Figure((PAGE, 1.0 + 0.22 * len(run.policies)))
    axes = figure.subplots()
    means(axes, run.policies)
    for name, value, dash in (
        ("best without\nadapting", run.references.best_without_adapting, "solid"),
        ("person\nknown", run.references.known_person, (0, (4, 2))),
        ("hindsight", float(run.hindsight.value), (0, (1, 1.5))),
    ):
        axes.axvline(value, color=INK, linewidth=0.9, linestyle=dash)
        axes.annotate(
            name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=7, color=INK,
        )  # fmt: skip
    axes.set_xlabel("QoE of a session (filled: learned)")
    return figure


def _turns(run: SessionRun) -> Figure:
    """Expected QoE in each turn, one line for each policy, with its band over seeds."""
    figure = Figure((PAGE, 3.2))
    axes = figure.subplots()
    turns = np.arange(1, run.references.turns + 1)
    for i, policy in enumerate(run.policies):
        mean, low, high = t_interval(policy.evaluation.felt)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[(i // len(COLOURS) + i) % len(DASHES)]
        axes.fill_between(turns, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(turns, mean, color=colour, linestyle=dash, label=policy.name)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Turn")
    axes.set_ylabel("Expected QoE")
    legend(figure, legend_columns([p.name for p in run.policies], PAGE))
    return figure


REPORT = Report(
    kicker="rlli_jax report: sessions",
    load=_load,
    header=judged(_summary),
    sections=(
        examination.SECTION,
        Section("session/finding", lambda run: {"lead": _lead(run), "details": _details(run)}),
        Section(
            "session/sessions",
            lambda run: each(_row)(run) | {"references": _reference_rows(run)},
            one("sessions", "What a session is worth", _sessions),
        ),
        Section("session/turns", figures=one("turns", "QoE by turn", _turns)),
        Section(
            "session/learning",
            each(_learning_row),
            one("convergence", "Return while training", convergence),
            learns,
        ),
        asking.SECTION,
        reliability.SECTION,
    ),
)
render = REPORT.render
