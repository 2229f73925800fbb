"""The report of a study of an environment of one's own: what each policy returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.report.labels import digits_for, plus_minus
from rlli_jax.report.market_figures import convergence, returns_figure
from rlli_jax.report.run import (
    PolicyFolder,
    RunDirectory,
    effort,
    interval_words,
    learns,
    load_policies,
    opened,
)
from rlli_jax.report.section import Header, Report, Section, each, one
from rlli_jax.statistics import Estimate, t_interval


class EnvironmentPolicy(PolicyFolder):
    """One policy, and the returns of its evaluation; each seed plays its own episodes."""

    def mean(self) -> Estimate:
        """The mean return, with its interval over seeds."""
        return t_interval(self.returns)


@dataclass(frozen=True, kw_only=True)
class EnvironmentRun(RunDirectory):
    """All that a run directory holds for the report."""

    policies: tuple[EnvironmentPolicy, ...]  # in the order of the config

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        return interval_words(len(self.policies[0].returns))

    @property
    def digits(self) -> int:
        """Decimals of a return."""
        return digits_for(max(float(np.abs(policy.returns).max()) for policy in self.policies))

    @property
    def best(self) -> EnvironmentPolicy:
        """The policy that returns most."""
        return max(self.policies, key=lambda policy: float(policy.returns.mean()))


def _load(path: Path) -> EnvironmentRun:
    files = opened(path)
    return EnvironmentRun(**files, policies=load_policies(path, files["config"], EnvironmentPolicy))


def _header(run: EnvironmentRun) -> Header:
    seeds, episodes = run.best.evaluation.returns.shape
    summary = (
        f"{run.config['environment']['make']}; {seeds} seed{'' if seeds == 1 else 's'}, each "
        f"judged on {episodes} episode{'' if episodes == 1 else 's'}."
    )
    return Header([("", summary)])


def _finding(run: EnvironmentRun) -> dict[str, str]:
    return {"lead": f"{run.best.name} returns most: {plus_minus(run.best.mean(), run.digits)}."}


def _row(run: EnvironmentRun, policy: EnvironmentPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "learner": policy.learner,
        "returns": plus_minus(policy.mean(), run.digits),
        **effort(policy),
    }


REPORT = Report(
    kicker="rlli_jax report: environment",
    load=_load,
    header=_header,
    sections=(
        Section("environment/finding", _finding),
        Section(
            "environment/policies",
            each(_row),
            one("returns", "Return of each policy", returns_figure),
        ),
        Section(
            "environment/learning",
            figures=one("convergence", "Return while training", convergence),
            when=learns,
        ),
    ),
)
render = REPORT.render
