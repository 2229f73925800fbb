"""Studies with language models as judges, from the command line to the table and back."""

import json
import threading
import zlib
from contextlib import closing

import numpy as np
import pytest
import tiny_study
from chat_server import LocalServer, completion

pytest.importorskip("openai", reason="needs the extra llm")

from rlli_jax.experiments.run_directory import read_config
from rlli_jax.judges import named_scale
from rlli_jax.qoe import QoETable

LABELS = named_scale("adjectives").labels
QUESTIONS = 24  # 2 users x 4 requests x 3 providers


def opinion(body, n=0):
    """A rating that depends on the whole question and on nothing else."""
    return completion(LABELS[zlib.crc32(json.dumps(body["messages"]).encode()) % 5])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)
    with closing(LocalServer()) as server:
        server.respond = opinion
        yield server


@pytest.fixture
def study(tmp_path):
    """Writes the config of a study with this judge; policies that learn nothing are enough."""

    def write(judge, **changes):
        if not (tmp_path / "pictures").exists():
            tiny_study.write_pictures(tmp_path / "pictures")
            (tmp_path / "users.csv").write_text("name,O,C,E,A,N\nann,1,2,3,4,5\nben,5,4,3,2,1\n")
        blocks = {
            "catalog": {"folder": "pictures"},
            "population": {"csv": "users.csv"},
            "judge": {
                "scale": "adjectives",
                "store": "answers.sqlite",
                "examination": None,
                "require": [],
                **judge,
            },
            "table": {},
            "policies": {"Random": {"learner": "random"}},
        }
        return tiny_study.write_config(tmp_path, **{**blocks, **changes})

    return write


@pytest.fixture
def config(study, server):
    return study(
        {
            "kind": "openai",
            "base_url": server.url,
            "model": "tiny",
            "scoring": "text",
            "retries": 1,
            "concurrency": 2,
            "price_in": 2.0,
            "price_out": 10.0,
        }
    )


def numbers(plan):
    """The lines of a plan: name -> number."""
    rows = (line.rsplit(maxsplit=1) for line in plan.splitlines())
    return {name: value for name, value in rows}


def test_a_study_asks_each_question_once(rlli, config, server, tmp_path):
    status, plan, _ = rlli("judge", config, "--dry-run")
    assert status == 0
    before = numbers(plan)
    assert (before["questions"], before["cached"], before["to ask"]) == ("24", "0", "24")
    assert float(before["expected cost"]) > 0
    assert server.requests == []
    assert not (tmp_path / "run").exists()

    status, output, errors = rlli("run", config, "--output", tmp_path / "run")
    assert (status, errors) == (0, "")
    assert len({json.dumps(body) for body in server.requests}) == len(server.requests) == QUESTIONS
    assert "24 questions: 0 answers were stored, 24 asked" in output
    assert "24 rated, 0 invalid, 0 failed; 24,048 tokens, cost 0.05" in output
    first = QoETable.load(tmp_path / "run" / "table.npz")
    assert first.legal.all()
    assert not first.stand_in
    assert {*first.qoe.ravel()} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len({*first.qoe.ravel()}) > 2
    assert "model: tiny" in first.judge
    assert "model: tiny" in (tmp_path / "run" / "report.html").read_text()

    _, plan, _ = rlli("judge", config, "--dry-run")
    after = numbers(plan)
    assert (after["cached"], after["to ask"], after["expected cost"]) == ("24", "0", "0.00")
    status, output, _ = rlli("judge", config, "--output", tmp_path / "again")
    assert status == 0
    assert "24 answers were stored, 0 asked" in output
    assert len(server.requests) == QUESTIONS
    second = QoETable.load(tmp_path / "again" / "table.npz")
    np.testing.assert_array_equal(second.qoe, first.qoe)


def test_plans_and_batch_files_need_no_server(rlli, study, tmp_path):
    away = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "tiny"}
    config = study(away)
    status, plan, _ = rlli("judge", config, "--dry-run")
    assert status == 0
    *lines, note = plan.splitlines()
    assert numbers("\n".join(lines))["to ask"] == "24"
    assert note == "judge.scoring is auto, and no server was asked: planned as logprobs"
    status, _, errors = rlli("judge", config, "--export-batch", tmp_path / "in.jsonl")
    assert status == 2
    assert "judge.scoring: a batch file needs to know its scoring" in errors
    status, output, _ = rlli(
        "judge", config, "judge.scoring=text", "--export-batch", tmp_path / "in.jsonl"
    )
    assert (status, output) == (0, f"24 requests in {tmp_path / 'in.jsonl'}\n")


def test_a_plan_counts_the_answers_of_the_scoring_that_auto_once_was(
    rlli, config, server, tmp_path
):
    assert rlli("judge", config, "--output", tmp_path / "run")[0] == 0
    _, plan, _ = rlli("judge", config, "judge.scoring=auto", "--dry-run")
    *lines, note = plan.splitlines()
    assert numbers("\n".join(lines))["cached"] == "24"
    assert note.endswith("planned as text")
    assert len(server.requests) == QUESTIONS


def test_errors_inside_successes_are_asked_again_by_the_next_command(
    rlli, config, server, tmp_path
):
    error = {"code": 502, "message": "upstream went away"}
    choice = {"finish_reason": "error", "message": {"content": ""}, "error": error}
    server.respond = lambda body, n: {"choices": [choice]}
    status, _, errors = rlli("judge", config, "--output", tmp_path / "run")
    assert status == 2
    assert "upstream went away" in errors
    server.respond = opinion
    status, output, _ = rlli("judge", config, "--output", tmp_path / "again")
    assert status == 0
    assert "0 answers were stored, 24 asked" in output


def test_nulls_that_mean_something_survive_in_the_run_directory(rlli, config, server, tmp_path):
    changes = ("judge.max_tokens=null", "judge.temperature=null", "judge.longest_side=8")
    assert rlli("judge", config, *changes, "--output", tmp_path / "run")[0] == 0
    assert all("max_tokens" not in body for body in server.requests)
    kept = read_config(tmp_path / "run").judge
    assert (kept.max_tokens, kept.temperature, kept.longest_side) == (None, None, 8)


def test_a_batch_service_answers_in_place_of_the_server(rlli, config, server, tmp_path):
    _, _, errors = rlli("judge", config, "judge.budget.questions=4", "--output", tmp_path / "run")
    assert "20 of 24 answers are missing" in errors
    status, output, _ = rlli("judge", config, "--export-batch", tmp_path / "in.jsonl")
    assert (status, output) == (0, f"20 requests in {tmp_path / 'in.jsonl'}\n")
    assert len(server.requests) == 4

    lines = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    replies = [
        {
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "body": opinion(line["body"])},
        }
        for line in lines
    ]
    replies[0]["response"] = {"status_code": 500, "body": {"error": {"message": "overloaded"}}}
    back = [*replies[:0:-1], replies[0], replies[5]]  # out of order, one failed, one twice
    del back[3]  # and one missing
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(reply) + "\n" for reply in back))
    status, output, _ = rlli("judge", config, "--import-batch", tmp_path / "out.jsonl")
    assert status == 0
    assert "18 rated, 0 invalid, 1 failed, 1 missing; lines left out: 1 duplicate" in output

    status, _, _ = rlli("judge", config, "--output", tmp_path / "run")
    assert status == 0
    assert len(server.requests) == 4 + 2
    direct = f"judge.store={tmp_path / 'other.sqlite'}"
    rlli("judge", config, direct, "--output", tmp_path / "direct")
    np.testing.assert_array_equal(
        QoETable.load(tmp_path / "run" / "table.npz").qoe,
        QoETable.load(tmp_path / "direct" / "table.npz").qoe,
    )


def test_a_budget_stops_cleanly_and_the_next_command_goes_on(rlli, config, server, tmp_path):
    run = ("judge", config, "judge.budget.questions=10", "--output", tmp_path / "run")
    for asked in (10, 20):
        status, output, errors = rlli(*run)
        assert status == 2
        assert "stopped: the budget of 10 questions is used up; run again to go on" in output
        assert f"{QUESTIONS - asked} of 24 answers are missing" in errors
        assert len(server.requests) == asked
        assert not (tmp_path / "run" / "table.npz").exists()
    status, output, _ = rlli(*run)
    assert status == 0
    assert "20 answers were stored, 4 asked" in output
    assert len(server.requests) == QUESTIONS


def test_a_server_that_dies_loses_nothing_that_was_answered(rlli, config, server, tmp_path):
    def dies(body, n):
        if n == 12:
            threading.Thread(target=server.close).start()
        return opinion(body) if n < 12 else None

    server.respond = dies
    status, output, errors = rlli("judge", config, "--output", tmp_path / "run")
    assert status == 2
    assert "12 rated, 0 invalid, 12 failed" in output
    assert "12 of 24 answers are missing (0 invalid, 12 failed)" in errors
    assert "no answer from the server" in errors
    with closing(LocalServer()) as other:  # elsewhere, but the same model
        other.respond = opinion
        address = f"judge.base_url={other.url}"
        status, _, _ = rlli("judge", config, address, "--output", tmp_path / "run")
        assert status == 0
        assert len(other.requests) == 12
        everything = ("judge", config, address, f"judge.store={tmp_path / 'other.sqlite'}")
        rlli(*everything, "--output", tmp_path / "direct")
    np.testing.assert_array_equal(
        QoETable.load(tmp_path / "run" / "table.npz").qoe,
        QoETable.load(tmp_path / "direct" / "table.npz").qoe,
    )


@pytest.mark.parametrize("on_missing", ["raise", "mask", "impute"])
def test_answers_that_are_no_ratings(rlli, config, server, tmp_path, on_missing):
    said = ["seven", *["good", "fair"] * 12]
    server.respond = lambda body, n: completion(said[n])
    status, output, errors = rlli(
        "run",
        config,
        f"judge.on_missing={on_missing}",
        "judge.concurrency=1",
        "--output",
        tmp_path / "run",
    )
    assert "23 rated, 1 invalid, 0 failed" in output
    note = "1 of 24 answers are missing (1 invalid, 0 failed)"
    if on_missing == "raise":
        assert status == 2
        assert note in errors
        assert "the answer is not one label of the scale" in errors
        return
    assert status == 0
    table = QoETable.load(tmp_path / "run" / "table.npz")
    (cell,) = np.argwhere(table.missing)
    user, request, provider = cell
    page = (tmp_path / "run" / "report.html").read_text()
    assert note in table.judge
    assert note in page
    assert "1 of 24 (4.2\N{NO-BREAK SPACE}%): " in page
    if on_missing == "mask":
        assert "%): left out" in page
        assert not table.legal[user, request, provider]
    else:
        assert "%): 1 filled with the provider&#39;s mean, 0 left out" in page
        others = np.delete(table.mean[..., provider].ravel(), user * 4 + request)
        assert table.mean[user, request, provider] == pytest.approx(others.mean())


def test_batch_files_are_for_judges_behind_a_server(rlli, study, tmp_path):
    config = study({"kind": "transformers", "model": str(tmp_path)})
    for option in ("--export-batch", "--import-batch"):
        status, _, errors = rlli("judge", config, option, tmp_path / "x.jsonl")
        assert status == 2
        assert "judge.kind: files for batch services are for judges of kind openai" in errors


def test_a_model_in_this_process(rlli, study, tmp_path):
    """The model is tiny and random: its ratings mean nothing."""
    pytest.importorskip("torch", reason="needs the extra llm")
    import tiny_llava

    model = tiny_llava.build(tmp_path / "tiny-random-llava")
    config = study(
        {"kind": "transformers", "model": str(model), "device": "cpu", "min_valid_mass": 0.0},
        table={"standardise": True},
    )
    status, plan, _ = rlli("judge", config, "--dry-run")
    assert (status, numbers(plan)["to ask"]) == (0, "24")
    status, output, _ = rlli("judge", config, "--output", tmp_path / "run")
    assert status == 0
    assert "24 rated, 0 invalid, 0 failed" in output
    table = QoETable.load(tmp_path / "run" / "table.npz")
    assert table.legal.all()
    assert len({*table.qoe.ravel()}) == QUESTIONS
    assert (table.valid_mass < 1).all()
    assert "tiny-random-llava" in table.judge
    assert "standardised for each user" in table.judge
    status, output, _ = rlli("judge", config, "--output", tmp_path / "again")
    assert "24 answers were stored, 0 asked" in output
    again = QoETable.load(tmp_path / "again" / "table.npz")
    np.testing.assert_array_equal(again.qoe, table.qoe)
