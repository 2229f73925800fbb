"""The report of a language model tuned by reward: exact returns against exact references."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.report import asking, examination, reliability
from rlli_jax.report.labels import (
    percent,
    percent_interval,
    plus_minus,
    quantity,
    too_few,
)
from rlli_jax.report.market_figures import COLOURS
from rlli_jax.report.run import PolicyFolder, RunDirectory, effort, load_policies, opened_with_table
from rlli_jax.report.section import Note, Report, Section, each
from rlli_jax.report.style import (
    DASHES,
    MAX_POINTS,
    PAGE,
    Drawing,
    legend,
    legend_columns,
    level,
)
from rlli_jax.run_files import Array
from rlli_jax.run_files.policies import Curve
from rlli_jax.run_files.tuning import TunedEvaluation, TunedSummary, TuningReferences
from rlli_jax.statistics import Estimate, t_interval, within

METHODS = {
    "grpo": "GRPO",
    "rloo": "RLOO",
    "language_ppo": "PPO with a value head",
}
TRAINED = {"lora": "a LoRA", "full": "all weights", None: "a network on numbers"}


class TunedPolicy(TunedSummary, PolicyFolder):
    """One policy, its choices and its training; returns are what its likeliest choices are worth,
    exact."""

    evaluation: TunedEvaluation
    curve: Curve

    @property
    def tuned(self) -> bool:
        """Whether it is the language model."""
        return self.adapt is not None

    def metric(self, name: str) -> Array:
        """[seeds, iterations]; of the language model exact."""
        return np.asarray(getattr(self.curve, name))


@dataclass(frozen=True, kw_only=True)
class TuningRun(RunDirectory):
    """All that a run directory holds for the report."""

    references: TuningReferences
    policies: tuple[TunedPolicy, ...]  # in the order of the config

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        seeds = self.policies[0].seeds
        few = too_few(seeds)
        over = "95 % Student-t intervals, cut at 100 %, over seeds of the tuning"
        return few + "." if few else f"{over}; users, table and the model as it begins are these."

    def share(self, value: Array) -> Estimate:
        """Of the optimum for each request, over seeds; the interval within 0 and 1."""
        return within(t_interval(value / self.references.optimum_per_request), 0, 1)


def _load(path: Path) -> TuningRun:
    files = opened_with_table(path)
    return TuningRun(
        **files,
        references=TuningReferences.read(path / "references.json"),
        policies=load_policies(path, files["config"], TunedPolicy),
    )


def _summary(run: TuningRun) -> str:
    known = run.references
    return (
        f"{known.model}, {quantity(known.parameters)} parameters; {known.prompts} "
        f"prompts, one for each user and request; {run.policies[0].seeds} seeds."
    )


def _lead(run: TuningRun) -> str:
    tuned = [policy for policy in run.policies if policy.tuned] or list(run.policies)
    best = max(tuned, key=lambda policy: float(policy.returns.mean()))
    known = run.references
    untuned = known.untuned / known.optimum_per_request
    return (
        f"{best.name} reaches {percent_interval(run.share(best.returns), '95 % interval ')} of the "
        f"optimum by its likeliest answers; the untuned model draws answers worth "
        f"{percent(untuned)}, and the best single provider, "
        f"{known.best_single_provider}, is worth "
        f"{percent(known.best_single / known.optimum_per_request)}."
    )


def _row(run: TuningRun, policy: TunedPolicy) -> dict[str, Any]:
    nothing = {"drawn": "–", "kl": "–"}
    exact = nothing if not policy.tuned else {
        "drawn": percent_interval(run.share(policy.metric("episode_return")[:, -1])),
        "kl": plus_minus(t_interval(policy.metric("kl")[:, -1]), 2),
    }  # fmt: skip
    return exact | {
        "name": policy.name,
        "method": METHODS.get(policy.learner, policy.learner),
        "trained": TRAINED[policy.adapt],
        "likeliest": percent_interval(run.share(policy.returns)),
        "least": percent(float(policy.returns.min()) / run.references.optimum_per_request),
    }


def _tuning_row(run: TuningRun, policy: TunedPolicy) -> dict[str, str]:
    return {
        "name": policy.name,
        "sees": ", ".join(policy.observation),
        **effort(policy),
    }


def _reference_rows(run: TuningRun) -> list[tuple[str, str, str]]:
    known = run.references
    return [
        (name, percent(value / known.optimum_per_request), words)
        for name, value, words in (
            ("Optimum for each request", known.optimum_per_request,
             "the best provider for each user and request: what no policy exceeds"),
            ("Optimum", known.optimum, "the best provider for each user, Eq. (2)"),
            ("Best single", known.best_single, f"{known.best_single_provider} for everybody"),
            ("Untuned", known.untuned, "the language model as it begins, drawing its answers"),
            ("Random", known.random, "each provider alike"),
        )
    ]  # fmt: skip


def _looks(run: TuningRun) -> dict[str, dict[str, Any]]:
    return {
        policy.name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
        for i, policy in enumerate(run.policies)
    }


def _returns(run: TuningRun) -> Figure:
    """Return after each iteration, one line a policy, its band over seeds, references as levels."""
    figure, looks, known = Figure((PAGE, 3.4)), _looks(run), run.references
    axes = figure.subplots()
    for policy in run.policies:
        x = policy.curve.env_steps
        keep = slice(None, None, 1 + len(x) // MAX_POINTS)
        mean, low, high = (part[keep] for part in t_interval(policy.curve.episode_return))
        look = looks[policy.name]
        axes.fill_between(x[keep], low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(x[keep], mean, label=policy.name, **look)
    for name, value in (
        ("optimum", known.optimum_per_request),
        (f"best single ({known.best_single_provider})", known.best_single),
        ("untuned", known.untuned),
    ):
        level(axes, name, value, (0, (4, 2)), value)
    axes.margins(x=0)
    axes.set_xlabel("Requests answered, of a seed")
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.set_ylabel("QoE, summed over users")
    legend(figure, legend_columns([p.name for p in run.policies], PAGE))
    return figure


def _divergence(run: TuningRun) -> Figure:
    """Return against the square root of the divergence from the start, a line a seed."""
    figure, looks = Figure((PAGE, 3.2)), _looks(run)
    axes = figure.subplots()
    tuned = [policy for policy in run.policies if policy.tuned]
    for policy in tuned:
        kl, earned = policy.metric("kl"), policy.curve.episode_return
        for seed in range(len(kl)):
            axes.plot(
                np.sqrt(np.maximum(kl[seed], 0)), earned[seed], linewidth=0.7, alpha=0.7,
                label=policy.name if seed == 0 else None, **looks[policy.name],
            )  # fmt: skip
    axes.set_xlabel("Square root of KL(policy || start), nats, mean over prompts")
    axes.set_ylabel("QoE, summed over users")
    legend(figure, legend_columns([p.name for p in tuned], PAGE))
    return figure


TINY = (
    "The tuned model is a tiny stand-in.",
    "Its weights are random: it has read nothing, and what it knows of users and providers it "
    "learned here. A trained model begins elsewhere.",
)


def _notes(run: TuningRun) -> list[Note]:
    return [TINY] if run.config["model"]["kind"] == "stand_in" else []


def _tuning(run: TuningRun) -> list[Drawing]:
    drawn = [("return", "Expected return while tuning", _returns(run))]
    if any(policy.tuned for policy in run.policies):
        drawn.append(("kl", "Expected return against divergence", _divergence(run)))
    return drawn


REPORT = Report(
    kicker="rlli_jax report: tuned language model",
    load=_load,
    header=examination.judged(_summary, notes=_notes),
    sections=(
        examination.SECTION,
        Section("tuning/finding", lambda run: {"lead": _lead(run)}),
        Section(
            "tuning/policies", lambda run: each(_row)(run) | {"references": _reference_rows(run)}
        ),
        Section("tuning/tuning", each(_tuning_row), _tuning),
        asking.SECTION,
        reliability.SECTION,
    ),
)
render = REPORT.render
