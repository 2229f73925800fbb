"""From a config to the table: who, what, judged by whom."""

from dataclasses import dataclass

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.experiments.config import (
    CatalogBlock,
    PopulationBlock,
    Recorded,
    StudyConfig,
)
from rlli_jax.judges import Judge, Scale, named_scale
from rlli_jax.judges.psychometric import PsychometricJudge
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.oracle import QoETable, ask, build_questions
from rlli_jax.personas import Population


@dataclass(frozen=True)
class Problem:
    """What the learners are to solve, on the host."""

    population: Population  # K
    catalog: Catalog
    table: QoETable  # all requests
    train: QoETable  # the requests that learners see
    test: QoETable  # the requests on which policies are evaluated; the same if none is held out
    human: QoETable | None  # one user's scores of the test requests


def load_catalog(block: CatalogBlock) -> Catalog:
    """Open the catalog and check that every picture can be read."""
    if block.studio:
        return Catalog.studio()
    if block.folder is not None:
        catalog = Catalog.from_folder(block.folder)
    else:
        assert block.manifest is not None  # the config says that one of the three is given
        catalog = Catalog.from_manifest(block.manifest, pictures=block.pictures)
    catalog.check()
    return catalog


def load_population(block: PopulationBlock) -> Population:
    """Read or draw the users."""
    if block.sample is not None:
        sample = block.sample
        return Population.sample(
            sample.size, group=sample.group, seed=sample.seed, correlations=sample.correlations
        )
    if block.csv is not None:
        return Population.from_csv(block.csv)
    assert block.bigfive_test is not None  # the config says that one of the three is given
    return Population.from_bigfive_test(block.bigfive_test)


def _recorded(block: Recorded, catalog: Catalog) -> tuple[Population, QoETable]:
    """The recorded users and all their scores."""
    scale = named_scale(block.scale)
    judge = RecordedJudge.from_file(
        block.path, catalog, scale=scale, columns=block.columns or None, user=block.user
    )
    population = judge.population()
    return population, _table(judge, population, catalog, scale, judge.samples)


def _table(
    judge: Judge, population: Population, catalog: Catalog, scale: Scale, samples: int
) -> QoETable:
    answers = ask(judge, build_questions(population, catalog, scale, samples))
    return QoETable.from_answers(
        answers,
        population=population,
        catalog=catalog,
        scale=scale,
        judge=judge.identity,
        samples=samples,
    )


def build_problem(config: StudyConfig) -> Problem:
    """Ask the judge everything and lay the answers down as tables.

    Raises:
        InputError: anything that is wrong with the files that the config names.
    """
    catalog = load_catalog(config.catalog)
    block = config.judge
    if isinstance(block, Recorded):
        population, table = _recorded(block, catalog)
    else:
        assert config.population is not None  # checked by the config
        population = load_population(config.population)
        judge = PsychometricJudge(
            catalog,
            preset=block.preset,
            strength=block.strength,
            noise=block.noise,
            seed=block.seed,
        )
        table = _table(judge, population, catalog, named_scale(block.scale), block.samples)
    if config.table.standardise:
        table = table.standardised()
    return split(config, population, catalog, table)


def split(
    config: StudyConfig, population: Population, catalog: Catalog, table: QoETable
) -> Problem:
    """Set requests of a finished table aside for evaluation and look up human scores."""
    train = test = table
    if config.table.held_out_requests:
        test, train = table.split_requests(config.table.held_out_requests, config.table.split_seed)
    human = None
    if config.evaluation.human is not None:
        block = config.evaluation.human
        _, scores = _recorded(block, catalog)
        if len(scores.users) != 1:
            raise InputError(
                f"evaluation.human: {block.path} holds scores of {len(scores.users)} users; "
                "set evaluation.human.user to treat them as one opinion for each picture."
            )
        human = scores.select(requests=test.requests)
        missing = test.legal.any(0) & ~human.legal[0]
        if missing.any():
            request, provider = np.argwhere(missing)[0]
            raise InputError(
                f"evaluation.human: {block.path} has no score for request "
                f"{test.requests[request]!r} by provider {test.providers[provider]!r}, which a "
                "policy may choose; add it."
            )
    return Problem(population, catalog, table, train, test, human)
