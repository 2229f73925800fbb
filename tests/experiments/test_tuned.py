"""A study of a tuned language model, from YAML to run, references and report."""

import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.tuning import TuningReferences
from rlli_jax.studies import carry_out, load_study, render
from rlli_jax.teaching.tuning import TUNERS

LEARNING_RATE = TUNERS["grpo"].hyperparams().learning_rate
TUNED = {"iterations": 2, "config": {"prompts": 6, "group": 4, "updates": 1}}
STUDY = {
    "name": "tuned",
    "kind": "tuning",
    "seeds": 3,
    "population": {"sample": {"size": 2, "seed": 3}},
    "catalog": {"studio": True},
    "judge": {"kind": "psychometric", "samples": 2},
    "model": {"kind": "stand_in", "width": 8},
    "policies": {
        "GRPO": {"learner": "grpo", **TUNED},
        "Numbers": {"learner": "linucb", "iterations": 2, "config": {"num_steps": 200}},
    },
}


def written(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    carry_out(load_study(written(folder)), folder / "run", "refuse", Console(quiet=True))
    return folder / "run"


def test_choices_are_valued_exactly_beside_the_references(finished):
    known = TuningReferences.read(finished / "references.json")
    assert known.random <= known.best_single <= known.optimum <= known.optimum_per_request
    mean = QoETable.load(finished / "table.npz").mean
    for name in STUDY["policies"]:
        with np.load(finished / "policies" / name / "evaluation.npz") as file:
            chosen = np.take_along_axis(mean[None], file["choices"][..., None], -1)[..., 0]
            worth = file["objective"]
        np.testing.assert_allclose(worth, chosen.mean(-1).sum(-1), rtol=1e-5)
    assert worth.min() > 0.9 * known.optimum_per_request  # of the bandit
    with np.load(finished / "policies" / "GRPO" / "curve.npz") as curve:
        assert curve["kl"].shape == (3, 2)
        assert (curve["kl"] > 0).all()
        # All seeds tune the same model, each its own LoRA.
        assert curve["episode_return"][:, 0] == pytest.approx(known.untuned, abs=0.2)


def test_the_report_names_the_stand_ins_and_the_optimum(finished):
    page = render(finished).read_text()
    assert "GRPO reaches" in page
    assert "of the optimum by its likeliest answers" in page
    assert "The tuned model is a tiny stand-in" in page
    assert "Scores come from a stand-in" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {"A": {"learner": "grpo", "iterations": 1, "config": {"group": 1}}}},
         r"policies\.A\.config\.group"),
        ({"policies": {"A": {"learner": "gpro", "iterations": 1}}}, "one of .*grpo, rloo"),
        ({"population": None}, "population: this key is missing"),
        ({"model": {"kind": "stand_in", "width": 10}}, r"model\.width"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_study(written(tmp_path, **changes))


def test_a_point_of_a_sweep_is_the_run_of_its_settings(finished, tmp_path):
    grid = {"policies.GRPO.hyperparams.learning_rate": [LEARNING_RATE, 0.1]}
    path = written(tmp_path, sweep={"grid": grid, "policies": ["GRPO"], "chunk": 3})
    carry_out(load_study(path), tmp_path / "sweep", "refuse", Console(quiet=True))
    data = xr.load_dataset(tmp_path / "sweep" / "sweep.nc", engine="scipy")
    with np.load(finished / "policies" / "GRPO" / "evaluation.npz") as run:
        np.testing.assert_allclose(data["objective"][0, 0], run["objective"], rtol=1e-4)
    assert "of the optimum at its best point" in render(tmp_path / "sweep").read_text()
