"""Studies that ask part of the questions: with a server's model through the store, and without."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from contextlib import closing

import numpy as np
import pytest
import tiny_study
from chat_server import LocalServer, completion

pytest.importorskip("openai", reason="needs the extra llm")

from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.experiments.sources import judged
from rlli_jax.judges import named_scale
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.calibration import calibrate
from rlli_jax.qoe.predicted import predicted_table
from rlli_jax.studies import load_study

LABELS = named_scale("adjectives").labels
CELLS = 144  # 12 users x 4 requests x 3 providers


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)
    with closing(LocalServer()) as server:
        server.respond = lambda body, n=0: completion(
            LABELS[zlib.crc32(json.dumps(body["messages"]).encode()) % 5]
        )
        yield server


@pytest.fixture
def study(tmp_path, server):
    tiny_study.write_pictures(tmp_path / "pictures")
    Population.sample(12, group="women 21-40", seed=0).to_csv(tmp_path / "users.csv")

    def write(ask, **judge):
        model = {
            "kind": "openai",
            "model": "m",
            "base_url": server.url,
            "scoring": "text",
            "store": "answers.sqlite",
            "examination": None,
            "require": [],
        }
        return tiny_study.write_config(
            tmp_path,
            catalog={"folder": "pictures"},
            population={"csv": "users.csv"},
            judge={"scale": "adjectives", **(judge or model), "ask": ask},
            table={},
            policies={"Random": {"learner": "random"}},
        )

    return write


def test_a_share_is_asked_and_the_table_knows_which(rlli, study, server, tmp_path):
    config = study({"share": 0.5})
    status, plan, _ = rlli("judge", config, "--dry-run")
    assert status == 0
    assert "72" in plan
    assert "told after the first round" in plan
    status, _, told = rlli("judge", config, "--output", tmp_path / "run")
    assert status == 0, told
    assert len(server.requests) == 72
    table = QoETable.load(tmp_path / "run" / "table.npz")
    assert table.asked.sum() == 72
    assert table.predicted.sum() == CELLS - 72
    assert (table.sd[table.legal] > 0).all()
    assert "50.0% of the cells were asked" in table.judge
    found = json.loads((tmp_path / "run" / "asking.json").read_text())
    assert (found["asked"], found["cells"], found["stopped"]) == (72, CELLS, "the share is used up")
    _, plan, _ = rlli("judge", config, "--dry-run")
    assert "expected loss of choices: 0." in plan


def test_a_killed_inquiry_asks_the_same_questions_and_makes_the_same_table(study, server, tmp_path):
    config = study({"questions": 72})
    everything = judged(*_blocks(config))
    asked = sorted(json.dumps(body) for body in server.requests)
    (tmp_path / "answers.sqlite").rename(tmp_path / "first.sqlite")
    server.requests.clear()
    respond, count = server.respond, 40

    def slow(body, n=0):
        time.sleep(0.05 if len(server.requests) > count else 0)
        return respond(body, n)

    server.respond = slow
    program = (
        "import sys, rlli_jax.oracle.asking as asking; asking.LEASE_SECONDS = 1\n"
        "from rlli_jax.studies import load_study\n"
        "from rlli_jax.experiments.sources import judged\n"
        "c = load_study(sys.argv[1]); judged(c.population, c.catalog, c.judge)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(config)], env={**os.environ, "OPENAI_API_KEY": "k"}
    )
    while len(server.requests) <= count and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert count < len(server.requests) < 72
    server.respond = respond
    again = judged(*_blocks(config))
    assert sorted({json.dumps(body) for body in server.requests}) == asked
    np.testing.assert_array_equal(again.table.qoe, everything.table.qoe)
    np.testing.assert_array_equal(again.table.asked, everything.table.asked)


def _blocks(config):
    study = load_study(config)
    return study.population, study.catalog, study.judge


def test_batch_files_hold_the_next_round(rlli, study, tmp_path):
    config = study({"questions": 72})
    status, said, _ = rlli("judge", config, "--export-batch", tmp_path / "batch.jsonl")
    assert status == 0
    assert said.startswith("24 requests")  # two questions of each of twelve pictures


def test_failed_questions_stop_the_rounds_in_one_sentence(rlli, study, server, tmp_path):
    config = study({"share": 0.5})
    respond = server.respond
    server.respond = lambda body, n=0: (
        (400, {"error": {"message": "no"}}, {}) if len(server.requests) > 30 else respond(body, n)
    )
    status, _, told = rlli("judge", config, "--output", tmp_path / "run")
    assert status != 0
    assert "judge.ask:" in told
    assert "run again to go on" in told
    assert "Traceback" not in told


def test_the_stand_in_and_what_choices_lose(study):
    config = study({"share": 0.6, "strategy": "variance"}, kind="psychometric")
    answer = judged(*_blocks(config))
    everything = judged(*_blocks(study(None, kind="psychometric")))
    assert answer.table.asked.sum() == round(0.6 * CELLS)
    assert np.corrcoef(answer.table.mean.ravel(), everything.table.mean.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"share": 0}, "judge.*ask.share"),
        ({"share": 1.2}, "judge.*ask.share"),
        ({}, "share"),
        ({"share": 0.1, "questions": 9}, "share"),
        ({"questions": 3}, "asking about 3 of 144 cells is too little"),
        ({"money": 1.0}, "cannot tell what a question costs"),
    ],
)
def test_limits_that_make_no_sense_are_one_sentence(rlli, study, server, tmp_path, ask, message):
    examined = ("judge.examination={pictures: 4}", "--output", tmp_path / "run")
    status, _, told = rlli("judge", study(ask), *examined)
    assert status != 0
    assert "Traceback" not in told
    assert re.search(message, told), told
    assert not server.requests  # nor is an examination paid for


def test_a_budget_is_what_one_command_uses_up(rlli, study, server, tmp_path):
    config = study({"share": 0.5})
    limited = ("judge", config, "judge.budget.questions=40", "--output", tmp_path / "run")
    status, _, told = rlli(*limited)
    assert status != 0
    assert "the budget of 40 questions is used up" in told
    assert "run again to go on" in told
    assert len(server.requests) == 40
    status, _, told = rlli(*limited)
    assert status == 0, told
    assert len(server.requests) == 72


def test_users_level_and_spread_are_those_of_what_is_predicted(study):
    plain, standardised = (
        build_problem(load_study(study({"share": 0.5}, kind="psychometric"), overrides))
        for overrides in ([], ["table.standardise=true"])
    )
    expected = plain.table.standardised()
    np.testing.assert_array_equal(standardised.table.qoe, expected.qoe)
    np.testing.assert_array_equal(standardised.answers, plain.answers)


def test_judges_are_weighed_by_what_is_predicted_of_some_of_their_answers(tmp_path):
    human = tiny_study.write_human(tmp_path)
    config = tiny_study.write_config(
        tmp_path,
        judge={
            "kind": "recorded",
            "path": "scores.csv",
            "scale": "1-5",
            "ask": {"share": 0.7, "choice": "request"},
        },
        table={"calibrate": {"human": tiny_study.human_block(human)}},
    )
    problem = build_problem(load_study(config))
    assert problem.table.users == ("calibrated",)
    assert problem.asked.asked.sum() == round(0.7 * 24)
    weighed = calibrate(_predicted(problem), human_qoe(human))
    np.testing.assert_allclose(problem.table.qoe, weighed.table.qoe, atol=1e-6)


def _predicted(problem):
    return predicted_table(
        problem.asked.model,
        problem.asked.asked,
        problem.asked.offered,
        users=("ann", "ben"),
        requests=problem.table.requests,
        providers=problem.table.providers,
        judge="",
        stand_in=False,
    )


def human_qoe(path):
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    qoe = {(provider, request): float(score) / 5 for provider, request, score in rows}
    return np.array([[qoe[p, r] for p in tiny_study.PROVIDERS] for r in tiny_study.REQUESTS])
