"""Batch files: what goes out, and everything that may come back."""

import json

import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated
from rlli_jax.judges.batch_files import BatchSummary, read_batch, write_batch
from rlli_jax.judges.completions import Completions

TEXT = Completions("tiny", "text")


@pytest.fixture
def questions(question):
    return {f"key-{i}": question(i) for i in range(4)}


def result(custom_id, body, status=200):
    reply = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": custom_id, "response": reply, "error": None}


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_are_requests_of_the_judge(tmp_path, questions):
    path = tmp_path / "in.jsonl"
    assert write_batch(path, TEXT, questions) == 4
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == list(questions)
    for line in lines:
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert [line["body"]] == TEXT.bodies(questions[line["custom_id"]])
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_out_of_order_and_partial(tmp_path, questions, chat_completion):
    path = write(
        tmp_path / "out.jsonl",
        result("key-2", chat_completion("fair")),
        result("key-0", chat_completion("I'd say good")),
    )
    answers, summary = read_batch(path, TEXT, questions)
    assert answers["key-2"] == Rated(3.0, raw="fair")
    assert answers["key-0"] == Invalid("the answer is not one label of the scale", "I'd say good")
    assert set(answers) == {"key-0", "key-2"}
    assert answers["key-2"].usage.prompt_tokens == 1000
    assert summary == BatchSummary(rated=1, invalid=1, missing=2)


def test_log_probabilities(tmp_path, questions, chat_completion):
    body = chat_completion("good", [("good", {"good": 0.75, "fair": 0.25})])
    path = write(tmp_path / "out.jsonl", result("key-1", body))
    answers, _ = read_batch(path, Completions("tiny", "logprobs"), questions)
    assert answers["key-1"].rating == pytest.approx(3.75)


def test_error_lines(tmp_path, questions, chat_completion):
    path = write(
        tmp_path / "out.jsonl",
        {"custom_id": "key-0", "response": None, "error": {"code": "x", "message": "expired"}},
        result("key-1", {"error": {"message": "too long", "code": None}}, 400),
        result("key-2", {"error": {"message": "no", "code": "content_filter"}}, 400),
        {"custom_id": "key-3"},
    )
    answers, summary = read_batch(path, TEXT, questions)
    assert answers == {
        "key-0": Failed("the batch service reports an error: expired"),
        "key-1": Failed("the server answered with status 400: too long"),
        "key-2": Invalid("the server's content filter refused the question", "no"),
        "key-3": Failed("the batch service reports an error: the line has no response"),
    }
    assert summary == BatchSummary(invalid=1, failed=3)


def test_duplicate_unknown_and_unreadable_lines(tmp_path, questions, chat_completion):
    good, fair = chat_completion("good"), chat_completion("fair")
    path = write(
        tmp_path / "out.jsonl",
        result("key-0", {"error": {}}, 500),
        result("key-0", good),
        result("key-0", fair),
        result("elsewhere", good),
        [1],
        {"custom_id": 7},
        result("key-1", {"choices": []}),
    )
    with path.open("ab") as file:
        file.write(b"\n\xff\n" + json.dumps(result("key-2", good)).encode()[:-40])
    answers, summary = read_batch(path, TEXT, questions)
    assert answers == {
        "key-0": Rated(4.0, raw="good"),
        "key-1": Failed("the server's answer is not a chat completion"),
    }
    assert summary == BatchSummary(
        rated=1, failed=1, missing=2, duplicate=2, unknown=1, unreadable=4
    )
    assert str(summary) == (
        "1 rated, 0 invalid, 1 failed, 2 missing; "
        "lines left out: 2 duplicate, 1 unknown, 4 unreadable"
    )


def test_both_label_orders(tmp_path, questions, chat_completion):
    both = Completions("tiny", "text", both_orders=True)
    assert write_batch(tmp_path / "in.jsonl", both, questions) == 8
    ids = [json.loads(x)["custom_id"] for x in (tmp_path / "in.jsonl").read_text().splitlines()]
    assert ids[:2] == ["key-0/0", "key-0/1"]
    path = write(
        tmp_path / "out.jsonl",
        result("key-0/1", chat_completion("fair")),
        result("key-0/0", chat_completion("good")),
        result("key-1/0", chat_completion("good")),
        result("key-2/0", chat_completion("good")),
        result("key-2/1", {}, 500),
    )
    answers, summary = read_batch(path, both, questions)
    assert answers["key-0"] == Rated(3.5, raw="good\nfair")
    assert isinstance(answers["key-2"], Failed)
    assert summary == BatchSummary(rated=1, failed=1, missing=2)


def test_without_a_picture_there_is_nothing_to_ask(tmp_path, question, chat_completion):
    asked = {"hole": question(picture=None), "key": question()}
    assert write_batch(tmp_path / "in.jsonl", TEXT, asked) == 1
    path = write(tmp_path / "out.jsonl", result("key", chat_completion("good")))
    answers, summary = read_batch(path, TEXT, asked)
    assert answers == {"hole": Invalid("no picture"), "key": Rated(4.0, raw="good")}
    assert summary == BatchSummary(rated=1, invalid=1)


def test_wrong_input(tmp_path, questions):
    path = tmp_path / "x.jsonl"
    with pytest.raises(InputError, match=r"x\.jsonl cannot be read"):
        read_batch(path, TEXT, questions)
    (tmp_path / "no").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_batch(tmp_path / "no" / "x.jsonl", TEXT, questions)
    for call in (write_batch, read_batch):
        with pytest.raises(InputError, match="choose 'logprobs' or 'text' instead of 'auto'"):
            call(path, Completions("m"), questions)
