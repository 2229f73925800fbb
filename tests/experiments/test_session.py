"""A study of sessions, from YAML to run, references and report."""

import html
import json
import re

import numpy as np
import pytest
import yaml
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.session.study import STUDY as STUDY_KIND
from rlli_jax.experiments.sweeps.plan import make_plan
from rlli_jax.run_files.session import SessionReferences
from rlli_jax.studies import carry_out, load_study, render

STUDY = {
    "name": "session",
    "kind": "session",
    "seeds": 5,
    "population": {"sample": {"size": 12, "seed": 3}},
    "catalog": {"studio": True},
    "judge": {"kind": "psychometric", "samples": 2},
    "session": {"turns": 4, "satiation": {"turns": 2}, "taste": {"spread": 0.4}},
    "policies": {
        "LinUCB": {
            "learner": "linucb",
            "observation": ["belief"],
            "iterations": 2,
            "config": {"num_steps": 8},
        },
        "Greedy": {"learner": "belief_greedy"},
        "Plan": {"learner": "best_fixed"},
        "Words": {"learner": "tiny_model", "remembered": 1},
    },
    "evaluation": {"episodes": 600},
}


def written(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compilations):
    folder = tmp_path_factory.mktemp("session")
    study = load_study(written(folder))
    carry_out(study, folder / "run", "refuse", Console(quiet=True))
    return folder / "run"


def test_adapting_is_paid_between_the_plan_and_hindsight(finished):
    found = SessionReferences.read(finished / "references.json")
    assert found.people == (6, 6)
    objective = {}
    for name in STUDY["policies"]:
        with np.load(finished / "policies" / name / "evaluation.npz") as file:
            assert file["felt"].shape == (5, 4)
            np.testing.assert_allclose(file["objective"], file["felt"].sum(1), rtol=1e-5)
            objective[name] = file["objective"].mean()
    assert found.random < objective["Plan"] < found.best_without_adapting + 0.03
    assert objective["Plan"] + 0.05 < objective["Greedy"] < np.mean(found.hindsight)


def test_the_report_says_what_adapting_is_worth_and_over_what(finished):
    page = render(finished).read_text()
    words = "Greedy brings 0.[0-9]+ QoE a session more than the best policy that does not adapt"
    assert re.search(words + r" \(95 % interval 0.[0-9]+ to 0.[0-9]+\), which excludes zero", page)
    assert "over seeds and episodes" in page
    assert "stand-in for a language model" in page
    assert "Can this judge be believed?" in page
    assert "How reliable the scores are" in page


def test_a_language_model_is_told_the_last_turn_and_asked_once_for_each_situation(finished):
    plan = json.loads((finished / "plans" / "Words.json").read_text())
    assert (plan["asked"], plan["stand_in"]) == ((1 + 4 * 3) * 6, True)
    assert len(plan["plan"]) == plan["asked"]
    page = " ".join(html.unescape(render(finished).read_text()).split())
    assert re.search("the last turn in words .tiny [^<]*, a stand-in, asked 78 times", page)
    study = load_study(finished / "config.yaml", ["policies.Words.remembered=3"])
    with pytest.raises(InputError, match=r"policies\.Words\.remembered: the last 3 turns"):
        STUDY_KIND.prepare(study, None, Console(quiet=True))


def test_a_sweep_asks_nobody_for_policies_that_it_does_not_try(tmp_path, monkeypatch):
    monkeypatch.setattr("rlli_jax.experiments.plans.make_plan", None)
    grid = {"policies.LinUCB.hyperparams.exploration": [0.1, 1.0]}
    plan = make_plan(load_study(written(tmp_path, sweep={"grid": grid})))
    assert len(plan.groups[0]) == 2 * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"session": {"turns": 0}}, "session.turns"),
        ({"population": None}, "population: this key is missing"),
        ({"session": {"taste": {"memory": 2}}}, "session.taste.memory"),
    ],
)
def test_a_mistake_names_its_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_study(written(tmp_path, **changes))
