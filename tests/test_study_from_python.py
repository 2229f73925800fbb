"""Studies from Python: read by kind, carried out as by the command line."""

from pathlib import Path

import pytest
import tiny_study

from rlli_jax import InputError, load_study, run_study
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.sweeps.config import Sweep
from rlli_jax.experiments.teaching.config import TeachingStudy

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("paper", StudyConfig), ("edge_market", MarketConfig), ("bidirectional", TeachingStudy),
        ("sweep", Sweep),
    ],
)  # fmt: skip
def test_a_study_of_every_kind_is_read(file, kind):
    assert type(load_study(CONFIGS / f"{file}.yaml")) is kind


def test_a_mistake_in_a_file_is_one_sentence():
    with pytest.raises(InputError, match=r"paper\.yaml: seeds: must be greater than 0"):
        load_study(CONFIGS / "paper.yaml", ["seeds=0"])


def test_a_study_from_python_is_that_of_the_command_line_bit_for_bit(finished, tmp_path, capsys):
    config, by_command = finished
    run = run_study(load_study(config), tmp_path / "run", progress=False)
    assert run == tmp_path / "run"
    assert (run / "report.html").exists()
    tiny_study.assert_same_results(run, by_command)
    assert capsys.readouterr().out == ""

    with pytest.raises(InputError, match="exists; continue it"):
        run_study(config, run)
    (run / "report.html").unlink()
    assert run_study(str(config), str(run), resume=True, progress=False) == run
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"resume": True, "overwrite": True}, "resume and overwrite contradict each other"),
        ({"overrides": ["seeds=1"]}, "overrides are for a file"),
    ],
)
def test_arguments_that_contradict_each_other_are_one_sentence(finished, tmp_path, given, says):
    with pytest.raises(InputError, match=says):
        run_study(load_study(finished[0]), tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
