"""Counting, verifying, moving and pruning stored answers; files of batch services."""

import gzip
import json

import numpy as np
import pytest
import sqlalchemy as sa

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, JudgeIdentity, Question, Rated, Usage, named_scale
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.oracle import Budget, ask, housekeeping, open_store
from rlli_jax.oracle.batches import export_batch, import_batch
from rlli_jax.oracle.schema import ANSWERS
from rlli_jax.personas import Persona

PICTURE = Picture("grey", lambda: np.full((2, 2, 3), 128, np.uint8))
QUESTIONS = [
    Question(Persona("ann", (3.0,) * 5), f"request {i}", "p", PICTURE, named_scale("adjectives"))
    for i in range(6)
]
ANSWERS_OF = [
    Rated(1.5, 0.9, "good \N{GRINNING FACE}", usage=Usage(10, 1, 0.5, 0.1)),
    Rated(5.0, 0.7),
    Invalid("chatter", "Well..."),
    Failed("timeout"),
]


class Fixed:
    def __init__(self, name="fixed"):
        self.identity = JudgeIdentity(name, {"model": "m"})

    def rate(self, questions):
        return [ANSWERS_OF[QUESTIONS.index(question)] for question in questions]


@pytest.fixture
def filled(store):
    ask(Fixed(), QUESTIONS[:4], store)
    return store


def stored(store, name="fixed"):
    return ask(Fixed(name), QUESTIONS[:4], store, budget=Budget(questions=0))


def test_describe(filled):
    text = housekeeping.describe(filled)
    assert ": 3 answers\n" in text
    assert '{"name":"fixed","parameters":{"model":"m"}}' in text
    assert "2 rated, 1 invalid, 1 failed, mean valid mass 0.800; 11 tokens, cost 0.50" in text


def test_verify(filled):
    assert housekeeping.verify(filled).sound
    with filled.database.engine.begin() as connection:
        change = sa.update(ANSWERS).where(ANSWERS.c.kind == "rated", ANSWERS.c.rating == 5.0)
        connection.execute(change.values(rating=4.0))
    found = housekeeping.verify(filled)
    assert not found.sound
    assert str(found) == "4 rows, 1 of them unsound"


def test_verify_a_damaged_file(tmp_path):
    path = tmp_path / "answers.sqlite"
    store = open_store(path)
    ask(Fixed(), QUESTIONS[:4], store)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(content)
    store = open_store(path, message=pytest.fail, read_only=True)
    found = housekeeping.verify(store)
    assert str(found).startswith("the file is damaged: ")
    store.close()


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.gz"])
def test_export_and_import(filled, tmp_path, name):
    assert housekeeping.export_answers(filled, tmp_path / name) == 4
    other = open_store(tmp_path / "other.sqlite")
    assert housekeeping.import_answers(other, tmp_path / name) == 3  # a failure is no answer
    assert stored(other)[:3] == ANSWERS_OF[:3]
    assert sorted(map(repr, other.rows())) == sorted(map(repr, filled.rows()))
    assert other.texts() == filled.texts()
    assert housekeeping.import_answers(other, tmp_path / name) == 0
    assert {p.name for p in tmp_path.iterdir()} >= {name}
    assert not list(tmp_path.glob("partial-*"))
    other.close()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line.replace('"rating": 1.5', '"rating": 4.5'), "line 4: .* changed"),
        (lambda line: line.replace('"request": "request 0"', '"request": "0"'), "line 4: .*chang"),
        (lambda line: line[:40], "line 4: .* changed"),
        (lambda line: "[]\n", "line 4: .* changed"),
        (lambda line: "\udcff", "cannot be read"),
    ],
)
def test_import_refuses_what_was_changed(tmp_path, change, problem):
    store = open_store(tmp_path / "a.sqlite")
    ask(Fixed(), QUESTIONS[:1], store)
    path = tmp_path / "a.jsonl"
    housekeeping.export_answers(store, path)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = change(lines[3])
    path.write_bytes("".join(lines).encode(errors="surrogateescape"))
    other = open_store(tmp_path / "b.sqlite")
    with pytest.raises(InputError, match=problem):
        housekeeping.import_answers(other, path)
    assert list(other.rows()) == []
    store.close()
    other.close()


def test_import_of_missing_and_broken_files(tmp_path):
    store = open_store(tmp_path / "a.sqlite")
    with pytest.raises(InputError, match="no such file"):
        housekeeping.import_answers(store, tmp_path / "nothing.jsonl")
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        housekeeping.import_answers(store, tmp_path / "broken.gz")
    content = bytearray(gzip.compress(b'{"text": "some words"}\n' * 50))
    content[12:16] = b"\xff\xff\xff\xff"  # of the stream itself, which zlib finds
    (tmp_path / "broken.gz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        housekeeping.import_answers(store, tmp_path / "broken.gz")
    with pytest.raises(InputError, match="cannot be written"):
        housekeeping.export_answers(store, tmp_path / "broken.gz" / "a.jsonl")
    store.close()


def test_prune(filled):
    ask(Fixed("another"), QUESTIONS[:4], filled)
    assert housekeeping.prune(filled, failed=True) == 2
    assert housekeeping.prune(filled, judge="another", days=1) == 0
    assert housekeeping.prune(filled, judge="another") == 3
    assert stored(filled)[:3] == ANSWERS_OF[:3]
    assert all(isinstance(a, Failed) for a in stored(filled, "another"))
    assert housekeeping.prune(filled, days=0) == 3
    assert filled.texts() == {}


def test_prune_of_invalid_answers_alone(filled):
    assert housekeeping.prune(filled, invalid=True) == 1
    assert [type(answer) for answer in stored(filled)] == [Rated, Rated, Failed, Failed]
    assert housekeeping.prune(filled, failed=True, invalid=True) == 1  # the failure of before


def test_prune_needs_to_know_what(filled):
    with pytest.raises(InputError, match="say what to delete"):
        housekeeping.prune(filled)
    with pytest.raises(InputError, match="no judge has 'nobody'"):
        housekeeping.prune(filled, judge="nobody")


# Batch services


@pytest.fixture
def judge():
    completions = Completions("tiny", "text", price_in=1.0, price_out=2.0)
    return OpenAIJudge(completions, base_url="http://127.0.0.1:1/v1")


def result(custom_id, said):
    message = {"role": "assistant", "content": said}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2},
    }
    reply = {"status_code": 200, "body": body}
    return json.dumps({"custom_id": custom_id, "response": reply, "error": None})


def test_what_goes_out_is_missing_and_what_comes_back_is_kept(store, judge, tmp_path):
    out, back = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    assert export_batch(judge, QUESTIONS + QUESTIONS[:2], store, out) == 6
    sent = [json.loads(line) for line in out.read_text().splitlines()]
    ids = [line["custom_id"] for line in sent]
    request_of = {
        i: next(q.request for q in QUESTIONS if q.request in json.dumps(line["body"]))
        for i, line in zip(ids, sent, strict=True)
    }
    error = json.dumps({"custom_id": ids[2], "response": None, "error": {"message": "expired"}})
    lines = [
        result(ids[5], "good"),
        result("ff" * 32, "good"),
        error,
        result(ids[0], "bad"),
        result(ids[0], "excellent"),
        result(ids[1], "I cannot see pictures"),
        '{"custom_id": "trunc',
    ]
    back.write_text("\n".join(lines))
    summary = import_batch(judge, QUESTIONS, store, back)
    assert (summary.rated, summary.invalid, summary.failed, summary.missing) == (2, 1, 1, 2)
    assert (summary.duplicate, summary.unknown, summary.unreadable) == (1, 1, 1)
    answers = ask(judge, QUESTIONS, store, budget=Budget(questions=0))
    by_request = {q.request: a for q, a in zip(QUESTIONS, answers, strict=True)}
    assert by_request[request_of[ids[5]]].rating == 4.0
    assert by_request[request_of[ids[0]]].rating == 1.0
    assert isinstance(by_request[request_of[ids[1]]], Invalid)
    assert sum(isinstance(a, Failed) for a in answers) == 3
    (stats,) = store.stats()
    assert stats.tokens == 3 * 1002
    assert stats.cost == pytest.approx(3 * (1000 + 2 * 2) / 1e6)
    # Only what is still missing goes out again.
    assert export_batch(judge, QUESTIONS, store, out) == 3
    again = {json.loads(line)["custom_id"] for line in out.read_text().splitlines()}
    assert again == set(ids) - {ids[0], ids[1], ids[5]}
