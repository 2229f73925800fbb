"""The table of a run directory: asked for once, and read where it is there already."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rlli_jax.experiments.asking import AskBlock, summary
from rlli_jax.experiments.catalog_block import CatalogBlock
from rlli_jax.experiments.generated import generated, read_generated, write_generated
from rlli_jax.experiments.judge_blocks import AnyJudge
from rlli_jax.experiments.sources import Check, PopulationBlock, judged
from rlli_jax.oracle import Budget
from rlli_jax.oracle.asking_less import Asked
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import Reliability, reliability
from rlli_jax.run_files.generated import GeneratedPictures


class KeptTable(NamedTuple):
    """A table, and what is known of it."""

    table: QoETable
    people: Population
    made: GeneratedPictures | None
    """How its pictures were generated; None where they were not."""
    left: Budget | None = None
    """What of the judge's budget is left to this command; None: all of it."""


def kept_table(
    population: PopulationBlock | None,
    catalog: CatalogBlock,
    judge: AnyJudge,
    path: Path | None,
    console: Console,
    check: Check = lambda parts: None,
) -> KeptTable:
    """QoE of all people about all requests; ``table.npz``, ``population.csv`` and
    ``generated.json``.

    ``path``: the run directory; None keeps nothing. ``check``: as of :func:`judged`.

    Raises:
        InputError: anything that is wrong with the files that the blocks name.
    """
    if path is not None and (path / "table.npz").exists():
        people = Population.from_csv(path / "population.csv", traits=population is not None)
        return KeptTable(QoETable.load(path / "table.npz"), people, read_generated(path))
    found = judged(population, catalog, judge, console, path=path, check=check)
    table = found.table
    if judge.on_missing == "impute" and found.asked is None:
        table = table.imputed()
    people, made = found.inquiry.population.select(table.users), generated(found.inquiry.catalog)
    if path is not None:
        people.to_csv(path / "population.csv")
        write_generated(found.inquiry.catalog, path)
        keep_measures(path, noise_of(table, found.asked), found.asked, judge.ask)
        # Last, because its presence says that all of this is done.
        table.save(path / "table.npz")
    return KeptTable(table, people, made, found.left)


def noise_of(table: QoETable, asked: Asked | None) -> Reliability | None:
    """How far the answers of a table can be trusted; None where a model predicts some of them, for
    what it predicts is not the judge's noise."""
    return reliability(table) if asked is None else None


def keep_measures(
    path: Path, noise: Reliability | None, asked: Asked | None, block: AskBlock | None
) -> None:
    """Write what a report says of the answers into a run directory."""
    if noise is not None:
        noise.file().write(path / "reliability.json")
    if asked is not None:
        assert block is not None
        summary(asked, block).write(path / "asking.json")
