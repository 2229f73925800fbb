"""From a config to the problem that learners are to solve."""

import csv
import json

import numpy as np
import pytest
import tiny_study

from rlli_jax.errors import InputError
from rlli_jax.experiments.config import load_config
from rlli_jax.experiments.tables import build_problem, split


def problem(folder, *overrides, **changes):
    return build_problem(load_config(tiny_study.write_config(folder, **changes), overrides))


def test_recorded_scores_become_the_table(tmp_path):
    built = problem(tmp_path, table={})
    assert built.table.users == built.population.names == ("ann", "ben")
    assert built.table.providers == tiny_study.PROVIDERS
    with open(tmp_path / "scores.csv", newline="") as file:
        for row in csv.DictReader(file):
            cell = (
                built.table.users.index(row["user"]),
                built.table.requests.index(row["request"]),
                built.table.providers.index(row["provider"]),
            )
            assert built.table.qoe[cell][0] == pytest.approx((float(row["score"]) - 1) / 4)
    hole = (1, built.table.requests.index("a cat"), tiny_study.PROVIDERS.index("wax"))
    assert [tuple(cell) for cell in np.argwhere(~built.table.legal)] == [hole]
    assert built.train is built.test is built.table
    assert built.human is None


def test_all_samples_of_a_recording_are_in_the_table(tmp_path):
    tiny_study.write_scores(tmp_path)
    scores = tmp_path / "scores.csv"
    header, *rows = scores.read_text().splitlines()
    lines = [f"{header},sample", *(f"{row},0" for row in rows), "ann,ink,a cat,5,1"]
    scores.write_text("\n".join(lines) + "\n")
    table = problem(tmp_path, table={}).table
    assert table.qoe.shape == (2, 4, 3, 2)
    assert table.valid.sum() == len(rows) + 1
    assert table.qoe[0, table.requests.index("a cat"), 0, 1] == 1


def test_a_table_is_standardised_once(tmp_path):
    plain = problem(tmp_path, table={})
    built = problem(tmp_path, table={"standardise": True})
    np.testing.assert_array_equal(built.table.qoe, plain.table.standardised().qoe)
    # As a resumed run does: the table that was kept is not standardised again.
    config = load_config(tmp_path / "study.yaml")
    again = split(config, built.population, built.catalog, built.table)
    np.testing.assert_array_equal(again.table.qoe, built.table.qoe)
    assert again.table.judge.count("standardised") == 1


def test_held_out_requests_are_seen_by_no_learner(tmp_path):
    built = problem(tmp_path, table={"held_out_requests": 0.25})
    assert len(built.test.requests) == 1
    assert len(built.train.requests) == 3
    assert set(built.test.requests).isdisjoint(built.train.requests)
    assert {*built.test.requests, *built.train.requests} == set(built.table.requests)
    others = {
        problem(tmp_path, table={"held_out_requests": 0.25, "split_seed": seed}).test.requests
        for seed in range(8)
    }
    assert len(others) > 1


def test_human_scores_are_those_of_the_held_out_requests(tmp_path):
    human = tiny_study.write_human(tmp_path)
    built = problem(
        tmp_path,
        table={"held_out_requests": 0.5},
        evaluation={"human": tiny_study.human_block(human)},
    )
    assert built.human.requests == built.test.requests
    with open(human, newline="") as file:
        opinion = {(r["request"], r["provider"]): float(r["mos"]) for r in csv.DictReader(file)}
    for r, request in enumerate(built.human.requests):
        for p, provider in enumerate(built.human.providers):
            expected = opinion[request, provider] / 5
            assert built.human.mean[0, r, p] == pytest.approx(expected)


def test_a_choice_without_human_score_is_refused(tmp_path):
    human = tiny_study.write_human(tmp_path, skip=[("oil", "an owl")])
    sentence = "no score for request 'an owl' by provider 'oil', which a policy may choose; add it"
    with pytest.raises(InputError, match=sentence):
        problem(tmp_path, table={}, evaluation={"human": tiny_study.human_block(human)})


def test_human_scores_are_one_opinion(tmp_path):
    tiny_study.write_scores(tmp_path)
    block = {"kind": "recorded", "path": str(tmp_path / "scores.csv"), "scale": "1-5"}
    with pytest.raises(InputError, match=r"scores of 2 users; set evaluation\.human\.user"):
        problem(tmp_path, table={}, evaluation={"human": block})


def test_a_psychometric_judge_rates_pictures_of_a_folder(tmp_path):
    tiny_study.write_pictures(tmp_path / "pictures")
    (tmp_path / "users.csv").write_text("name,O,C,E,A,N\nann,1,2,3,4,5\nben,5,4,3,2,1\n")
    built = problem(
        tmp_path,
        catalog={"folder": "pictures"},
        population={"csv": "users.csv"},
        judge={"kind": "psychometric", "samples": 2},
        table={},
    )
    assert built.table.qoe.shape == (2, 4, 3, 2)
    assert built.table.legal.all()
    assert built.table.stand_in
    assert built.table.users == ("ann", "ben")


def calibrate(folder, **block):
    human = tiny_study.write_human(folder)
    return {"calibrate": {"human": tiny_study.human_block(human), **block}}


def test_people_weigh_the_judges_into_one_user(tmp_path):
    built = problem(tmp_path, table=calibrate(tmp_path))
    assert built.table.users == built.population.names == ("calibrated",)
    assert "2 judges calibrated by" in built.table.judge
    summary = json.loads(json.dumps(built.calibration.summary(), allow_nan=False))
    assert summary["requests"] == 4
    assert set(summary["weights"]) == {"ann", "ben"}
    assert set(summary["offsets"]) == set(tiny_study.PROVIDERS)
    assert [point["requests"] for point in summary["curve"]] == [0, 2]
    assert summary["curve"][0]["without_judges"] is None


def test_calibration_sees_no_held_out_request_and_as_many_others_as_it_may(tmp_path):
    table = {"held_out_requests": 0.25} | calibrate(tmp_path, requests=2)
    built = problem(tmp_path, table=table)
    assert built.calibration.found.requests == 2
    with pytest.raises(InputError, match=r"requests is 4, but .* scores of 3 requests"):
        problem(tmp_path, table={"held_out_requests": 0.25} | calibrate(tmp_path, requests=4))


def test_a_calibrated_table_is_neither_standardised_nor_of_personas(tmp_path):
    with pytest.raises(InputError, match=r"remove table.standardise and table.shrink"):
        problem(tmp_path, table={"shrink": True} | calibrate(tmp_path))
    with pytest.raises(InputError, match="users of a psychometric judge are to differ"):
        problem(
            tmp_path,
            table=calibrate(tmp_path),
            judge={"kind": "psychometric"},
            population={"sample": {"size": 2, "group": "women 21-40"}},
        )
