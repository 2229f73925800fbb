"""Batch files: what goes out, and everything that may come back."""

import gzip
import json

import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated
from rlli_jax.judges.batch_files import BatchSummary, read_batch, too_large, write_batch
from rlli_jax.judges.completions import Completions

TEXT = Completions("tiny", "text")
WORDS = ("bad", "poor", "fair", "good")


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
        "lines left out: 2 duplicate, 1 unknown, 4 unreadable\n"
        "failed (1): the server's answer is not a chat completion"
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


def test_ids_have_at_most_64_characters_and_longer_ones_of_before_are_read(
    tmp_path, question, chat_completion
):
    both = Completions("tiny", "text", both_orders=True)
    keys = {f"{i:064x}"[::-1]: question(i) for i in range(3)}
    assert write_batch(tmp_path / "in.jsonl", both, keys) == 6
    ids = [json.loads(x)["custom_id"] for x in (tmp_path / "in.jsonl").read_text().splitlines()]
    assert {len(i) for i in ids} == {64}
    assert len(set(ids)) == 6
    new = write(tmp_path / "new.jsonl", *(result(i, chat_completion("good")) for i in ids))
    old = [result(f"{key}/{i}", chat_completion("good")) for key in keys for i in range(2)]
    for path in (new, write(tmp_path / "old.jsonl", *old)):
        answers, summary = read_batch(path, both, keys)
        assert set(answers) == set(keys)
        assert summary == BatchSummary(rated=3)


@pytest.mark.parametrize("form", ["lines", "array", "indented", "indented array", "with a mark"])
@pytest.mark.parametrize("compressed", [False, True])
def test_files_in_other_forms(tmp_path, questions, chat_completion, form, compressed):
    results = [
        result(key, chat_completion(text)) for key, text in zip(questions, WORDS, strict=True)
    ]
    indented = "\n".join(json.dumps(r, indent=2) for r in results)
    lines = "\n".join(map(json.dumps, results))
    text = {
        "lines": lines,
        "array": json.dumps(results),
        "indented": indented,
        "indented array": json.dumps(results, indent=1),
        "with a mark": "\ufeff" + lines.replace("\n", "\r\n"),
    }[form]
    path = tmp_path / "out"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    answers, summary = read_batch(path, TEXT, questions)
    assert [answers[key].rating for key in questions] == [1.0, 2.0, 3.0, 4.0]
    assert summary == BatchSummary(rated=4)


def test_a_damaged_first_line_costs_only_itself(tmp_path, questions, chat_completion):
    path = write(tmp_path / "out.jsonl", result("key-1", chat_completion("good")))
    path.write_text('{"custom_id": "key-0", "resp\n' + path.read_text())
    _, summary = read_batch(path, TEXT, questions)
    assert summary == BatchSummary(rated=1, missing=3, unreadable=1)


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, questions):
    path = tmp_path / "out.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:-12])
    with pytest.raises(InputError, match=r"out\.jsonl\.gz cannot be read"):
        read_batch(path, TEXT, questions)


def test_a_compressed_file_with_wrong_bytes_is_refused(tmp_path, questions):
    path = tmp_path / "out.jsonl.gz"
    content = bytearray(gzip.compress(b'{"text": "some words"}\n' * 50))
    content[12:16] = b"\xff\xff\xff\xff"  # of the stream itself, which zlib finds
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"out\.jsonl\.gz cannot be read"):
        read_batch(path, TEXT, questions)


def test_reasons_of_failed_lines_are_shown_the_most_frequent_first(tmp_path, questions):
    def error(message):
        return {"error": {"message": message, "code": None}}

    path = write(
        tmp_path / "errors.jsonl",
        result("key-0", error("too long"), 400),
        result("key-1", error("no such model"), 404),
        result("key-2", error("no such model"), 404),
    )
    _, summary = read_batch(path, TEXT, questions)
    assert str(summary).splitlines()[1:] == [
        "failed (2): the server answered with status 404: no such model",
        "failed (1): the server answered with status 400: too long",
    ]


def test_a_file_without_any_result_is_called_that(tmp_path, questions):
    path = tmp_path / "page.html"
    path.write_text("<html>\n<body>\n")
    _, summary = read_batch(path, TEXT, questions)
    assert "no line is a result of a batch" in str(summary)


def test_what_is_larger_than_services_take_is_said():
    assert too_large(50_000, 200_000_000) == ""
    assert "50,001 lines and 1 MB are more than many services take" in too_large(50_001, 1_000_000)
    assert "4 lines and 201 MB" in too_large(4, 201_000_000)


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
