"""The report of a study of planners: what the levels are worth, and what each planner names."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.report import asking, examination, reliability
from rlli_jax.report.labels import (
    about_zero,
    conjunction,
    digits_for,
    duration,
    number,
    percent,
    plus_minus,
    quantity,
)
from rlli_jax.report.market_figures import convergence, returns_figure
from rlli_jax.report.run import (
    PolicyFolder,
    RunDirectory,
    interval_words,
    learns,
    load_policies,
    opened,
    opened_with_table,
)
from rlli_jax.report.section import Note, Report, Section, each, one
from rlli_jax.report.style import Drawing
from rlli_jax.run_files import Array
from rlli_jax.run_files.planner import PlannerEvaluation, PlannerReferences, PlannerSummary
from rlli_jax.run_files.policies import Curve
from rlli_jax.statistics import Estimate, t_interval

AUTHORS = {
    "oracle": "the right plan",
    "random": "any goal",
    "best_constant": "one goal always, the best in training",
    "rule": "a rule",
    "language_model": "a language model",
    "tiny_model": "a language model",
    "judge": "a judge",
    "smdp_q": "Q-learning over options",
}
ESTIMATED = "the best plan of the estimated process"
UNEQUAL = 0.01  # part by which steps of environments may differ and be called equal


class PlannerPolicy(PlannerSummary, PolicyFolder):
    """One planner or flat policy, and its episodes of evaluation."""

    evaluation: PlannerEvaluation

    @property
    def scores(self) -> Array:
        """Success rate or mean return, [seeds]."""
        return self.evaluation.objective

    def mean(self) -> Estimate:
        """The same with its interval over seeds."""
        return t_interval(self.scores)

    @property
    def plan(self) -> Array | None:
        """[seeds, situations, options]; None for a flat policy."""
        return self.evaluation.plan

    @property
    def steps(self) -> int:
        """In which it and its low level learned, of one seed."""
        return self.low_steps + (self.env_steps or 0)

    def counted(self, name: str) -> Estimate | None:
        """Mean of an episode of whatever was counted, if it was."""
        found = getattr(self.evaluation, name, None)
        return None if found is None else t_interval(found)


@dataclass(frozen=True, kw_only=True)
class PlannerRun(RunDirectory):
    """All that a run directory holds for the report."""

    references: PlannerReferences
    policies: tuple[PlannerPolicy, ...]  # in the order of the config

    @property
    def in_market(self) -> bool:
        """Whether it is an edge market, whose returns count."""
        return bool(self.config["environment"]["kind"] == "market")

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        return interval_words(len(self.policies[0].scores))

    @cached_property
    def planners(self) -> list[PlannerPolicy]:
        """Those with a plan."""
        return [policy for policy in self.policies if policy.plan is not None]

    @property
    def digits(self) -> int:
        """Decimals of a score."""
        return digits_for(max(float(np.abs(policy.scores).max()) for policy in self.policies))

    def score(self, estimate: Estimate) -> str:
        """A score with its interval."""
        if self.in_market:
            return plus_minus(estimate, self.digits)
        return plus_minus(Estimate(*(100 * x for x in estimate)), 1) + "\N{NO-BREAK SPACE}%"

    def difference(self, gap: Estimate) -> str:
        """A difference of scores with its interval."""
        if self.in_market:
            return plus_minus(gap, self.digits)
        return plus_minus(Estimate(*(100 * x for x in gap)), 1) + " points"

    def right(self, policy: PlannerPolicy) -> float:
        """Mean probability of the oracle's goals in a plan."""
        assert policy.plan is not None
        oracle = np.asarray(self.references.oracle)  # [seeds, S]
        return float(np.take_along_axis(policy.plan, oracle[..., None], -1).mean())

    def author(self, policy: PlannerPolicy) -> str:
        """Who chooses goals."""
        if policy.plan is None:
            return "nobody"
        if policy.learner == "oracle" and self.references.estimated:
            return ESTIMATED
        words = AUTHORS.get(policy.learner, policy.learner)
        model = policy.model + (", a stand-in" if policy.stand_in else "")
        return f"{words} ({model}), asked {policy.asked} times" if policy.model else words


def _load(path: Path) -> PlannerRun:
    market = (path / "table.npz").exists()
    files = opened_with_table(path) if market else opened(path)
    return PlannerRun(
        **files,
        references=PlannerReferences.read(path / "references.json"),
        policies=load_policies(path, files["config"], PlannerPolicy),
    )


def _summary(run: PlannerRun) -> str:
    known, seeds = run.references, len(run.policies[0].scores)
    value = plus_minus(t_interval(known.low_return), 2)
    low = f"{quantity(known.low_steps)} steps, {duration(known.low_seconds)} for all; return "
    low += f"{value} by its goals at the end"
    return (
        f"{len(known.situations)} situations, {len(known.options)} goals; {seeds} "
        f"seed{'' if seeds == 1 else 's'}, each with its own low level ({low})."
    )


def _notes(run: PlannerRun) -> list[Note]:
    notes: list[Note] = []
    tiny = [policy.name for policy in run.policies if policy.stand_in]
    if tiny:
        notes.append((
            f"{conjunction(tiny)}: a stand-in for a language model.",
            "Its weights are random and it has read nothing; a trained model plans otherwise.",
        ))  # fmt: skip
    if run.config["environment"].get("encoder") == "hashing":
        notes.append((
            "The sentence encoder is a stand-in.",
            "It counts letters and knows no meaning.",
        ))  # fmt: skip
    learned = [policy for policy in run.policies if policy.learner == "smdp_q"]
    flat = [policy for policy in run.policies if policy.plan is None]
    for policy in flat if learned else []:
        if abs(policy.steps / learned[0].steps - 1) > UNEQUAL:
            notes.append((
                f"{policy.name} and {learned[0].name} had unequal steps.",
                f"{quantity(policy.steps)} against {quantity(learned[0].steps)}.",
            ))  # fmt: skip
    return notes


def _lead(run: PlannerRun) -> str:
    learned = [p for p in run.planners if p.learned] or run.planners
    best = max(learned, key=lambda policy: float(policy.scores.mean()))
    flat = [p for p in run.policies if p.plan is None]
    score = "returns" if run.in_market else "succeeds in"
    text = f"{best.name} {score} {run.score(best.mean())}"
    if not flat:
        return text + "."
    other = max(flat, key=lambda policy: float(policy.scores.mean()))
    return f"{text}, {other.name} {run.score(other.mean())}."


def _details(run: PlannerRun) -> list[str]:
    """Differences of scores; low levels of one number are the same, flat policies are apart."""
    told = []
    asked = [p for p in run.planners if p.asked]
    by_learner = {p.learner: p for p in run.planners}
    flat = [p for p in run.policies if p.plan is None]
    learned, anything = by_learner.get("smdp_q"), by_learner.get("random")
    pairs = [
        *((learned, policy) for policy in flat),
        *((learned, by_learner.get(name)) for name in ("best_constant", "oracle")),
        *((policy, anything) for policy in (by_learner.get("oracle"), *asked)),
    ]
    for one_, other in pairs:
        if one_ is None or other is None:
            continue
        gap = t_interval(one_.scores - other.scores)
        verdict = f", which {about_zero(gap)}" if np.isfinite(gap.low) else ""
        told.append(f"{one_.name} less {other.name}: {run.difference(gap)}{verdict}.")
    for policy in asked:
        text = (
            f"{policy.name} names the oracle's goal in {percent(run.right(policy))} of situations"
        )
        if policy.unanswered:
            text += f", and none in {policy.unanswered}, where any is taken"
        told.append(text + ".")
    return told


def _row(run: PlannerRun, policy: PlannerPolicy) -> dict[str, Any]:
    row = {
        "name": policy.name,
        "reference": not policy.learned,
        "author": run.author(policy),
        "score": run.score(policy.mean()),
        "right": "–" if policy.plan is None else percent(run.right(policy)),
        "steps": quantity(policy.steps),
        "time": duration(policy.train_seconds),
    }
    if run.in_market:
        for name in ("total_qoe", "lost"):
            found = policy.counted(name)
            row[name] = "–" if found is None else plus_minus(found, 1)
        vips, tasks = policy.counted("vip_qoe"), policy.counted("vip_tasks")
        assert vips is not None
        assert tasks is not None
        row["vip"] = number(float(vips.value / tasks.value), 3)
    else:
        row["return"] = number(float(policy.returns.mean()), 3)
    return row


def _named(run: PlannerRun, policy: PlannerPolicy, situation: int) -> str:
    """What a planner names in a situation, and in how many seeds where they differ."""
    assert policy.plan is not None
    rows = policy.plan[:, situation]  # [seeds, O]
    if rows.max() < 1 - 1e-6:
        return "any"
    (option, times), *others = Counter(rows.argmax(-1).tolist()).most_common()
    name = run.references.options[option]
    return f"{name} ({times} of {len(rows)})" if others else name


def _plans(run: PlannerRun) -> dict[str, Any]:
    known = run.references
    shown = [p for p in run.planners if p.learner not in ("random", "best_constant")]
    rows = []
    for s, text in enumerate(known.situations):
        goals = [_named(run, policy, s) for policy in shown]
        # A goal that is named in all seeds and is not the oracle's.
        oracle = {known.options[row[s]] for row in known.oracle}
        wrong = [goal in known.options and goal not in oracle for goal in goals]
        rows.append({"situation": text, "goals": list(zip(goals, wrong, strict=True))})
    return {
        "names": [policy.name for policy in shown],
        "rows": rows,
        "prompt": known.prompt,
        "question": known.question,
        "judged": any(policy.learner == "judge" for policy in run.policies),
    }


def _scores(run: PlannerRun) -> Figure:
    what = "Return of an episode" if run.in_market else "Success rate"
    return returns_figure(run, f"{what} (filled: learned)")


def _learning(run: PlannerRun) -> list[Drawing]:
    low = SimpleNamespace(
        name="Low level",
        learner=run.config["low_level"]["learner"],
        curve=Curve.read(run.path / "low_level.npz"),
        returns=np.asarray(run.references.low_return),
    )
    alone = convergence(SimpleNamespace(policies=[low]))
    drawn: list[Drawing] = [("low_level", "Return of the low level while training", alone)]
    if learns(run):
        drawn.append(("convergence", "Return while training", convergence(run)))
    return drawn


REPORT = Report(
    kicker="rlli_jax report: planners",
    load=_load,
    header=examination.judged(_summary, notes=_notes),
    sections=(
        examination.SECTION,
        Section("planner/finding", lambda run: {"lead": _lead(run), "details": _details(run)}),
        Section("planner/policies", each(_row), one("returns", "Score of each policy", _scores)),
        Section("planner/plans", _plans),
        Section("planner/learning", figures=_learning),
        asking.SECTION,
        reliability.SECTION,
    ),
)
render = REPORT.render
