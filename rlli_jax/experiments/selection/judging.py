"""The first stage of a study: fill the table of a run directory. Needs no environment or learner,
so that it starts fast where every answer is stored."""

from contextlib import nullcontext
from pathlib import Path

from PIL import Image
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.catalog.pictures import shrink
from rlli_jax.experiments.asking import ANSWERS, load_answers, save_answers
from rlli_jax.experiments.generated import write_generated
from rlli_jax.experiments.kept_table import keep_measures
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.selection.tables import Others, Problem, build_problem, split
from rlli_jax.files import whole
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.selection import References

PEOPLE_RATINGS = "people_ratings.npz"
HELD_OUT = "held_out.npz"  # what choices on held-out requests are worth
OTHERS = Path("held_out_users.npz")  # the table of held-out users; their personas are in a .csv
THUMBNAIL = 320  # pixels on the long side


def judge(config: StudyConfig, path: Path, console: Console) -> Problem:
    """Fill the table of a run directory, or read it if it is there already."""
    if (path / "table.npz").exists():
        return _read_problem(config, path)
    # A language model has a progress bar of its own.
    with nullcontext() if config.judge.paid else console.status("asking the judge"):
        problem = build_problem(config, console, path)
    problem.population.to_csv(path / "population.csv")
    _write_thumbnails(problem.catalog, path / "pictures")
    write_generated(problem.catalog, path)
    References.checked(problem.worth.references()).write(path / "references.json")
    keep_measures(path, problem.reliability, problem.asked, config.judge.ask)
    if problem.calibration is not None:
        problem.calibration.file().write(path / "calibration.json")
    if problem.people is not None:
        problem.people.file.write(path / "people.json")
        problem.people.ratings.write(path / PEOPLE_RATINGS)
    if problem.answers is not None:
        save_answers(path / ANSWERS, problem.answers)
    if problem.others is not None:
        problem.others.population.to_csv(path / OTHERS.with_suffix(".csv"))
        problem.others.table.save(path / OTHERS)
    if problem.worth is not problem.test:
        problem.worth.save(path / HELD_OUT)
    # Last, because its presence says that all of this is done.
    problem.table.save(path / "table.npz")
    cells, served = problem.table.legal, problem.table.served
    unasked = f" ({(~served).sum():,} user x request pairs have no rating)"
    console.print(
        f"table: {cells.shape[0]} users x {cells.shape[1]} requests x {cells.shape[2]} providers, "
        f"{int((~cells).sum())} holes{'' if served.all() else unasked}; "
        f"judge: {problem.table.judge}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if problem.people is not None:
        found = problem.people.file
        console.print(
            f"people: {found.ratings:,} ratings of {found.people:,}; {found.rest_on_people:,} of "
            f"{found.cells:,} cells rest on them. {found.warning}".rstrip(),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return problem


def _read_problem(config: StudyConfig, path: Path) -> Problem:
    table = QoETable.load(path / "table.npz")
    population = Population.from_csv(path / "population.csv", traits=config.knows_traits)
    catalog = config.catalog.load()
    # A run of before valued choices by the table that policies played.
    worth = QoETable.load(path / HELD_OUT) if (path / HELD_OUT).exists() else None
    answers = load_answers(path / ANSWERS) if (path / ANSWERS).exists() else None
    others = None
    if (path / OTHERS).exists():
        people = Population.from_csv(path / OTHERS.with_suffix(".csv"), traits=config.knows_traits)
        others = Others(people, QoETable.load(path / OTHERS))
    return split(config, population, catalog, table, worth, answers=answers, others=others)


def _write_thumbnails(catalog: Catalog, folder: Path) -> None:
    """Small JPEGs of every picture, so that a report can be made without the catalog."""
    for r in range(len(catalog.requests)):
        for p in range(len(catalog.providers)):
            picture = catalog.picture(r, p)
            if picture is not None:
                image = Image.fromarray(shrink(picture.pixels, THUMBNAIL))
                with whole(folder / f"{r}-{p}.jpg") as partial:
                    image.save(partial, quality=88)
