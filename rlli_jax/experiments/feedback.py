"""A log of people beside a run: what its policies, and simpler ones, would have been worth."""

from pathlib import Path

import numpy as np

from rlli_jax.errors import InputError, listed
from rlli_jax.experiments import deploying
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.run_directory import read_config
from rlli_jax.experiments.selection.judging import PEOPLE_RATINGS
from rlli_jax.feedback import (
    Log,
    Valued,
    baselines,
    cross_fitted,
    gain_of_personalising,
    interaction_test,
    value_policies,
)
from rlli_jax.feedback.evaluation import BY_CONTEXT
from rlli_jax.feedback.posterior import curve, does_the_prior_help
from rlli_jax.feedback.prediction_powered import provider_values
from rlli_jax.feedback.reading import requests_of, traits_of
from rlli_jax.learners.from_log import learned_policy
from rlli_jax.personas import TRAITS
from rlli_jax.run_files.people import (
    JudgeBesidePeople,
    LogFindings,
    PoweredProvider,
    RatingsPoint,
    ValuedPolicy,
    WithInterval,
)
from rlli_jax.run_files.selection import PeopleRatings
from rlli_jax.service import ServedPolicy

LEARNED = "learned from this log"
MOST_SEEN = 0.01  # of a log: so many may be like ratings of a run's table by chance
SIZES = (0, 10, 20, 50, 100, 200, 500)  # people whose ratings are drawn for the curve


def _valued(valued: Valued) -> ValuedPolicy:
    return ValuedPolicy(
        name=valued.name,
        estimates={name: WithInterval.of(x) for name, x in valued.estimates.items()},
        safe=WithInterval.of(valued.safe),
        best=WithInterval.of(valued.best),
        chosen=valued.chosen,
        warning=valued.warning,
        **valued.overlap._asdict(),
    )


def evaluate(log: Log, run: Path | None = None) -> LogFindings:
    """Value what a log alone suggests and, with a run, each of its policies that can be.

    Raises:
        InputError: the run cannot be read, or it does not know a provider of the log.
    """
    q = cross_fitted(log)
    knows_traits = set(TRAITS) <= set(log.context_names)
    policies, left_out = baselines(log, q), {}
    interaction = gain = None
    if knows_traits:
        policies[LEARNED] = learned_policy(log)
        gain = gain_of_personalising(log, q)
        try:
            interaction = interaction_test(log)
        except InputError as error:
            left_out["test of provider x trait"] = str(error)
    else:
        del policies[BY_CONTEXT]
    of_run: dict[str, np.ndarray] = {}
    judge = None
    if run is not None:
        of_run, left, judge = _of_run(run, log)
        left_out |= left
    valued = value_policies(log, policies | of_run, q=q)
    return LogFindings(
        rounds=len(log),
        users=log.users,
        propensities=log.propensities,
        notes=log.notes,
        logging_policy=log.reward.mean(),
        policies=tuple(map(_valued, valued)),
        interaction=interaction,
        gain_of_personalising=gain,
        left_out=left_out,
        advice="" if gain is None else gain.advice,
        scale=(log.low, log.high),
        of_run=tuple(of_run),
        judge=judge,
    )


def _of_run(
    run: Path, log: Log
) -> tuple[dict[str, np.ndarray], dict[str, str], JudgeBesidePeople | None]:
    """Probabilities [n, L] of each policy that learned; why others have none; what its judge says.

    A policy chooses among what was offered. Where the log does not name a request of the run, it is
    asked for each of the run's requests, and they count alike.
    """
    config = read_config(run)
    policies: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    judge, seen = None, _seen(run, log)
    for name, block in config.policies.items():
        if not isinstance(block, Learned):
            continue
        if "persona" not in block.observation or "user" in block.observation:
            left_out[name] = "it does not choose by persona"
            continue
        if not set(TRAITS) <= set(log.context_names):
            left_out[name] = "the log has no columns of the five traits"
            continue
        if seen > MOST_SEEN * len(log):
            left_out[name] = (
                f"its table rests on {seen:,} of the log's {len(log):,} ratings; value it on others"
            )
            continue
        served = deploying.served_policy(run, name)
        policies[name], expected = _asked(served, log)
        judge = judge or _judge_and_people(served.judge, log, expected)
    return policies, left_out, judge


def _seen(run: Path, log: Log) -> int:
    """How many rounds of a log are among the ratings that the table of a run rests on.

    Found by traits, provider and QoE, as names of people may differ from file to file.
    """
    if not (run / PEOPLE_RATINGS).exists() or not set(TRAITS) <= set(log.context_names):
        return 0
    kept = PeopleRatings.read(run / PEOPLE_RATINGS)
    known, own = (
        zip(np.round(traits, 6).tolist(), providers, np.round(qoe, 6).tolist(), strict=True)
        for traits, providers, qoe in (
            (kept.traits, kept.provider.tolist(), kept.qoe),
            (traits_of(log), np.array(log.providers)[log.action].tolist(), log.reward),
        )
    )
    rated = {(tuple(traits), provider, qoe) for traits, provider, qoe in known}
    return sum((tuple(traits), provider, qoe) in rated for traits, provider, qoe in own)


def _asked(served: ServedPolicy, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """What a policy chooses in each round, and the QoE that its judge expects: [n, L] each."""
    unknown = sorted(set(log.providers) - set(served.providers))
    if unknown:
        raise InputError(
            f"the log has the providers {', '.join(log.providers)}, the run "
            f"{', '.join(served.providers)}; it does not know {listed(unknown)}: give them the "
            "same names, or leave those rows out."
        )
    n, place = len(log), [served.providers.index(name) for name in log.providers]
    offered = np.zeros((n, len(served.providers)), bool)
    offered[:, place] = log.offered
    everything = np.arange(len(served.requests))
    made = requests_of(log, served.requests)
    asked = [[r] if r < len(everything) else everything for r in made.tolist()]
    rows = np.repeat(np.arange(n), [len(requests) for requests in asked])
    request = np.concatenate(asked).astype(np.int32)
    personas = traits_of(log).astype(np.float32)[rows]
    somebody = np.full(len(rows), len(served.users), np.int32)
    choice, expected = served.choose(personas, somebody, request, offered[rows])
    share = 1 / np.bincount(rows)[rows]
    probability, mean = np.zeros((2, n, len(served.providers)))
    np.add.at(probability, (rows, choice), share)
    np.add.at(mean, rows, expected * share[:, None])
    return probability[:, place], mean[:, place]


def _judge_and_people(name: str, log: Log, expected: np.ndarray) -> JudgeBesidePeople:
    traits, of = traits_of(log), WithInterval.of
    sizes = tuple(size for size in SIZES if size <= log.users // 2)
    prior = does_the_prior_help(log, expected, traits)
    return JudgeBesidePeople(
        judge=name,
        providers={
            provider: PoweredProvider(
                with_judge=of(x.estimate), people_alone=of(x.classical), trust=x.trust,
                worth=x.worth,
            )
            for provider, x in provider_values(log, expected).items()
        },
        prior_gain=of(prior.gain),
        warning=prior.warning,
        curve=tuple(
            RatingsPoint(people=x.people, with_judge=of(x.with_judge), without=of(x.without))
            for x in curve(log, expected, traits, sizes)
        ),
    )  # fmt: skip
