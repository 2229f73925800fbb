"""Examination as a stage of a study: refused early, kept, asked once, shown in the report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from contextlib import closing

import pytest
import tiny_study
from chat_server import LocalServer, completion

pytest.importorskip("openai", reason="needs the extra llm")

LABELS = ("bad", "poor", "fair", "good", "excellent")
QUESTIONS = 6 + 4 * 30 + 5 * 50  # the second scale's first questions are asked once


def texts_only(body):
    """What a text model behind a server reads of a request: all but the pictures."""
    content = body["messages"][0]["content"]
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(part.get("text", "") for part in parts)


def blind(body, n=0):
    return rated(body, texts_only(body))


def seeing(body, n=0):
    return rated(body, json.dumps(body["messages"]))


def rated(body, seen):
    number = zlib.crc32(seen.encode()) % 5
    is_statement = "Statement:" in texts_only(body) or "1, 2, 3, 4, 5" in texts_only(body)
    is_statement |= "5, 4, 3, 2, 1" in texts_only(body)
    return completion(str(number + 1) if is_statement else LABELS[number])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)
    with closing(LocalServer()) as server:
        yield server


@pytest.fixture
def config(tmp_path, server):
    tiny_study.write_pictures(tmp_path / "pictures")
    (tmp_path / "users.csv").write_text("name,O,C,E,A,N\nann,1,2,3,4,5\nben,5,4,3,2,1\n")
    judge = {
        "kind": "openai",
        "base_url": server.url,
        "model": "tiny",
        "scoring": "text",
        "scale": "adjectives",
        "store": "answers.sqlite",
        "examination": {"pictures": 3, "personas": 5},
    }
    return tiny_study.write_config(
        tmp_path,
        catalog={"folder": "pictures"},
        population={"csv": "users.csv"},
        judge=judge,
        table={},
        policies={"Random": {"learner": "random"}},
    )


def test_a_server_that_drops_the_picture_is_refused_after_six_questions(
    rlli, config, server, tmp_path
):
    server.respond = blind
    status, _, errors = rlli("run", config, "--output", tmp_path / "run")
    assert status == 2
    assert errors.count("\n") == 1
    assert "the judge fails the check 'sight'" in errors
    assert "all three prompts have 1000 tokens" in errors
    assert "judge.require to [scale]" in errors
    assert len(server.requests) == 6
    assert not (tmp_path / "run" / "table.npz").exists()
    found = json.loads((tmp_path / "run" / "examination.json").read_text())["findings"]
    assert [f["outcome"] for f in found[:2]] == ["fail", "pass"]


def test_an_examination_is_asked_once_and_stands_in_the_report(rlli, config, server, tmp_path):
    server.respond = seeing
    status, output, errors = rlli("examine", config, "--output", tmp_path / "found")
    assert (status, errors) == (0, "")
    assert "sight" in output
    asked = len(server.requests)
    assert asked == QUESTIONS
    first = json.loads((tmp_path / "found" / "examination.json").read_text())

    status, _, errors = rlli("run", config, "--output", tmp_path / "run")
    assert (status, errors) == (0, "")
    assert len(server.requests) == asked + 24
    assert json.loads((tmp_path / "run" / "examination.json").read_text()) == first
    report = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r"about pictures and not about people", report)
    assert report.index("Can this judge be believed?") < report.index("How reliable the scores are")


def test_a_killed_examination_pays_again_only_for_the_batch_at_work(rlli, config, server, tmp_path):
    enough = 60

    def slow(body, n=0):
        time.sleep(0.05 if n > enough else 0)
        return seeing(body, n)

    server.respond = slow
    program = (
        "import sys, rlli_jax.oracle.asking as asking; asking.LEASE_SECONDS = 1\n"
        "from rlli_jax.cli import main; sys.argv = ['rlli', 'examine', *sys.argv[1:]]; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(config), "--output", str(tmp_path / "found")],
        env={**os.environ, "OPENAI_API_KEY": "k"},
        stdout=subprocess.DEVNULL,
    )
    while len(server.requests) <= enough and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert enough < len(server.requests) < QUESTIONS
    server.respond = seeing
    status, _, errors = rlli("examine", config, "--output", tmp_path / "found")
    assert status == 0, errors
    assert QUESTIONS <= len(server.requests) <= QUESTIONS + 30  # the batch at work, of one wording


def test_what_is_required_must_be_examined(rlli, config):
    status, _, errors = rlli("judge", config, "judge.examination=null")
    assert status == 2
    assert "sight is required, but examination is null" in errors


def test_recorded_scores_are_not_examined(rlli, tmp_path):
    config = tiny_study.write_config(tmp_path)
    status, _, errors = rlli("examine", config)
    assert status == 2
    assert "recorded scores are not asked" in errors
