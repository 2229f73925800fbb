"""``report.html``: one self-contained file, made from a run directory by a Jinja2 template."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from rlli_jax.files import write_bytes, write_text
from rlli_jax.report import asking, examination, figures, personalising, reliability, style
from rlli_jax.report.data import Policy, Run, Thumbnail, load_run
from rlli_jax.report.findings import findings, share
from rlli_jax.report.labels import (
    conjunction,
    digits_for,
    duration,
    number,
    percent,
    percent_interval,
    plus_minus,
    quantity,
    setting,
    settings,
)
from rlli_jax.statistics import jain_index, t_interval

MAX_REQUESTS = 12  # in the gallery


def render(run_dir: str | Path) -> Path:
    """Write ``figures/*.svg``, ``figures/*.pdf`` and ``report.html`` into a run directory.

    Every file is written beside its place and then renamed, so that a reader never sees half of
    one. Returns the path of the page. InputError where the run directory is incomplete, damaged or
    cannot be written.
    """
    run = load_run(run_dir)
    plates = list(figures.plates(run))
    return write_report(run.path, plates, page_html(run, plates))


def write_report(path: Path, plates: Sequence[style.Plate], page: str) -> Path:
    """Write figures and page into a run directory; the path of the page."""
    folder = path / "figures"
    for plate in plates:
        write_text(folder / f"{plate.name}.svg", plate.svg)
        write_bytes(folder / f"{plate.name}.pdf", plate.pdf)
    report = path / "report.html"
    write_text(report, page)
    return report


def page_html(run: Run, plates: list[style.Plate]) -> str:
    """The page's text."""
    by_name = on_page(plates)
    return (
        templates()
        .get_template("report.html")
        .render(
            run=run,
            summary=_summary(run),
            findings=findings(run),
            rows=_policy_rows(run),
            encoders=[(p.name, p.encoder) for p in run.policies if p.encoder],
            figures=by_name,
            curves=[figure for name, figure in by_name.items() if name.startswith("curves-")],
            gallery=[_shown_request(run, r) for r in range(len(run.table.requests))[:MAX_REQUESTS]],
            users_shown=run.table.users[: figures.MAX_USERS],
            means=_mean_rows(run),
            human=_human_rows(run),
            asking=asking.load(run),
            reliability=reliability.load(run),
            calibration=run.calibration,
            personalising=personalising.load(run),
            examination=examination.load(run.path),
            yardstick=examination.YARDSTICK,
            not_examined=examination.note(run.path, run.config),
            holes=int((~run.test.valid).sum()),
            command=again(run.path),
        )
    )


def again(path: Path) -> str:
    """The command that repeats a run, from the folder that holds its directory."""
    name = path.resolve().name
    return shlex.join(["rlli", "run", f"{name}/config.yaml", "--output", f"{name}-again"])


def templates() -> jinja2.Environment:
    """Where the pages' templates are, and what they may call."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlli_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent, "breakable": _breakable}
    return environment


def on_page(plates: Sequence[style.Plate]) -> dict[str, dict[str, Any]]:
    """Figures by name, as the templates' macro ``plate`` takes them."""
    return {
        plate.name: {
            "title": plate.title,
            "svg": Markup(plate.inline()),
            "wide": plate.width > style.COLUMN,
        }
        for plate in plates
    }


def _breakable(name: str) -> Markup:
    """A name that may be broken into lines after its underscores and slashes."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(name))))


def _summary(run: Run) -> str:
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


@dataclass(frozen=True)
class PolicyRow:
    """One line of the table of policies, ready to print."""

    name: str
    seeds: int
    returns: str
    ratio: str
    iqm: str
    fairness: str
    train: str
    compile: str
    speed: str


def _policy_rows(run: Run) -> list[PolicyRow]:
    groups = settings(run.policies)
    shares = {p.name: share(run, p) for p in run.policies}
    digits = digits_for(max(abs(float(p.returns.mean())) for p in run.policies))

    def order(policy: Policy) -> tuple[bool, int, float]:
        group = groups.index(setting(policy)) if policy.learned else 0
        return not policy.learned, group, -float(shares[policy.name].value)

    return [
        PolicyRow(
            name=policy.name,
            seeds=len(policy.objective),
            returns=plus_minus(t_interval(policy.returns.mean(1)), digits),
            ratio=percent(float(policy.objective.mean()) / run.reference.optimum),
            iqm=percent_interval(shares[policy.name]),
            fairness=number(float(jain_index(policy.qoe).mean()), 3),
            train=duration(policy.train_seconds),
            compile=duration(policy.compile_seconds),
            speed=quantity(policy.steps_per_second),
        )
        for policy in sorted(run.policies, key=order)
    ]


@dataclass(frozen=True)
class Offer:
    """One provider's picture for one request, with what each shown user thinks of it."""

    provider: str
    picture: Thumbnail | None
    ratings: list[tuple[str, float, bool]]  # user, mean QoE (NaN: no score), best for the user


@dataclass(frozen=True)
class ShownRequest:
    request: str
    offers: list[Offer]

    @property
    def has_pictures(self) -> bool:
        return any(offer.picture for offer in self.offers)


def _shown_request(run: Run, request: int) -> ShownRequest:
    table = run.table
    mean = np.where(table.legal, table.mean, np.nan)[: figures.MAX_USERS, request]  # [users, L]
    best = mean == np.fmax.reduce(mean, 1, keepdims=True)
    users = table.users[: figures.MAX_USERS]
    offers = [
        Offer(
            provider,
            run.thumbnail(request, index),
            [(user, float(mean[k, index]), bool(best[k, index])) for k, user in enumerate(users)],
        )
        for index, provider in enumerate(table.providers)
    ]
    return ShownRequest(table.requests[request], offers)


def _mean_rows(run: Run) -> list[dict[str, Any]]:
    """QoE means over requests: each user's row over providers, and the row's best."""
    means = run.test.provider_values
    return [
        {"user": user, "cells": [(float(value), bool(value == row.max())) for value in row]}
        for user, row in zip(run.table.users, means, strict=True)
    ]


def _human_rows(run: Run) -> list[tuple[str, str, bool]]:
    """Name, score, and whether it is a reference; best first."""
    if run.human is None:
        return []
    human = run.human
    rows = [
        (name, plus_minus(t_interval(scores), 3), float(np.mean(scores)), False)
        for name, scores in human.policies.items()
    ]
    rows += [
        ("Random choice", number(human.references.random, 3), human.references.random, True),
        (
            f"Best single provider ({human.references.best_single_provider})",
            number(human.references.best_single, 3),
            human.references.best_single,
            True,
        ),
        (
            "Best for each request",
            number(human.references.best_per_request, 3),
            human.references.best_per_request,
            True,
        ),
    ]
    return [(label, text, ref) for label, text, _, ref in sorted(rows, key=lambda r: -r[2])]
