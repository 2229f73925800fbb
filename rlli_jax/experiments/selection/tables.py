"""The tables of a study of provider selection: who, what, judged by whom; and what is held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.experiments.judge_blocks import RecordedScores
from rlli_jax.experiments.kept_table import noise_of
from rlli_jax.experiments.selection.config import CalibrateBlock, StudyConfig, TableBlock
from rlli_jax.experiments.selection.texts import texts
from rlli_jax.experiments.sources import Parts, judged, recorded
from rlli_jax.oracle import ask
from rlli_jax.oracle.asking_less import Asked
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import QoEModel, fit_model
from rlli_jax.qoe.reliability import Reliability, shrink
from rlli_jax.run_files.selection import CalibrationFile, CalibrationPoint

if TYPE_CHECKING:  # it brings optimisers and data frames, which few studies need
    from rlli_jax.experiments.selection.people import Corrected
    from rlli_jax.qoe.calibration import Calibration, CurvePoint

CURVE = (0, 2, 5, 10, 20, 50, 100, 200, 500)  # requests with human scores


@dataclass(frozen=True, eq=False)
class Problem:
    """What the learners are to solve, on the host."""

    population: Population  # K
    catalog: Catalog
    table: QoETable  # all requests, as policies play them
    train: QoETable  # the requests that learners see
    test: QoETable  # the requests on which policies are evaluated; the same if none is held out
    worth: QoETable  # what choices on these are worth: held-out answers as they were given
    human: QoETable | None  # one user's scores of the test requests
    # Of the answers as they were given; None for a table that was kept by an earlier run.
    reliability: Reliability | None = None
    calibration: Calibrated | None = None
    asked: Asked | None = None  # with judge.ask
    # With judge.ask: [K, R, L], what the judge said, NaN where it was not asked.
    answers: np.ndarray | None = None
    others: Others | None = None  # held-out users
    model: QoEModel | None = None  # of what the training requests' answers say, for fresh people
    people: Corrected | None = None  # ratings of people; None for a table of an earlier run


@dataclass(frozen=True, eq=False)
class Others:
    """People whom neither learners nor whatever is fitted has met."""

    population: Population
    table: QoETable  # of the requests of evaluation, as the judge answered


@dataclass(frozen=True)
class Calibrated:
    """What people's scores did to the table, and what more or fewer of them would buy."""

    found: Calibration
    curve: list[CurvePoint]

    def file(self) -> CalibrationFile:
        """As a run directory holds it."""
        return CalibrationFile(
            requests=self.found.requests,
            scores=self.found.scores,
            weights=self.found.weights,
            offsets=self.found.offsets,
            curve=[
                CalibrationPoint(
                    requests=point.requests,
                    scores=point.scores,
                    value=point.value,
                    without_judges=point.without_judges if point.requests else None,
                )
                for point in self.curve
            ],
        )


def build_problem(
    config: StudyConfig, console: Console | None = None, path: Path | None = None
) -> Problem:
    """Ask the judge everything and lay the answers down as tables.

    ``path`` is the run directory, where the examination of the judge is kept.

    Raises:
        InputError: anything that is wrong with the files that the config names.
    """
    found = judged(
        config.population, config.catalog, config.judge, console,
        path=path, human=config.evaluation.human, aside=config.aside(),
        check=partial(check, config),
    )  # fmt: skip
    inquiry, asked = found.inquiry, found.asked
    given = _rated_in_both_parts(config.table, found.table)
    answers = None if asked is None else _answers(config.table, asked, given)
    if config.judge.on_missing == "impute":
        given = impute(config.table, given)
    if config.table.calibrate is None:
        calibrated, population = None, inquiry.population.select(given.users)
        table, worth = prepare(config.table, given)
    else:
        calibrated, table, worth = _calibrated(
            config.table, config.table.calibrate, inquiry.catalog, given
        )
        population = Population.named(table.users)
    people = None
    if config.table.people is not None:
        from rlli_jax.experiments.selection.people import with_people  # and with it data frames

        assert population.traits is not None  # else the config is refused
        people = with_people(config.table.people, table, population.traits)
        table = people.table
    others = None
    if found.others is not None:
        assert found.people is not None  # they come together
        others = Others(found.people, found.others)
    problem = split(
        config, population, inquiry.catalog, table, worth, answers=answers, others=others
    )
    noise = noise_of(given, asked)
    return replace(problem, reliability=noise, calibration=calibrated, asked=asked, people=people)


def check(config: StudyConfig, parts: Parts) -> None:
    """That what the study names beside the judge can be read, before the judge is asked.

    Raises:
        InputError: the log of people, people's scores of the pictures, or a sentence encoder cannot
            be had, or does not fit the catalog.
    """
    catalog = parts.users.catalog
    if config.table.people is not None:
        from rlli_jax.experiments.selection.people import ratings_of

        ratings_of(config.table.people, catalog.providers)
    if config.evaluation.human is not None:
        opinion(config.evaluation.human, catalog)
    if config.table.calibrate is not None:
        config.table.calibrate.human.make(catalog)
    blocks: Iterable[Any] = config.policies.values()
    for policy in blocks:
        if "request_text" in policy.observation:
            texts(catalog.requests, parts.seen.catalog.requests, policy.text)


def _answers(config: TableBlock, asked: Asked, table: QoETable) -> np.ndarray:
    """[K, R, L]: of some cells of the training requests, and of the held-out ones as given."""
    answers = np.where(table.legal, table.mean, np.nan)
    seen = np.arange(len(table.requests))
    if config.held_out_requests:
        _, seen = table.request_places(config.held_out_requests, config.split_seed)
    answers[:, seen] = asked.answers
    return answers


def impute(config: TableBlock, given: QoETable) -> QoETable:
    """Fill what learners see with providers' means there; held-out answers are not made up."""
    seen, held_out = split_table(config, given)
    return seen.imputed() if held_out is seen else seen.imputed().join(held_out, given.requests)


def prepare(config: TableBlock, given: QoETable) -> tuple[QoETable, QoETable | None]:
    """What policies play, of all requests, and what choices on held-out requests are worth.

    Whatever is fitted (a user's level and spread, the variances by which is shrunk) is fitted to
    the requests that learners see. Held-out answers come on the scale that learners know, but are
    not shrunk, for then each would tell of others; they are worth what was given. None if no
    request is held out: what is played is what counts.
    """
    seen, held_out = split_table(config, given)
    train, test = seen, held_out
    if config.standardise:
        train, test = train.standardised(), test.standardised(by=train)
    if config.shrink:
        train = shrink(train)
    if held_out is seen:
        return train, None
    return train.join(test, given.requests), held_out


def _rated_in_both_parts(config: TableBlock, table: QoETable) -> QoETable:
    """The table of the users who have a rating to learn from and one to be evaluated by."""
    if not config.held_out_requests:
        return table
    parts = table.request_places(config.held_out_requests, config.split_seed)
    both = np.all([table.served[:, part].any(1) for part in parts], axis=0)
    if both.all():
        return table
    if not both.any():
        raise InputError(
            "table.held_out_requests: no user has ratings both of requests that learners see and "
            "of held-out ones; hold out none, or give more ratings."
        )
    users = [name for name, keep in zip(table.users, both, strict=True) if keep]
    note = f"; {(~both).sum():,} of {len(both):,} users left out, without a rating in either part"
    return replace(table.select(users=users), judge=table.judge + note)


def _calibrated(
    config: TableBlock, block: CalibrateBlock, catalog: Catalog, given: QoETable
) -> tuple[Calibrated, QoETable, QoETable | None]:
    """Weigh the judges by people's scores of requests that learners may see.

    The table and what held-out choices are worth are as of :func:`prepare`. People's own scores
    are what a held-out choice is worth: by the calibration's prediction a provider whose offset
    is overestimated would be a good choice.
    """
    from rlli_jax.qoe.calibration import calibrate, calibration_curve, human_scores

    opinion = human_scores(block.human.make(catalog), given)
    table, held_out = split_table(config, given)
    human = opinion[np.isin(given.requests, table.requests)]
    scored = np.flatnonzero(~np.isnan(human).all(1))
    bought = human
    if block.requests is not None:
        if block.requests > len(scored):
            raise InputError(
                f"table.calibrate.requests is {block.requests}, but {block.human.path} has scores "
                f"of {len(scored)} requests that learners see; give fewer."
            )
        drawn = np.random.default_rng(config.split_seed).permutation(scored)[: block.requests]
        bought = np.full_like(human, np.nan)
        bought[drawn] = human[drawn]
    sizes = [size for size in CURVE if size < len(scored)]
    found = calibrate(table, bought)
    calibrated = Calibrated(found, calibration_curve(table, human, sizes))
    if held_out is table:
        return calibrated, found.table, None
    test = found.predict(held_out)
    opinion = opinion[np.isin(given.requests, held_out.requests)][None, ..., None]
    valid = ~np.isnan(opinion) & test.valid
    if not valid.any():
        raise InputError(
            f"table.calibrate: {block.human.path} has no score of a held-out request that a judge "
            "rated, and a calibration cannot judge what was learned from it; add some, or set "
            "table.held_out_requests to 0."
        )
    worth = replace(test, qoe=opinion, valid=valid, judge=f"human scores of {block.human.path}")
    return calibrated, found.table.join(replace(test, valid=valid), given.requests), worth


def split_table(config: TableBlock, table: QoETable) -> tuple[QoETable, QoETable]:
    """The table of the requests that learners see, and of those on which policies are judged."""
    if not config.held_out_requests:
        return table, table
    test, train = table.split_requests(config.held_out_requests, config.split_seed)
    return train, test


def split(
    config: StudyConfig,
    population: Population,
    catalog: Catalog,
    table: QoETable,
    worth: QoETable | None = None,
    *,
    answers: np.ndarray | None = None,
    others: Others | None = None,
) -> Problem:
    """Set requests of a finished table aside for evaluation, look up human scores, and fit the
    model of QoE by which fresh people are played.

    Args:
        config: of the study.
        population, catalog: of the table.
        table: of all requests.
        worth: what choices on held-out requests are worth; the table itself if absent.
        answers: [K, R, L], those to fit a model to; the table's if absent.
        others: held-out users.
    """
    train, test = split_table(config.table, table)
    human = None
    if config.evaluation.human is not None:
        block = config.evaluation.human
        human = opinion(block, catalog).select(requests=test.requests)
        missing = test.legal.any(0) & ~human.legal[0]
        if missing.any():
            request, provider = np.argwhere(missing)[0]
            raise InputError(
                f"evaluation.human: {block.path} has no score for request "
                f"{test.requests[request]!r} by provider {test.providers[provider]!r}, which a "
                "policy may choose; add it."
            )
    return Problem(
        population, catalog, table, train, test, worth or test, human, answers=answers,
        others=others, model=model_of_fresh(config, table, train, population.traits, answers),
    )  # fmt: skip


def opinion(block: RecordedScores, catalog: Catalog) -> QoETable:
    """What people think of the pictures, as one user's scores.

    Raises:
        InputError: the file cannot be read, or tells several users apart.
    """
    people = recorded(block, catalog)
    scores = people.table(ask(people.judge, people.questions()))
    if len(scores.users) != 1:
        raise InputError(
            f"evaluation.human: {block.path} holds scores of {len(scores.users)} users; "
            "set evaluation.human.user to treat them as one opinion for each picture."
        )
    return scores


def model_of_fresh(
    config: StudyConfig,
    table: QoETable,
    train: QoETable,
    traits: np.ndarray | None,
    answers: np.ndarray | None,
) -> QoEModel | None:
    """The model of QoE of the people whom learners meet; None if they are those of the table.

    It is fitted to the answers of the requests in ``train`` alone. Arguments as of :func:`split`.
    """
    if not config.fresh:
        return None
    given = np.where(table.legal, table.mean, np.nan) if answers is None else answers
    seen = [table.requests.index(request) for request in train.requests]
    return fit_model(given[:, seen], traits)
