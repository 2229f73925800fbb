"""`rlli evaluate`: the policies of a run beside a log of people."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_study import PROVIDERS

from rlli_jax.errors import InputError
from rlli_jax.experiments import deploying, feedback, serving
from rlli_jax.feedback.reading import read_log

PEOPLE = Path(__file__).parents[3] / "shared" / "data" / "personality2018" / "logged.csv"


@pytest.fixture
def run(persona_run):
    return persona_run


def written(path, providers=PROVIDERS, n=240, seed=0):
    """A uniformly random log of people with traits on a 1-7 scale, semicolons between columns."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.uniform(1, 7, (n, 5)), columns=list("OCEAN"))
    frame["provider"] = rng.choice(providers, n)
    frame["liked"] = rng.integers(1, 8, n)
    frame.to_csv(path, sep=";", decimal=",", index=False)
    return path


def test_policies_of_a_run_are_valued_by_what_they_would_choose_for_each_person(run, tmp_path):
    log = read_log(
        written(tmp_path / "log.csv"), qoe="liked", scale="1-7", trait_scale="1-7",
        propensities="shares",
    )  # fmt: skip
    findings = feedback.evaluate(log, run)
    valued = {v.name: v for v in findings.policies}
    alone = {"random", "best single provider", "chosen by context", "learned from this log"}
    assert set(valued) == alone | {"knowing"}
    assert findings.of_run == ("knowing",)
    assert findings.left_out == {"blind": "it does not choose by persona"}
    # By hand, for every tenth person: self-normalised weights of what the policy would choose.
    trained = serving.load_policy(run, "knowing")
    chosen = serving.choices(trained, log.context)
    names = np.array(trained.table.providers)
    share = (names[chosen] == np.array(log.providers)[log.action][:, None]).mean(1)
    weight = share / log.propensity
    expected = (weight * log.reward).sum() / weight.sum()
    assert valued["knowing"].estimates["self-normalised IPS"].value == pytest.approx(expected)
    assert 1 <= log.context.min() <= log.context.max() <= 5


def test_the_command_prints_and_writes_what_a_log_says(run, tmp_path, rlli):
    file = written(tmp_path / "log.csv")
    status, out, errors = rlli(
        "evaluate", run, "--log", file, "--qoe", "liked", "--scale", "1-7", "--trait-scale", "1-7",
        "--propensities", "shares", "--output", tmp_path / "findings.json",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    assert "knowing" in out
    assert "Does the best provider depend on the persona?" in out
    findings = json.loads((tmp_path / "findings.json").read_text())
    assert findings["rounds"] == 240
    assert findings["interaction"]["users"] == 240
    assert "the run was trained on: psychometric (a stand-in" in out
    judge = findings["judge"]
    assert set(judge["providers"]) == set(PROVIDERS)
    for value in judge["providers"].values():  # ratings are noise here: the judge is of no use
        assert 0 <= value["trust"] <= 1
        assert 0.9 < value["worth"] < 1.3
    assert [point["people"] for point in judge["curve"]] == [0, 10, 20, 50, 100]
    page = (tmp_path / "findings.html").read_text()
    assert page.count("<svg") == 2
    assert "a stand-in for a language model" in page
    for policy in findings["policies"]:
        own = f"{1 + 6 * policy['best']['value']:.3f}"
        assert own in page


def test_a_log_that_lacks_providers_of_the_run_is_valued_among_those_it_has(run, tmp_path):
    file = written(tmp_path / "log.csv", providers=PROVIDERS[:2])
    log = read_log(file, qoe="liked", scale="1-7", trait_scale="1-7", propensities="shares")
    probability, _ = feedback._asked(deploying.served_policy(run, "knowing"), log)
    assert probability.shape == (240, 2)
    assert probability.sum(1) == pytest.approx(1)


def test_a_policy_chooses_among_what_was_offered_and_for_the_request_that_was_made(run, tmp_path):
    frame = pd.read_csv(written(tmp_path / "log.csv"), sep=";", decimal=",")
    chosen = frame["provider"].to_numpy()
    other = np.where(chosen == PROVIDERS[0], PROVIDERS[1], PROVIDERS[0])
    frame["offered"] = [";".join(pair) for pair in zip(chosen, other, strict=True)]
    frame["request"] = "a cat"
    frame.to_csv(tmp_path / "offered.csv", index=False)
    log = read_log(
        tmp_path / "offered.csv", qoe="liked", scale="1-7", trait_scale="1-7",
        propensities="shares",
    )  # fmt: skip
    probability, _ = feedback._asked(deploying.served_policy(run, "knowing"), log)
    assert set(np.unique(probability)) == {0, 1}  # one request, one choice
    assert (probability[~log.offered] == 0).all()


def test_a_log_of_other_providers_is_refused_in_one_sentence(run, tmp_path):
    log = read_log(
        written(tmp_path / "log.csv", providers=("x", "y")), qoe="liked", scale="1-7",
        trait_scale="1-7", propensities="shares",
    )  # fmt: skip
    with pytest.raises(InputError, match="the log has the providers x, y, the run"):
        feedback.evaluate(log, run)


def test_traits_off_the_scale_are_refused_with_the_way_to_name_it(tmp_path):
    with pytest.raises(InputError, match="is not on the scale 1-5; name the scale"):
        read_log(written(tmp_path / "log.csv"), qoe="liked", scale="1-7")


def test_a_log_that_knows_nothing_of_its_users_still_values_single_providers(tmp_path):
    frame = pd.DataFrame({"provider": list("AABB") * 20, "score": [5, 4, 2, 1] * 20})
    frame.to_csv(tmp_path / "log.csv", index=False)
    log = read_log(tmp_path / "log.csv", qoe="score", scale="1-5", propensities="shares")
    findings = feedback.evaluate(log)
    assert {v.name for v in findings.policies} == {"random", "best single provider"}
    assert findings.judge is None
    assert findings.gain_of_personalising is findings.interaction is None
    best = next(v for v in findings.policies if v.name == "best single provider")
    assert 1 + 4 * best.best.value == pytest.approx(4.5, abs=0.1)
