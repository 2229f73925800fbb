"""From a config to the problem that learners are to solve."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_study

from rlli_jax.errors import InputError
from rlli_jax.experiments.judge_blocks import OpenAI, Transformers
from rlli_jax.experiments.selection.config import TableBlock
from rlli_jax.experiments.selection.tables import build_problem, impute, prepare, split
from rlli_jax.experiments.sources import inquire
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import shrink
from rlli_jax.studies import load_study


def problem(folder, *overrides, **changes):
    return build_problem(load_study(tiny_study.write_config(folder, **changes), overrides))


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
    config = load_study(tmp_path / "study.yaml")
    again = split(config, built.population, built.catalog, built.table)
    np.testing.assert_array_equal(again.table.qoe, built.table.qoe)
    assert again.table.judge.count("standardised") == 1
    assert again.worth is again.test  # a run of before kept nothing else


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
    summary = json.loads(json.dumps(built.calibration.file().model_dump(), allow_nan=False))
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


def luck(seed, users=5, requests=20, providers=8):
    """A table without any true difference."""
    qoe = np.random.default_rng(seed).uniform(0, 1, (users, requests, providers, 1))
    sizes = zip("urp", qoe.shape[:3], strict=True)
    names = [tuple(f"{kind}{i}" for i in range(size)) for kind, size in sizes]
    return QoETable(qoe, np.ones(qoe.shape, bool), *names, "luck", True)


def held_out_gain(table, worth, seed):
    """What each user's best provider of the training requests gains on the others over chance."""
    _, train = table.split_requests(0.5, seed)
    best = train.provider_values.argmax(1)
    values = worth.provider_values
    return (values[np.arange(len(best)), best] - values.mean(1)).mean()


NOTHING_TRUE = TableBlock(standardise=True, shrink=True, held_out_requests=0.5)


def test_where_nothing_is_true_nothing_is_gained_on_held_out_requests():
    gains, leaking = [], []
    for seed in range(300):
        given = luck(seed)
        block = NOTHING_TRUE.model_copy(update={"split_seed": seed})
        gains.append(held_out_gain(*prepare(block, given), seed))
        # What is shrunk before it is split has seen what judges it.
        table = shrink(given.standardised())
        leaking.append(held_out_gain(table, table.split_requests(0.5, seed)[0], seed))
    error = np.std(gains) / np.sqrt(len(gains))
    assert abs(np.mean(gains)) < 3 * error < 0.008
    assert np.mean(leaking) > 0.004  # the fault would show


def test_what_learners_see_does_not_depend_on_held_out_answers():
    given = luck(0)
    held_out, _ = given.split_requests(0.5, 0)
    rows = [given.requests.index(name) for name in held_out.requests]
    qoe, valid, missing = given.qoe.copy(), given.valid.copy(), given.missing.copy()
    for hole in ((0, rows[0], 0), (0, 2 if 2 not in rows else 3, 0)):
        valid[hole], missing[hole] = False, 1
    first = replace(given, valid=valid, missing=missing)
    qoe[:, rows] = np.random.default_rng(1).random((5, len(rows), 8, 1)) ** 3
    other = replace(first, qoe=qoe)
    tables = [prepare(NOTHING_TRUE, impute(NOTHING_TRUE, table)) for table in (first, other)]
    trains = [table.split_requests(0.5, 0)[1] for table, _ in tables]
    np.testing.assert_array_equal(trains[0].qoe, trains[1].qoe)
    assert (trains[0].legal).all()  # imputed
    for table, given in zip((first, other), tables, strict=True):
        np.testing.assert_array_equal(given[1].qoe, table.select(requests=held_out.requests).qoe)
        assert not given[1].legal[0, 0, 0]  # not imputed


def test_without_held_out_requests_what_is_played_is_what_counts():
    block = TableBlock(shrink=True)
    table, worth = prepare(block, luck(0))
    assert worth is None
    np.testing.assert_array_equal(table.qoe, shrink(luck(0)).qoe)


def calibrated_study(folder, seed, requests=16, providers=5):
    """Judges and people who see nothing: scores without any true difference."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    pairs = [(f"r{r}", f"p{p}") for r in range(requests) for p in range(providers)]
    images = "".join(f"{p},{r},{p}{r}.png\n" for r, p in pairs)
    (folder / "images.csv").write_text("provider,request,image\n" + images)
    for name, users in (("scores.csv", ("ann", "ben")), ("human.csv", ("all",))):
        rows = "".join(f"{u},{p},{r},{rng.uniform(1, 5)}\n" for u in users for r, p in pairs)
        (folder / name).write_text("user,provider,request,score\n" + rows)
    human = {"kind": "recorded", "path": str(folder / "human.csv"), "scale": "1-5"}
    return {"held_out_requests": 0.5, "split_seed": seed, "calibrate": {"human": human}}


def test_where_people_see_nothing_a_calibration_gains_nothing_on_held_out_requests(
    tmp_path, monkeypatch
):
    from rlli_jax.qoe import calibration

    calibrate = calibration.calibrate
    few = lambda judges, human: calibrate(judges, human, resamples=2)  # noqa: E731
    monkeypatch.setattr(calibration, "calibrate", few)
    monkeypatch.setattr(calibration, "calibration_curve", lambda *_: [])
    gains, claimed = [], []
    for seed in range(60):
        table = calibrated_study(tmp_path / str(seed), seed)
        built = problem(tmp_path / str(seed), table=table)
        gains.append(held_out_gain(built.table, built.worth, seed))
        claimed.append(held_out_gain(built.table, built.test, seed))
    error = np.std(gains) / np.sqrt(len(gains))
    assert abs(np.mean(gains)) < 3 * error < 0.05
    assert np.mean(claimed) > 0.05  # by its own prediction it would gain much


def test_a_calibration_does_not_depend_on_what_judges_it(tmp_path):
    table = calibrated_study(tmp_path / "a", 0)
    first = problem(tmp_path / "a", table=table)
    for name in ("human.csv", "scores.csv"):  # other answers to the held-out requests
        path = tmp_path / "a" / name
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if line.split(",")[2] in first.test.requests:
                lines[i] = line.rsplit(",", 1)[0] + ",1.5"
        path.write_text("\n".join(lines) + "\n")
    second = problem(tmp_path / "a", table=table)
    np.testing.assert_array_equal(first.train.qoe, second.train.qoe)
    assert first.calibration.file() == second.calibration.file()
    np.testing.assert_allclose(second.worth.mean, (1.5 - 1) / 4)


def test_a_calibration_is_not_judged_by_itself(tmp_path):
    table = calibrated_study(tmp_path / "a", 0)
    held_out = problem(tmp_path / "a", table=table).test.requests
    path = tmp_path / "a" / "human.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(x for x in lines if x.split(",")[2] not in held_out) + "\n")
    with pytest.raises(InputError, match="no score of a held-out request"):
        problem(tmp_path / "a", table=table)


def write_gaps(folder, rows):
    """Each person rated some of the pictures."""
    tiny_study.write_scores(folder)
    (folder / "scores.csv").write_text("user,provider,request,score\n" + "\n".join(rows) + "\n")


GAPS = ["ann,ink,a cat,1", "ann,oil,a cat,4", "ann,wax,a tree,2", "ben,oil,an owl,5",
        "ben,ink,a boat,3", "ben,wax,a boat,2", "ben,ink,a cat,2"]  # fmt: skip


def test_people_who_rated_some_pictures_make_a_study(tmp_path):
    write_gaps(tmp_path, GAPS)
    built = problem(tmp_path, table={})
    assert built.table.served.tolist() == [[False, True, True, False], [True, True, False, True]]
    assert (
        "17 of 24 answers are missing (17 invalid, 0 failed), masked, 3 of 8" in built.table.judge
    )
    assert built.reliability.ratings == 7
    with pytest.raises(InputError, match="17 of 24 answers are missing"):
        problem(tmp_path, "judge.on_missing=raise", table={})
    filled = problem(tmp_path, "judge.on_missing=impute", table={})
    assert filled.table.legal.all()
    assert filled.reliability.imputed == 17


def test_who_has_no_rating_in_one_part_is_left_out_and_counted(tmp_path):
    write_gaps(tmp_path, [*GAPS, "eve,oil,a cat,4"])
    table = {"held_out_requests": 0.5}
    built = problem(tmp_path, table=table)
    assert built.table.users == built.population.names
    assert "eve" not in built.table.users
    assert "1 of 3 users left out" in built.table.judge
    assert built.train.served.any(1).all()
    assert built.worth.served.any(1).all()


def test_a_judge_that_does_not_draw_is_asked_once(tmp_path):
    model = {"kind": "transformers", "model": "m", "samples": 3}
    assert not Transformers(**model).draws
    openai = model | {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}  # is not asked
    for more, draws in (
        ({}, False), ({"temperature": 0.7}, True), ({"temperature": None}, True),
        ({"extra": {"temperature": 1}}, True),
    ):  # fmt: skip
        assert OpenAI(**openai, **more).draws == draws
        study = tiny_study.write_config(
            tmp_path,
            judge=openai | more,
            population={"sample": {"size": 2}},
        )
        config = load_study(study)
        assert inquire(config.population, config.catalog, config.judge).samples == (
            3 if draws else 1
        )
