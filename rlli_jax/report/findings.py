"""What a run found, in sentences that are computed from its data."""

import math
from dataclasses import dataclass
from itertools import pairwise

from rlli_jax.report.data import SelectionPolicy, SelectionRun
from rlli_jax.report.labels import (
    conjunction,
    percent,
    percent_interval,
    points_interval,
    setting,
    setting_words,
    settings,
    too_few,
)
from rlli_jax.statistics import Estimate, bootstrap_difference, bootstrap_iqm, within

# Differences below what the report prints (0.1 percentage points) are no differences.
RESOLUTION = 0.0005


@dataclass(frozen=True)
class Findings:
    """The main finding and what stands behind it."""

    lead: str
    details: tuple[str, ...]


def share(run: SelectionRun, policy: SelectionPolicy) -> Estimate:
    """Interquartile mean over seeds of the objective as a share of the optimum of Eq. (2).

    Its interval ends where choosing the best provider for each request does.
    """
    known = run.reference
    estimate = bootstrap_iqm(policy.objective / known.optimum)
    return within(estimate, 0, known.optimum_per_request / known.optimum)


def difference(run: SelectionRun, first: SelectionPolicy, second: SelectionPolicy) -> Estimate:
    """Difference of two policies' shares of the optimum."""
    scale = run.reference.optimum
    return bootstrap_difference(first.objective / scale, second.objective / scale)


def tied(estimate: Estimate) -> bool:
    """Whether the interval of a difference includes zero, to the precision of the report."""
    return bool(estimate.low <= RESOLUTION and estimate.high >= -RESOLUTION)


def findings(run: SelectionRun) -> Findings:
    """The headline: who reaches what share of the optimum, and which differences are real."""
    learned = sorted((p for p in run.policies if p.learned), key=lambda p: -share(run, p).value)
    baselines = (
        f"Random choice reaches {percent(run.reference.random / run.reference.optimum)} of the "
        f"optimum, the best single provider ({run.reference.best_single_provider}) "
        f"{percent(run.reference.best_single / run.reference.optimum)}."
    )
    if not learned:
        return Findings("No policy of this run was trained.", (baselines,))
    few = too_few(min(len(p.objective) for p in learned))
    details = (*_by_setting(run, learned), *_gains(run), baselines)
    return Findings(_lead(run, learned), (f"{few}.", *details) if few else details)


def _lead(run: SelectionRun, learned: list[SelectionPolicy]) -> str:
    best = learned[0]
    level = [p for p in learned[1:] if tied(difference(run, best, p))]
    if not level:
        reached = percent_interval(share(run, best), "95 % interval ")
        return f"{best.name} reaches {reached} of the optimum."
    names = conjunction([p.name for p in (best, *level)])
    first = percent_interval(share(run, best), "95 % interval ")
    reached = conjunction([first, *(percent_interval(share(run, p)) for p in level)])
    return f"{names} tie: they reach {reached} of the optimum."


def _by_setting(run: SelectionRun, learned: list[SelectionPolicy]) -> list[str]:
    """One sentence for each setting, best policy first, each compared with the next."""
    groups = settings(run.policies)
    sentences = []
    for group in groups:
        members = [p for p in learned if setting(p) == group]
        reached = [f"{p.name} reaches {percent_interval(share(run, p))}" for p in members]
        text = f"{setting_words(group, groups)}: {conjunction(reached)} of the optimum."
        for first, second in pairwise(members):
            gap = difference(run, first, second)
            pair = f"{first.name} and {second.name}"
            if not math.isfinite(float(gap.low)):
                text += f" {pair} cannot be told apart or ranked by so few seeds."
            elif tied(gap):
                text += f" {pair} tie: they differ by {points_interval(gap)}."
            else:
                text += f" {first.name} is ahead of {second.name} by {points_interval(gap)}."
        sentences.append(text)
    return sentences


def _gains(run: SelectionRun) -> list[str]:
    """What each learner gains from a setting over its first one."""
    groups = settings(run.policies)
    by_learner: dict[str, list[SelectionPolicy]] = {}
    for group in groups:
        for policy in run.policies:
            if policy.learned and setting(policy) == group:
                by_learner.setdefault(policy.learner, []).append(policy)
    sentences = []
    for first, *others in by_learner.values():
        for other in others:
            gain = difference(run, other, first)
            if setting(other) == setting(first) or not math.isfinite(float(gain.low)):
                continue
            verdict = "no difference can be shown" if tied(gain) else "the interval excludes zero"
            sentences.append(
                f"{other.name} minus {first.name}: {points_interval(gain)}; {verdict}."
            )
    return sentences
