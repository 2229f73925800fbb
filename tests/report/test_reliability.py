"""The section on reliability says what the run directory says, and nothing where that is silent."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import reliability
from rlli_jax.report.data import load_run
from rlli_jax.report.labels import number
from rlli_jax.report.reliability import view
from rlli_jax.studies import render


def write(run_dir, table=None, **block):
    """What a study with these keys of ``table`` leaves behind."""
    table = table or QoETable.load(run_dir / "table.npz")
    reliability(table).file().write(run_dir / "reliability.json")
    path = run_dir / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"table": config["table"] | block}))
    return view(run_dir / "reliability.json", load_run(run_dir))


def test_measures_of_the_answers(run_dir):
    table = QoETable.load(run_dir / "table.npz")
    measured = reliability(table)
    view = write(run_dir)
    rows = dict(view.measures)
    assert rows["Ratings"] == str(table.valid.sum())
    assert rows["Questions without a rating"] == "none"
    assert f"standard deviation {measured.repeat_sd:.3f}" in rows["Repeats of a question"]
    assert f"ICC(1) {measured.repeats.single:.2f}" in rows["Repeats of a question"]
    assert (
        f"mean correlation {number(measured.agreement, 2)}, ICC" in rows["Agreement between users"]
    )
    assert "user × provider" in rows["Where the variance of an answer lies"]
    assert [user for user, _ in view.scale] == list(table.users)
    assert view.scale[0][1].mean == pytest.approx(table.qoe[0].mean(), abs=1e-6)
    assert view.processing == "Learners got the scores as they were given."


def test_missing_answers_and_what_was_done_about_them(run_dir):
    table = QoETable.load(run_dir / "table.npz")
    missing = np.zeros_like(table.missing)
    missing[0, 0, :2] = 4
    valid = table.valid.copy()
    valid[0, 0, 0] = False
    half_imputed = replace(table, valid=valid, missing=missing)
    rows = dict(write(run_dir, half_imputed).measures)
    said = "8 of 48 (16.7\N{NO-BREAK SPACE}%): 4 filled with the provider's mean, 4 left out"
    assert rows["Questions without a rating"] == said
    masked = replace(half_imputed, missing=np.where(valid.any(-1), 0, missing))
    assert dict(write(run_dir, masked).measures)["Questions without a rating"].endswith("left out")


def test_one_answer_of_one_user_tells_little(run_dir):
    table = QoETable.load(run_dir / "table.npz").select(users=("Ada",))
    single = replace(table, qoe=table.qoe[..., :1], valid=table.valid[..., :1])
    rows = dict(write(run_dir, single).measures)
    assert rows["Repeats of a question"].startswith("each question was asked once")
    assert "Agreement between users" not in rows


def test_what_was_done_to_the_table_is_said(run_dir):
    said = write(run_dir, standardise=True, shrink=True).processing
    assert said.startswith("The table that learners got was standardised (every user's level")
    assert "and shrunk (noisy cells" in said


def test_many_users_are_one_row(tmp_path, make_run):
    path = make_run(tmp_path / "many", users=tuple(f"user {i}" for i in range(11)), pictures=False)
    ((user, _),) = write(path).scale
    assert user == "Median of 11 users"


def test_the_section_is_on_the_page_where_there_is_something_to_say(run_dir):
    title = "How reliable the scores are"
    assert title not in render(run_dir).read_text()
    write(run_dir)
    assert title in render(run_dir).read_text()


def test_a_damaged_file_is_named(run_dir):
    (run_dir / "reliability.json").write_text("{}")
    with pytest.raises(InputError, match=r"reliability\.json has no entry"):
        render(run_dir)
