"""A study from people's files alone: ``configs/people.yaml`` from judging to the report."""

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.experiments.sources import join
from rlli_jax.personas import Persona, Population
from rlli_jax.personas.questionnaire import ipip50
from rlli_jax.qoe import QoETable
from rlli_jax.studies import load_study

CONFIG = Path(__file__).parents[2] / "configs/people.yaml"


def write_files(folder: Path) -> Path:
    """Made-up files beside a copy of the config: three people, two providers, two requests."""
    shutil.copy(CONFIG, folder / "people.yaml")
    here = folder / "people"
    items = ipip50().items
    answers = [["name", *items]] + [
        [name, *(str(1 + (i * k) % 5) for i, _ in enumerate(items))]
        for k, name in enumerate(("Ann", "Ben", "Cem", "Dee"))
    ]
    answers[1][1] = "0"  # Ann did not answer E1
    for i, provider in enumerate(("ink pen", "oil")):
        (here / "my pictures" / provider).mkdir(parents=True)
        for request in ("city_night.png", "a dog.PNG"):
            Image.fromarray(np.full((8, 8, 3), 90 * i, np.uint8)).save(
                here / "my pictures" / provider / request
            )
    (here / "my pictures/oil/a cow.heic").touch()
    (here / "my pictures/oil/._a dog.PNG").touch()
    (here / "answers.tsv").write_text("\n".join("\t".join(row) for row in answers) + "\n")
    (here / "ratings.csv").write_text(
        "\ufeffName;Bild;Anbieter;Note\n"
        "Ann;city_night;ink pen;6,5\nAnn;city_night;oil;2\nAnn;a dog;ink pen;\nAnn;a dog;oil;4\n"
        "Ben;city_night;ink pen;1\nBen;city_night;oil;7\n"
        "Cem;a dog;ink pen;3\nCem;a dog;oil;3,5\nEve;a dog;oil;3\n;;;\n"
    )
    return folder / "people.yaml"


def test_people_are_joined_to_their_ratings_with_gaps(tmp_path):
    config = load_study(write_files(tmp_path))
    with pytest.warns(UserWarning, match="left out") as warned:
        problem = build_problem(config, Console(file=StringIO()))
    said = " ".join(str(warning.message) for warning in warned)
    assert "files that are no .png, .jpg, .jpeg, .webp (1): oil/a cow.heic" in said
    assert "1 with scores only (Eve); 1 with a personality only (Dee)" in said
    assert problem.population.names == ("Ann", "Ben", "Cem")
    assert problem.population.traits is not None
    table = problem.table
    assert (table.providers, table.requests) == (("ink pen", "oil"), ("a dog", "city night"))
    np.testing.assert_array_equal(
        table.valid[..., 0],
        [
            [[False, True], [True, True]],
            [[False, False], [True, True]],
            [[True, True], [False] * 2],
        ],
    )
    assert table.qoe[0, 1, 0, 0] == pytest.approx((6.5 - 1) / 6)


def test_a_study_from_peoples_files_alone_is_judged_learned_and_reported(tmp_path, rlli):
    config, run = write_files(tmp_path), tmp_path / "run"
    with pytest.warns(UserWarning, match="left out"):
        status, out, _ = rlli(
            "run", config, "seeds=2", "policies.PPO.iterations=2", "evaluation.episodes=8",
            "--output", run,
        )  # fmt: skip
    assert status == 0
    assert "report" in out
    trained = np.load(run / "policies" / "PPO" / "evaluation.npz")
    assert np.isfinite(trained["objective"]).all()
    page = (run / "report.html").read_text()
    assert all(name in page for name in ("Ann", "Ben", "Cem", "ink pen", "city night"))
    assert (run / "figures" / "profiles.svg").exists()  # their traits are known
    # By hand, from 1-7 to 0-1: the best for each request that a person rated, mean over those.
    ann, ben, cem = (6.5 - 1 + 4 - 1) / 12, (7 - 1) / 6, (3.5 - 1) / 6
    table = QoETable.load(run / "table.npz")
    assert table.references()["optimum_per_request"] == pytest.approx(ann + ben + cem)


def test_people_whose_names_never_meet_are_refused():
    with pytest.raises(InputError, match=r"no name is in both.*scores only \(ann\).*\(Ann\)"):
        join(Population.named(["ann"]), Population((Persona("Ann", (3.0,) * 5),)))
