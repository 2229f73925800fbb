"""Mistakes that can be seen without a judge's answers are told before the judge is asked; and what
it would be asked is planned for studies of every kind."""

import pytest
import tiny_study
import yaml
from experiments import test_market, test_preferences, test_session, test_tuned
from rich.console import Console
from teaching import test_study as test_teaching

from rlli_jax.errors import InputError
from rlli_jax.experiments.questions import export_missing, plan_questions
from rlli_jax.oracle import Asker
from rlli_jax.studies import carry_out, load_study

PEOPLE = {"population": {"sample": {"size": 5, "seed": 3}}}
JUDGED = PEOPLE | {"catalog": {"studio": True}, "judge": {"kind": "psychometric"}}
READS = {
    "kind": "openai",
    "model": "m",
    "sees": "description",
    "scoring": "text",
    "base_url": "http://localhost:1/v1",
}
NOWHERE = {"kind": "loaded", "model": "/nowhere"}
LEARNED = tiny_study.LEARNED["PPO"]


def selection(**changes):
    policies = {"PPO": LEARNED}
    return {"name": "tiny", "policies": policies} | JUDGED | changes


def market(**changes):
    policies = {"Random": {"learner": "random"}}
    numbers = test_market.content()["market"] | {"fleet": {"sample": {"seed": 1, "providers": 4}}}
    return test_market.content(policies=policies, **JUDGED) | {"market": numbers | changes}


def preferences(**pairs):
    return test_preferences.STUDY | {"pairs": {"counts": [20], "noise": [0.1]} | pairs}


def reads_requests(encoder):
    text = {"encoder": encoder}
    return {"PPO": LEARNED | {"observation": ["action", "request_text"], "text": text}}


def teaching():
    task = {"kind": "provider_selection", "study": "inner.yaml"}
    return test_teaching.content(task=task, teacher=NOWHERE)


HUMAN = {"kind": "recorded", "path": "no.csv", "scale": "0-5", "user": "people"}
PAIRS = "user_id,caption,model_0,model_1,label_0\n"


@pytest.mark.parametrize(
    ("study", "says"),
    [
        (selection(table={"people": {"log": "no.csv"}}), "no.csv"),
        (selection(table={"people": {"log": "log.csv"}}), "has ratings of nobody"),
        (selection(evaluation={"human": HUMAN}), "no.csv"),
        (selection(policies=reads_requests("/nowhere")), "the encoder /nowhere cannot be loaded"),
        (market(fleet={"sample": {"seed": 1, "providers": 3}}), "market.fleet has 3 providers"),
        (market(user_mix=[1, 2]), "user_mix"),
        (test_session.STUDY | {"population": {"sample": {"size": 1}}}, "session.held_out_users"),
        (test_tuned.STUDY | {"model": NOWHERE}, "Model folder /nowhere does not exist"),
        (preferences(file="no.csv"), "no.csv"),
        (preferences(file="pairs.csv"), "nobody knows the user 'user 1'"),
        (preferences(ask=10**6) | {"judge": READS}, "there are 280 of which the judge can be ask"),
        (teaching(), "Model folder /nowhere does not exist"),
    ],
)
def test_a_mistake_is_told_before_anybody_is_asked(tmp_path, monkeypatch, study, says):
    def asked(*_, **__):
        raise AssertionError("the judge was asked")

    monkeypatch.setattr(Asker, "__call__", asked)
    (tmp_path / "log.csv").write_text("provider,qoe,O,C,E,A,N\n" + 9 * "nobody,3,3,3,3,3,3\n")
    (tmp_path / "pairs.csv").write_text(PAIRS + "user 1,a cat,nobody,other,1\n")
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(selection()))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(InputError, match=says):
        carry_out(load_study(path), tmp_path / "run", "refuse", Console(quiet=True))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("edge_market_qoe", "questions; the psychometric judge costs nothing"),
        ("edge_market", "0 questions: this study has no judge"),
        ("session", "questions; the psychometric judge costs nothing"),
        ("tuned_policy", "questions; the psychometric judge costs nothing"),
        ("preferences", "questions; the psychometric judge costs nothing"),
        ("go_to", "0 questions: this study has no judge"),
        ("bidirectional", "0 questions: this study has no judge"),
    ],
)
def test_studies_of_every_kind_are_planned(rlli, config, says):
    status, output, errors = rlli("judge", f"configs/{config}.yaml", "--dry-run")
    assert (status, errors) == (0, "")
    assert says in output


def test_a_teaching_study_is_planned_by_the_study_of_its_task(tmp_path):
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(selection()))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(teaching(), sort_keys=False))
    assert plan_questions(load_study(path)) == (
        "120 questions; the psychometric judge costs nothing"
    )


def test_pairs_that_a_judge_will_be_asked_are_planned_and_the_table_can_be_a_batch(tmp_path):
    judge = READS | {"store": str(tmp_path / "store.sqlite"), "examination": None, "require": []}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(preferences(ask="all") | {"judge": judge}, sort_keys=False))
    study = load_study(path)
    planned = plan_questions(study)
    assert (
        "after them up to 560 questions about 280 pairs, within what the budget leaves" in planned
    )
    assert export_missing(study, tmp_path / "batch.jsonl").startswith("184 requests in")


def test_a_sweep_is_not_planned_and_says_so(rlli):
    status, _, errors = rlli("judge", "configs/sweep.yaml", "--dry-run")
    assert status == 2
    assert "is a study with a sweep, which rlli judge --dry-run does not take" in errors
