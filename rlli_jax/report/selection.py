"""The report of a study of provider selection: its sections."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlli_jax.report import asking, examination, figures, generated, reliability
from rlli_jax.report.data import SelectionPolicy, SelectionRun, Thumbnail, load_run
from rlli_jax.report.findings import findings, share
from rlli_jax.report.labels import (
    conjunction,
    digits_for,
    duration,
    interval,
    number,
    percent,
    percent_interval,
    plus_minus,
    quantity,
    setting,
    settings,
)
from rlli_jax.report.run import learns
from rlli_jax.report.section import Note, Report, Section, of_file, one
from rlli_jax.run_files.people import Personalising
from rlli_jax.run_files.selection import HeldOutUsers, Human
from rlli_jax.statistics import Estimate, jain_index, t_interval, within

MAX_REQUESTS = 12  # in the gallery


def _summary(run: SelectionRun) -> str:
    """One line: what was run."""
    shape = (
        (len(run.table.users), "user"),
        (len(run.table.requests), "request"),
        (len(run.table.providers), "provider"),
    )
    counts = conjunction([f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in shape])
    seeds = sorted({p.seeds for p in run.policies if p.learned})
    each = f", {conjunction([str(n) for n in seeds])} seeds each" if seeds else ""
    learned = [p.name for p in run.policies if p.learned]
    return f"{counts}; trained policies: {conjunction(learned) or 'none'}{each}."


def _policy_rows(run: SelectionRun) -> list[dict[str, Any]]:
    """The lines of the table of policies, ready to print."""
    groups = settings(run.policies)
    shares = {p.name: share(run, p) for p in run.policies}
    digits = digits_for(max(abs(float(p.returns.mean())) for p in run.policies))

    def order(policy: SelectionPolicy) -> tuple[bool, int, float]:
        group = groups.index(setting(policy)) if policy.learned else 0
        return not policy.learned, group, -float(shares[policy.name].value)

    return [
        {
            "name": policy.name,
            "seeds": len(policy.objective),
            "returns": plus_minus(policy.mean(), digits),
            "ratio": percent(float(policy.objective.mean()) / run.reference.optimum),
            "iqm": percent_interval(shares[policy.name]),
            "fairness": number(float(jain_index(policy.qoe).mean()), 3),
            "train": duration(policy.train_seconds),
            "compile": duration(policy.compile_seconds),
            "speed": quantity(policy.steps_per_second),
        }
        for policy in sorted(run.policies, key=order)
    ]


@dataclass(frozen=True)
class Offer:
    """One provider's picture for one request, with what each shown user thinks of it."""

    provider: str
    picture: Thumbnail | None
    ratings: list[tuple[str, float, bool]]  # user, mean QoE (NaN: no score), best for the user
    made: generated.Told | None  # of a picture that was generated


@dataclass(frozen=True)
class ShownRequest:
    request: str
    offers: list[Offer]

    @property
    def has_pictures(self) -> bool:
        return any(offer.picture for offer in self.offers)


def _shown_request(
    run: SelectionRun, request: int, made: Mapping[tuple[int, int], generated.Told]
) -> ShownRequest:
    table = run.table
    mean = np.where(table.legal, table.mean, np.nan)[: figures.MAX_USERS, request]  # [users, L]
    best = mean == np.fmax.reduce(mean, 1, keepdims=True)
    users = table.users[: figures.MAX_USERS]
    offers = [
        Offer(
            provider,
            run.thumbnail(request, index),
            [(user, float(mean[k, index]), bool(best[k, index])) for k, user in enumerate(users)],
            made.get((request, index)),
        )
        for index, provider in enumerate(table.providers)
    ]
    return ShownRequest(table.requests[request], offers)


def _mean_rows(run: SelectionRun) -> list[dict[str, Any]]:
    """QoE means over requests: each user's row over providers, and the row's best."""
    means = run.test.provider_values
    return [
        {"user": user, "cells": [(float(value), bool(value == row.max())) for value in row]}
        for user, row in zip(run.table.users, means, strict=True)
    ]


def _human_rows(human: Human) -> list[tuple[str, str, bool]]:
    """Name, score, and whether it is a reference; best first."""
    rows = [
        (name, plus_minus(t_interval(scores), 3), float(np.mean(scores)), False)
        for name, scores in human.policies.items()
    ]
    best = human.references
    rows += [
        (name, number(value, 3), value, True)
        for name, value in (
            ("Random choice", best.random),
            (f"Best single provider ({best.best_single_provider})", best.best_single),
            ("Best for each request", best.best_per_request),
        )
    ]
    return [(label, text, ref) for label, text, _, ref in sorted(rows, key=lambda r: -r[2])]


def _users_shown(run: SelectionRun) -> dict[str, Any]:
    return {"users_shown": run.table.users[: figures.MAX_USERS]}


def _gallery(run: SelectionRun) -> dict[str, Any]:
    places = range(len(run.table.requests))[:MAX_REQUESTS]
    told = generated.load(run.path)
    shown = [_shown_request(run, place, told) for place in places]
    return {"gallery": shown, "generated": bool(told)} | _users_shown(run)


def _human(run: SelectionRun) -> dict[str, Any]:
    assert run.human is not None
    return {"human": _human_rows(run.human)}


def _means(run: SelectionRun) -> dict[str, Any]:
    return {"means": _mean_rows(run), "holes": int((~run.test.valid).sum())}


def _notes(run: SelectionRun) -> list[Note]:
    return [(run.people.warning, "")] if run.people and run.people.warning else []


def _policies(run: SelectionRun) -> dict[str, Any]:
    encoders = [(policy.name, policy.encoder) for policy in run.policies if policy.encoder]
    return {"rows": _policy_rows(run), "encoders": encoders}


def _held_out_users(path: Path, run: SelectionRun) -> dict[str, Any]:
    """What policies and references are worth to held-out people, best first."""
    found = HeldOutUsers.read(path)
    told = {"optimum": "Optimum", "best_single": "Best single provider", "random": "Random choice"}
    served = [(name, worth, False) for name, worth in found.policies.items()]
    served += [(told[name], worth, True) for name, worth in found.references.items()]
    most = 1 if found.requests == 1 else np.inf  # one provider for several requests can be beaten
    rows = [
        {
            "name": name,
            "reference": reference,
            "qoe": interval(within(Estimate(*map(np.asarray, worth.qoe)), 0, 1), 3),
            "share": percent_interval(
                within(Estimate(*map(np.asarray, worth.of_optimum)), 0, most)
            ),
        }
        for name, worth, reference in sorted(served, key=lambda row: -row[1].qoe[0])
    ]
    return {"found": found, "rows": rows}


REPORT = Report(
    kicker="rlli_jax report",
    load=load_run,
    header=examination.judged(_summary, notes=_notes),
    sections=(
        examination.SECTION,
        Section("selection/finding", lambda run: {"findings": findings(run)}),
        Section("selection/policies", _policies),
        Section(
            "selection/curves",
            figures=figures.learning_curves,
            when=learns,
        ),
        Section(
            "selection/users",
            _users_shown,
            one("users", "QoE of each user under each policy", figures.user_bars),
        ),
        Section(
            "selection/choices",
            _users_shown,
            one("choices", "Share of choices that each user gets from each provider",
                figures.choice_maps),
        ),
        Section(
            "selection/profiles",
            _users_shown,
            one("profiles", "Big Five profile of each user", figures.profiles),
            lambda run: run.traits is not None,
        ),
        generated.SECTION,
        Section("selection/gallery", _gallery),
        Section(
            "selection/human",
            _human,
            one("human", "Human opinion of what each policy chose", figures.human_opinion),
            lambda run: run.human is not None,
        ),
        Section("selection/means", _means),
        of_file("held_out_users", "held_out_users.json", _held_out_users),
        of_file("personalising", "personalising.json", lambda path, run: Personalising.read(path)),
        asking.SECTION,
        reliability.SECTION,
        Section("ratings", when=lambda run: run.people is not None),
        Section(
            "calibration",
            figures=one("calibration", "What human scores buy", figures.calibration_curve),
            when=lambda run: run.calibration is not None,
        ),
    ),
)  # fmt: skip
render = REPORT.render
