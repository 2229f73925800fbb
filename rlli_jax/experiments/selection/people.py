"""The judge's table as prior, ratings of people as evidence: the table that policies train on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlli_jax.errors import InputError, listed
from rlli_jax.experiments.selection.config import PeopleBlock
from rlli_jax.feedback import Log
from rlli_jax.feedback.log import FOLDS
from rlli_jax.feedback.posterior import does_the_prior_help, fit_posterior, one_thread
from rlli_jax.feedback.reading import read_log, requests_of, traits_of
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import FEWEST, QoEModel, fit_model
from rlli_jax.qoe.predicted import QUANTILES
from rlli_jax.run_files.selection import PeopleFile, PeopleRatings

RESTS = 0.5  # of how far people may be from the judge: a cell rests on them where they tell this


@dataclass(frozen=True, eq=False)
class Corrected:
    """A table by judge and people, and what the ratings did to it."""

    table: QoETable
    file: PeopleFile
    ratings: PeopleRatings


def with_people(block: PeopleBlock, table: QoETable, traits: np.ndarray) -> Corrected:
    """What is believed of every cell, by the judge's word and the ratings of a log.

    :mod:`rlli_jax.feedback.posterior` holds the belief. Of the table's users, and of those of the
    log, who are others, the judge is taken to say what their personas explain by the model of QoE
    of its table: what it says of a user beyond that is of nobody real, and people cannot tell
    whether it is right. The samples of a cell are quantiles of what is believed of it.

    Args:
        block: which log.
        table: as the judge answered, [K, R, L].
        traits: [K, 5] of its users.

    Raises:
        InputError: the log cannot be read, lacks traits, or names other providers; or the table
            has too few answers to tell what the judge would say of others.
    """
    log, people = ratings_of(block, table.providers)
    action = np.array([table.providers.index(name) for name in log.providers])[log.action]
    judged = block.prior == "judge"
    said = users = None
    if judged:
        model = _model(table, traits)
        users = model.explained(model.phi).clip(0, 1)
        said = _said(model, people, requests_of(log, table.requests))
    providers = len(table.providers)
    posterior = one_thread(fit_posterior)(people, action, log.reward, providers, said)
    mean, spread = np.zeros((2, *table.legal.shape))
    for request in range(len(table.requests)):
        own = None if users is None else users[:, request]
        mean[:, request], spread[:, request] = posterior.predict(traits, own)
    legal = table.legal
    rests = legal & (posterior.learned(traits) >= RESTS)[:, None]
    samples = (mean[..., None] + spread[..., None] * QUANTILES).clip(0, 1)
    ratings = f"{len(log):,} ratings of {log.users:,} people"
    corrected = replace(
        table,
        qoe=np.where(legal[..., None], samples, 0),
        valid=np.broadcast_to(legal[..., None], samples.shape),
        sd=np.where(legal, spread, 0),
        judge=f"{table.judge}; as the prior, with {ratings} as evidence" if judged else ratings,
        stand_in=table.stand_in and judged,
    )
    gain, warning = _helps(log, table.providers, said, people)
    counts = np.bincount(action, minlength=providers)
    before, after = (np.where(t.legal, t.mean, 0).sum((0, 1)) for t in (table, corrected))
    cells = np.maximum(legal.sum((0, 1)), 1)
    file = PeopleFile(
        log=block.log,
        prior=block.prior,
        people=log.users,
        ratings=len(log),
        cells=int(legal.sum()),
        rest_on_people=int(rests.sum()),
        trust=posterior.trust if judged else None,
        gain=gain,
        warning=warning,
        providers={
            name: (int(counts[i]), float(before[i] / cells[i]), float(after[i] / cells[i]))
            for i, name in enumerate(table.providers)
        },
    )
    kept = PeopleRatings(traits=people, provider=np.array(table.providers)[action], qoe=log.reward)
    return Corrected(corrected, file, kept)


def ratings_of(block: PeopleBlock, providers: Sequence[str]) -> tuple[Log, np.ndarray]:
    """The log, and the traits of the people in it [n, 5].

    Raises:
        InputError: the log cannot be read, lacks traits, or names providers that are none of these.
    """
    log = read_log(
        block.log, qoe=block.qoe, scale=block.scale, trait_scale=block.trait_scale,
        propensities="shares",  # what is not looked at: people are as they are, whoever chose
    )  # fmt: skip
    unknown = sorted(set(log.providers) - set(providers))
    if unknown:
        raise InputError(
            f"table.people: {block.log} has ratings of {listed(unknown)}, and the catalog the "
            f"providers {listed(providers)}; give them the same names."
        )
    return log, traits_of(log)


def _model(table: QoETable, traits: np.ndarray) -> QoEModel:
    """Of what the judge answered."""
    answers = int(table.legal.sum())
    if answers < FEWEST:
        raise InputError(
            f"table.people: the judge gave {answers} answers, too few to tell what it would say of "
            f"others; at least {FEWEST} are needed, or prior: none."
        )
    return fit_model(np.where(table.legal, table.mean, np.nan), traits)


def _said(model: QoEModel, people: np.ndarray, request: np.ndarray) -> np.ndarray:
    """What the judge would say of others [n, 5], for the request that each made: [n, L].

    ``request``: [n] int; that of none of the table stands for the mean over all.
    """
    of_request = model.explained(model.features(people, len(people)))  # [n, R, L]
    of_request = np.concatenate([of_request, of_request.mean(1, keepdims=True)], 1)
    return np.asarray(of_request[np.arange(len(people)), request].clip(0, 1))


def _helps(
    log: Log, providers: tuple[str, ...], said: np.ndarray | None, people: np.ndarray
) -> tuple[tuple[float, float, float] | None, str]:
    """What the prior gains in predicting people who were not seen, with its interval; a warning."""
    if said is None or log.users < FOLDS:
        return None, ""
    place = [providers.index(name) for name in log.providers]
    found = does_the_prior_help(log, said[:, place], people)
    value, low, high = map(float, found.gain)
    warning = found.warning and (
        f"{found.warning.removesuffix('.')}: set table.people.prior to none, or leave the judge out"
        " by learning from the log."
    )
    return (value, low, high), warning
