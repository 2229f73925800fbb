"""The OpenAI judge against a real HTTP server that answers well, late, wrongly or not at all."""

from __future__ import annotations

import base64
import io
import json
import time
from email.utils import formatdate
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from chat_server import completion
from PIL import Image

pytest.importorskip("openai", reason="needs the extra llm")

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated, Usage, openai, scale_of
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.openai import Limits, OpenAIJudge
from rlli_jax.judges.server import Pace, retry_after

KEY = "sk-very-secret"
GOOD = [("good", {"good": 0.75, "fair": 0.25})]
CLOSED = "http://127.0.0.1:9/v1"  # nothing listens on the discard port


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A key, and no long waits between tries."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)


@pytest.fixture
def judge(server):
    def make(scoring="logprobs", limits=None, **completions):
        return OpenAIJudge(
            Completions("tiny", scoring, **completions), base_url=server.url, limits=limits
        )

    return make


def test_expected_rating_from_log_probabilities(server, judge, question, chat_completion):
    server.respond = lambda body, n: chat_completion("good", GOOD)
    (answer,) = judge(price_in=2.0, price_out=10.0).rate([question()])
    assert isinstance(answer, Rated)
    assert answer.rating == pytest.approx(3.75)
    assert answer.valid_mass == pytest.approx(1.0)
    assert json.loads(answer.raw)["text"] == "good"
    assert answer.usage.prompt_tokens == 1000
    assert answer.usage.cost == pytest.approx((1000 * 2 + 2 * 10) / 1e6)
    assert answer.usage.seconds > 0


def test_what_is_sent(server, judge, question):
    ask = question(scale="1-5", sample=2)
    judge("text", temperature=0.7, seed=40, extra={"user": "me"}).rate([ask])
    (body,) = server.requests
    assert body | {"messages": None} == {
        "model": "tiny",
        "messages": None,
        "max_tokens": 16,
        "temperature": 0.7,
        "seed": 42,
        "user": "me",
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    (message,) = body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]
    kind, data = message["content"][1]["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(pixels, ask.picture.pixels)


def test_labels_of_ones_own_are_asked_for_and_read(server, judge, question):
    ask = question()._replace(scale=scale_of(["nie wieder", "geht so", "Immer gern"]))
    server.respond = lambda body, n: choice("immer gern.")
    assert judge("text").rate([ask]) == [Rated(3.0, raw="immer gern.")]
    text = server.requests[0]["messages"][0]["content"][2]["text"]
    assert text.endswith("rate the picture with one of: nie wieder, geht so, Immer gern.")
    lists = [("geht", {"geht": 0.8, "Immer": 0.2}), (" so", {" so": 0.9, "!": 0.1})]
    server.respond = lambda body, n: choice("geht so", logprobs=lists)
    (answer,) = judge("logprobs").rate([ask])
    assert answer.rating == pytest.approx((0.8 * 0.9 * 2 + 0.2 * 3) / (0.8 * 0.9 + 0.2))


def test_log_probabilities_are_asked_for_and_a_temperature_can_be_left_out(server, judge, question):
    judge(temperature=None, top_logprobs=7).rate([question()])
    (body,) = server.requests
    assert (body["logprobs"], body["top_logprobs"]) == (True, 7)
    assert "temperature" not in body
    assert "seed" not in body


def test_answers_come_in_the_order_of_the_questions(server, judge, question, chat_completion):
    def respond(body, n):
        time.sleep(0.02 * (n % 3))
        text = body["messages"][0]["content"][2]["text"]
        return chat_completion("good" if text == wanted else "poor")

    questions = [question(persona, picture) for persona in range(4) for picture in (2, 0, None, 1)]
    server.respond = respond
    asker = judge("text")
    for special in (0, 3):
        (body,) = asker.completions.bodies(question(special))
        wanted = body["messages"][0]["content"][2]["text"]
        ratings = [getattr(a, "rating", None) for a in asker.rate(questions)]
        rows = np.array(ratings, object).reshape(4, 4)
        assert list(rows[special]) == [4.0, 4.0, None, 4.0]
        assert list(rows[1]) == [2.0, 2.0, None, 2.0]
        assert asker.rate([question(picture=None)]) == [Invalid("no picture")]


def test_questions_of_a_picture_follow_each_other(server, judge, question):
    questions = [question(persona, picture) for persona in range(4) for picture in range(3)]
    judge("text", Limits(concurrency=1)).rate(questions)
    images = [body["messages"][0]["content"][1]["image_url"]["url"] for body in server.requests]
    assert sum(a != b for a, b in pairwise(images)) == 2


def test_average_over_label_orders(server, judge, question, chat_completion):
    def respond(body, n):
        worst_first = body["messages"][0]["content"][2]["text"].endswith("excellent.")
        return chat_completion("good" if worst_first else "fair")

    server.respond = respond
    (answer,) = judge("text", both_orders=True).rate([question()])
    assert answer == Rated(3.5, raw="good\nfair")
    assert answer.usage.prompt_tokens == 2000


def test_concurrency_is_used_and_kept(server, judge, question, chat_completion):
    def respond(body, n):
        time.sleep(0.05)
        return chat_completion()

    server.respond = respond
    answers = judge("text", Limits(concurrency=4)).rate([question(i) for i in range(16)])
    assert all(isinstance(answer, Rated) for answer in answers)
    assert server.busiest == 4


# One fault, then a good answer: the question ends as Rated.
FAULTS = {
    "429": lambda n: (429, {"error": {"message": "slow down"}}, {}),
    "429 with Retry-After": lambda n: (429, {"error": {}}, {"Retry-After": "0.01"}),
    "429 with a useless Retry-After": lambda n: (429, {}, {"Retry-After": "soon"}),
    "500": lambda n: (500, b"oops", {}),
    "503": lambda n: (503, {}, {"Retry-After": "0"}),
    "hang-up": lambda n: None,
    "reset in mid-body": lambda n: (200, b'{"choices": [', {"Content-Length": "1000"}),
    "truncated JSON": lambda n: (200, b'{"choices": [{"mess', {}),
    "empty": lambda n: (200, b"", {}),
    "not HTTP": lambda n: b"hello\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_costs_one_more_try(server, judge, question, chat_completion, fault):
    server.respond = lambda body, n: FAULTS[fault](n) if n == 0 else chat_completion("good", GOOD)
    (answer,) = judge().rate([question()])
    assert answer.rating == pytest.approx(3.75)
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_ends_as_failed(server, judge, question, fault):
    server.respond = lambda body, n: FAULTS[fault](n)
    (answer,) = judge(limits=Limits(retries=2)).rate([question()])
    assert isinstance(answer, Failed)
    assert answer.reason
    assert len(server.requests) == 3


def test_timeout_of_a_silent_server(server, judge, question):
    server.respond = lambda body, n: time.sleep(0.3)
    (answer,) = judge(limits=Limits(timeout=0.05, retries=0)).rate([question()])
    assert answer == Failed("no answer from the server: APITimeoutError: Request timed out.")


def test_timeout_of_a_server_that_dribbles(server, judge, question):
    def dribble():
        for _ in range(50):
            time.sleep(0.02)
            yield b" "

    server.respond = lambda body, n: (200, dribble(), {})
    (answer,) = judge(limits=Limits(timeout=0.1, retries=0)).rate([question()])
    assert answer == Failed("no whole answer in 0.1 s")


def test_a_huge_answer_is_cut_off(server, judge, question):
    server.respond = lambda body, n: (200, b" " * 50_000_000, {})
    (answer,) = judge(limits=Limits(retries=0)).rate([question()])
    assert answer == Failed("the answer is larger than 4,194,304 bytes")


@pytest.mark.parametrize(
    ("reply", "scoring", "reason"),
    [
        ({"text": "six"}, "text", "the answer is not one label of the scale"),
        ({"text": "11"}, "text", "the answer is not one label of the scale"),
        (
            {"text": "11", "logprobs": [("11", {"11": 0.9, "good": 0.1})]},
            "logprobs",
            "only 0.1 of the probability is on the scale's labels, of 0.5 that is asked for",
        ),
        ({"text": ""}, "text", "the answer is not one label of the scale"),
        ({"text": None, "refusal": "I cannot"}, "logprobs", "the model refused to answer"),
        (
            {"text": "good"},
            "logprobs",
            "the server gave no log-probabilities; choose scoring 'text'",
        ),
        (
            {"text": "As", "logprobs": [("As", {"As": 0.9, "good": 0.1})]},
            "logprobs",
            "only 0.1 of the probability is on the scale's labels, of 0.5 that is asked for",
        ),
    ],
)
def test_answers_that_are_no_rating_are_invalid(
    server, judge, question, chat_completion, reply, scoring, reason
):
    server.respond = lambda body, n: chat_completion(**reply)
    (answer,) = judge(scoring).rate([question()])
    assert isinstance(answer, Invalid)
    assert answer.reason == reason
    assert len(server.requests) == 1
    assert (reply["text"] or reply.get("refusal") or "") in answer.raw


def test_a_content_filter_is_final(server, judge, question):
    error = {"error": {"message": "no", "code": "content_policy_violation"}}
    server.respond = lambda body, n: (400, error, {})
    (answer,) = judge().rate([question()])
    assert answer == Invalid("the server's content filter refused the question", "no")


def choice(text=None, finish="stop", logprobs=None, usage=True, **message):
    """A completion as a server may put it; logprobs as for ``completion``."""
    body = completion(text, logprobs, **message)
    body["choices"][0]["finish_reason"] = finish
    return body if usage else {"choices": body["choices"]}


def failed_choice(error=None, finish="error"):
    body = choice("", finish)
    body["choices"][0]["error"] = error
    return body


@pytest.mark.parametrize(
    ("body", "reason", "is_retried"),
    [
        (
            failed_choice({"code": 502, "message": "upstream went away"}),
            "the server answered with status 502: upstream went away",
            True,
        ),
        ({"error": {"code": "429", "message": "slow down"}}, "status 429: slow down", True),
        ({"error": {"code": 400, "message": "bad"}, "choices": None}, "status 400: bad", False),
        ({"error": "out of memory"}, "the server reports an error: out of memory", False),
        ({"object": "error", "message": "too long", "code": 400}, "status 400: too long", False),
        ({"detail": "model is loading"}, "reports an error: model is loading", False),
        (failed_choice(), "reports an error: the answer ended with an error", False),
        (choice(None), "the server's answer is empty: it has no content", False),
        (choice(None, usage=False), "the server's answer is empty: it has no content", False),
    ],
)
def test_an_error_inside_a_success_is_the_servers_and_never_an_answer(
    server, judge, question, body, reason, is_retried
):
    server.respond = lambda _, n: body
    (answer,) = judge("text", Limits(retries=1)).rate([question()])
    assert isinstance(answer, Failed)
    assert answer.reason.endswith(reason)
    assert len(server.requests) == 1 + is_retried


def test_an_answer_beside_an_empty_error_counts(server, judge, question):
    server.respond = lambda body, n: choice("good") | {"error": None}
    assert judge("text").rate([question()]) == [Rated(4.0, raw="good")]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": [{"type": "text", "text": "bad"}]}, "good"],
        [{"type": "reasoning", "text": "bad"}, {"type": "text", "text": "good"}],
        [{"type": "text", "text": "go"}, {"type": "output_text", "text": "od"}],
    ],
)
def test_content_in_parts_is_read(server, judge, question, content):
    server.respond = lambda body, n: choice(content)
    assert judge("text").rate([question()]) == [Rated(4.0, raw="good")]


def test_a_refusal_among_the_parts_is_one(server, judge, question):
    server.respond = lambda body, n: choice([{"type": "refusal", "refusal": "I cannot"}])
    assert judge("text").rate([question()]) == [Invalid("the model refused to answer", "I cannot")]


FILTERED = {
    "no message": (200, {"choices": [{"index": 0, "finish_reason": "content_filter"}]}),
    "message null": (200, {"choices": [{"finish_reason": "content_filter", "message": None}]}),
    "another name": (200, choice("", "SAFETY")),
    "inside a 200": (200, {"error": {"code": "content_filter", "message": "no"}}),
    "as Azure says it": (
        400,
        {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
    ),
    "as OpenRouter says it": (
        403,
        {"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "a cat"}}},
    ),
}


@pytest.mark.parametrize("how", FILTERED)
def test_a_content_filter_concerns_its_question_alone(server, judge, question, how):
    server.respond = lambda body, n: (*FILTERED[how], {}) if n == 0 else choice("good")
    answers = judge("text", Limits(concurrency=1)).rate([question(0), question(1)])
    assert isinstance(answers[0], Invalid)
    assert answers[0].reason == "the server's content filter refused the question"
    assert answers[1] == Rated(4.0, raw="good")


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nbad? poor?\n</think>\n\ngood",
        "bad? poor?</think> good",  # the beginning stood in the prompt
        "[THINK]bad?[/THINK]good",
        "<|channel|>analysis<|message|>bad?<|end|><|start|>assistant<|channel|>final<|message|>good",
    ],
)
def test_reasoning_in_the_text_is_read_past(question, text):
    answer = Completions("tiny", "text").answer([choice(text)], question(), None)
    assert answer == Rated(4.0, raw=text)


@pytest.mark.parametrize(
    "body",
    [
        choice("<think>\nthe persona", "length"),
        choice("<think>\nthe persona", "stop"),
        choice("", "length", reasoning_content="the persona"),
        choice(None, "length", reasoning="the persona"),
    ],
)
@pytest.mark.parametrize("scoring", ["text", "logprobs"])
def test_reasoning_that_was_cut_off_is_named_with_what_helps(question, body, scoring):
    answer = Completions("tiny", scoring).answer([body], question(), None)
    assert isinstance(answer, Invalid)
    assert answer.reason == (
        "the answer was cut off in its reasoning; raise judge.max_tokens (now 16), or turn the "
        "model's reasoning off by judge.extra"
    )


def test_an_answer_that_was_cut_off_is_named_and_none_is_taken_for_a_label(server, judge, question):
    server.respond = lambda body, n: choice("I would", "length")
    unlimited = {"max_tokens": None, "extra": {"max_completion_tokens": 2}}
    (answer,) = judge("text", **unlimited).rate([question()])
    assert answer.reason == (
        "the answer was cut off before its end; raise judge.extra.max_completion_tokens (now 2)"
    )
    server.respond = lambda body, n: choice("1", "length")  # of 10?
    one = judge("text", max_tokens=1)
    assert isinstance(one.rate([question(scale="1-10")])[0], Invalid)
    assert one.rate([question(scale="1-5")]) == [Rated(1.0, raw="1")]


SURE = [(token, {token: 1.0}) for token in ("<think>", "\n\n", "</think>", "\n\n")]
UNTAGGED = [(token, {token: 1.0}) for token in ("Hm", ",", " good", "?", "\n\n")]
SPLIT = [(token, {token: 1.0}) for token in ("<", "think", ">", "hm", "</", "think", ">")]
END = [("<|im_end|>", {"<|im_end|>": 1.0})]


@pytest.mark.parametrize("before", [[], SURE, UNTAGGED, SPLIT])
@pytest.mark.parametrize("after", [[], END])
@pytest.mark.parametrize("blank", ["", " ", "\u2581", "\u0120"])
def test_log_probabilities_are_read_from_where_the_answer_begins(question, before, after, blank):
    good = [(f"{blank}good", {f"{blank}good": 0.75, f"{blank}fair": 0.25})]
    reasoning = "Hm" if before else None
    body = choice("good", logprobs=before + good + after, reasoning_content=reasoning)
    answer = Completions("tiny", "logprobs").answer([body], question(), None)
    assert isinstance(answer, Rated)
    assert answer.rating == pytest.approx(3.75)


def test_log_probabilities_without_the_answer_are_named(server, judge, question):
    server.respond = lambda body, n: choice("good", logprobs=UNTAGGED, reasoning_content="Hm")
    (answer,) = judge().rate([question()])
    assert isinstance(answer, Invalid)
    assert answer.reason.startswith("the log-probabilities begin with the model's reasoning")


def test_a_page_or_a_stream_in_place_of_an_answer_is_named_at_once(server, judge, question):
    asker = judge("text", Limits(concurrency=1))
    page = b"\n<!DOCTYPE html><html><head><title>Log in</title></head></html>"
    stream = b'data: {"choices": []}\n\ndata: [DONE]\n\n'
    for content, kind, reason in (
        (page, "text/html", "answers with a web page called 'Log in', not with a chat completion"),
        (stream, "text/event-stream", "the server streams its answer (text/event-stream)"),
        (b": ping\n\n" + stream, "application/json", "the server streams its answer"),
    ):
        del server.requests[:]
        server.respond = lambda _, n, c=content, k=kind: (200, c, {"Content-Type": k})
        answers = asker.rate([question(i) for i in range(3)])
        assert reason in answers[0].reason
        assert [type(answer) for answer in answers] == [Failed] * 3
        assert len(server.requests) == 1
        with pytest.raises(InputError, match=reason.split("(")[0]):
            judge("auto").identity  # noqa: B018


def test_a_page_with_an_error_status_is_not_shown_as_it_is(server, judge, question):
    page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
    server.respond = lambda body, n: (502, page, {"Content-Type": "text/html"})
    (answer,) = judge("text", Limits(retries=0)).rate([question()])
    assert answer == Failed(
        "the server answered with status 502: a web page called '502 Bad Gateway'"
    )


def test_a_picture_too_large_for_the_server_has_a_remedy(server, judge, question):
    server.respond = lambda body, n: (413, {"detail": "too large"}, {})
    (answer,) = judge("text").rate([question()])
    assert "status 413: too large; " in answer.reason
    assert "set judge.longest_side" in answer.reason
    server.respond = lambda body, n: choice("good")
    judge("text", longest_side=16).rate([question()])
    url = server.requests[-1]["messages"][0]["content"][1]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as image:
        assert image.size == (16, 12)  # of 32 x 24
    assert "longest_side" not in parameters()


def test_a_picture_that_went_away_fails_alone(server, judge, question, tmp_path):
    gone = question()._replace(picture=Picture.from_file(tmp_path / "gone.png"))
    answers = judge("text").rate([gone, question(1)])
    assert answers[0].reason.startswith(f"The image {tmp_path / 'gone.png'} is missing")
    assert isinstance(answers[1], Rated)


@pytest.mark.parametrize("body", [{}, [], 3, None, {"choices": []}, {"choices": [{}]}])
def test_json_that_is_no_completion_fails(server, judge, question, body):
    server.respond = lambda _, n: (200, json.dumps(body).encode(), {})
    (answer,) = judge().rate([question()])
    assert answer == Failed("the server's answer is not a chat completion")


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, {"message": f"bad key {KEY}"}), (404, {}), (429, {"code": "insufficient_quota"})],
)
def test_what_all_questions_would_meet_is_asked_once(server, judge, question, status, error):
    server.respond = lambda body, n: (status, {"error": error}, {})
    answers = judge(limits=Limits(concurrency=1)).rate([question(i) for i in range(5)])
    assert len(server.requests) == 1
    assert all(isinstance(answer, Failed) for answer in answers)
    assert answers[0].reason.startswith(f"the server answered with status {status}")
    assert answers[1].reason.startswith("not asked: ")
    assert [answer.usage for answer in answers] == [None, *[Usage(0, 0, 0.0, 0.0)] * 4]
    assert KEY not in repr(answers)


def test_one_bad_request_does_not_stop_the_others(server, judge, question, chat_completion):
    server.respond = lambda body, n: (400, {}, {}) if n == 0 else chat_completion()
    answers = judge("text", Limits(concurrency=1)).rate([question(i) for i in range(3)])
    assert [type(answer) for answer in answers] == [Failed, Rated, Rated]


def test_a_server_that_is_down_is_not_asked_for_ever(question):
    judge = OpenAIJudge(
        Completions("m", "text"), base_url=CLOSED, limits=Limits(concurrency=1, retries=1)
    )
    answers = judge.rate([question(i) for i in range(3)])
    assert answers[0].reason.startswith("no answer from the server: ConnectionRefusedError: [Errno")
    assert answers[1].reason.startswith("not asked: no answer")


def test_more_than_five_minutes_of_retry_after_is_no_quota(server, judge, question):
    server.respond = lambda body, n: (429, {"error": {"message": "daily"}}, {"Retry-After": "3600"})
    (answer,) = judge().rate([question()])
    assert answer.reason.endswith("daily; it asks to come back in 3600 s")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date():
    seconds = retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert 50 < seconds <= 60
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0


def test_pace_spreads_requests_over_the_minute():
    pace = Pace(Limits(requests_per_minute=600, tokens_per_minute=60_000))
    waits = [pace.reserve(100.0, tokens) for tokens in (50, 500, 0, 50)]
    assert waits == pytest.approx([0.0, 0.1, 0.6, 0.7])
    assert pace.reserve(200.0, 0) == 0.0  # what was not used is not saved up
    unlimited = Pace(Limits())
    assert [unlimited.reserve(5.0, 10**9) for _ in range(3)] == [0.0] * 3


def test_a_pause_holds_everyone():
    pace = Pace(Limits())
    pace.pause(60.0)
    assert 59.0 < pace.reserve(time.monotonic(), 0) <= 60.0


def test_auto_scoring_finds_log_probabilities(server, judge, chat_completion):
    server.respond = lambda body, n: chat_completion("yes", [("yes", {"yes": 1.0})])
    asker = judge("auto")
    assert asker.identity.parameters["scoring"] == "logprobs"
    assert asker.completions.scoring == "logprobs"
    assert len(server.requests) == 1


@pytest.mark.parametrize("refuses", [True, False])
def test_auto_scoring_falls_back_to_text(server, judge, question, chat_completion, refuses):
    def respond(body, n):
        if refuses and "logprobs" in body:
            return (422, {"detail": "Unexpected fields in the request: {'logprobs'}"}, {})
        return chat_completion("fair")

    server.respond = respond
    asker = judge("auto")
    assert asker.identity.parameters["scoring"] == "text"
    assert asker.rate([question()]) == [Rated(3.0, raw="fair")]


def test_auto_scoring_says_what_keeps_it_from_asking(server, judge):
    server.respond = lambda body, n: (401, {"error": {"message": f"bad key {KEY}"}}, {})
    with pytest.raises(InputError, match=r"refused .*status 401: bad key \*\*\*.*correct"):
        judge("auto").identity  # noqa: B018
    down = OpenAIJudge(Completions("m"), base_url=CLOSED, limits=Limits(retries=0))
    with pytest.raises(InputError, match=r"does not answer .* start it"):
        down.identity  # noqa: B018


def refuse_name(body, n):
    """As servers of reasoning models do."""
    if "max_tokens" in body:
        message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return 400, {"error": {"message": message, "param": "max_tokens"}}, {}
    return completion("good", [("good", {"good": 1.0})])


def test_auto_scoring_names_what_was_refused_and_what_helps(server, judge, question):
    server.respond = refuse_name
    helps = r"judge\.max_tokens=null and judge\.extra={max_completion_tokens: 16}"
    with pytest.raises(
        InputError, match=rf"Unsupported parameter: 'max_tokens'.* instead; set {helps}"
    ):
        judge("auto").identity  # noqa: B018
    asker = judge("auto", max_tokens=None, extra={"max_completion_tokens": 64})
    assert asker.identity.parameters["scoring"] == "logprobs"
    assert isinstance(asker.rate([question()])[0], Rated)
    assert "max_tokens" not in server.requests[-1]
    assert server.requests[-1]["max_completion_tokens"] == 64
    assert asker.expected_usage(question()).completion_tokens == 64


def test_the_probe_asks_what_the_questions_will_ask(server, judge, question):
    server.respond = lambda body, n: completion("yes", [("yes", {"yes": 1.0})])
    asker = judge("auto", top_logprobs=7, temperature=0.5, seed=3)
    asker.rate([question()])
    probe, asked = server.requests
    assert probe | {"messages": None} == asked | {"messages": None}


def test_a_server_that_allows_fewer_log_probabilities_gives_as_many_as_it_allows(
    server, judge, question
):
    def respond(body, n):
        if body.get("top_logprobs", 0) > 5:
            message = "top_logprobs must be between 0 and 5, got 20"
            return 400, {"error": {"message": message}}, {}
        return completion("good", GOOD)

    server.respond = respond
    asker = judge("auto")
    assert asker.rate([question()])[0].rating == pytest.approx(3.75)
    assert server.requests[-1]["top_logprobs"] == 5
    assert asker.identity.parameters["top_logprobs"] == 5
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refusal_that_speaks_of_log_probabilities_means_text(server, judge, question, status):
    message = "no logprobs for this model"
    server.respond = lambda body, n: (
        (status, {"error": {"message": message}}, {}) if "logprobs" in body else choice("good")
    )
    assert judge("auto").rate([question()]) == [Rated(4.0, raw="good")]


def test_an_error_inside_a_success_is_no_answer_to_the_probe(server, judge):
    server.respond = lambda body, n: {"error": "model is loading"}
    with pytest.raises(InputError, match="reports an error: model is loading"):
        judge("auto").identity  # noqa: B018


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "variable ALL_PROXY names a SOCKS proxy"),
        ("all_proxy", "socks://127.0.0.1:1080", "variable all_proxy names no proxy that can be"),
        ("HTTPS_PROXY", "ftp://x", "variable HTTPS_PROXY names no proxy that can be used"),
        ("SSL_CERT_FILE", "/nonexistent.pem", "variable SSL_CERT_FILE names '/nonexistent.pem'"),
        ("SSL_CERT_FILE", __file__, "variable SSL_CERT_FILE names"),
    ],
)
def test_a_variable_that_keeps_the_client_from_starting_is_named(
    server, judge, question, monkeypatch, variable, value, reason
):
    if "socks5" in value and find_spec("socksio"):
        pytest.skip("socksio is installed")
    monkeypatch.setenv(variable, value)
    answers = judge("text").rate([question(i) for i in range(2)])
    assert [type(answer) for answer in answers] == [Failed] * 2
    assert f"the environment {reason}" in answers[0].reason
    with pytest.raises(InputError, match=f"openai judge: the environment {reason}"):
        judge("auto").identity  # noqa: B018
    assert server.requests == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_way_of_a_local_server_is_named(
    server, judge, question, monkeypatch, variable
):
    monkeypatch.setenv(variable, "http://user:hidden@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    (answer,) = judge("text", Limits(retries=0)).rate([question()])
    assert f"variable {variable} sends requests to 127.0.0.1 through a proxy" in answer.reason
    assert "add 127.0.0.1 to NO_PROXY" in answer.reason
    assert "hidden" not in answer.reason
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert isinstance(judge("text").rate([question()])[0], Rated)


def test_a_gateway_error_through_a_proxy_names_the_variable(server, judge, question, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    server.respond = lambda body, n: (503, b"<html><title>Squid</title></html>", {})
    (answer,) = judge("text", Limits(retries=0)).rate([question()])
    assert "status 503: a web page called 'Squid'; the environment variable HTTP_PROXY" in (
        answer.reason
    )


@pytest.mark.parametrize("blank", ["\n", " ", "\r\n"])
def test_blanks_around_a_key_are_stripped(server, judge, question, monkeypatch, blank):
    monkeypatch.setenv("OPENAI_API_KEY", f"{blank}{KEY}{blank}")
    assert isinstance(judge("text").rate([question()])[0], Rated)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_key_that_cannot_be_sent_is_refused(judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(InputError, match="variable OPENAI_API_KEY has line breaks") as caught:
        judge("text")
    assert "sk-one" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "localhost/v1", "", "file:///v1", "http://"])
def test_a_base_url_that_is_none_is_refused(url):
    with pytest.raises(InputError, match="is no address of a server; it begins with http:// or"):
        OpenAIJudge(Completions("m", "text"), base_url=url)


def test_a_base_url_with_the_path_of_a_request_is_refused():
    with pytest.raises(InputError, match="leave /chat/completions out"):
        OpenAIJudge(Completions("m", "text"), base_url="http://x/v1/chat/completions")


def test_a_base_url_without_v1_is_hinted_at_where_the_server_knows_no_such_page(
    server, judge, question
):
    server.respond = lambda body, n: (404, {"detail": "Not Found"}, {})
    short = OpenAIJudge(Completions("m", "text"), base_url=server.url.removesuffix("/v1"))
    hint = "; the base_url does not end in /v1, as those of most servers do"
    assert short.rate([question()])[0].reason.endswith(f"Not Found{hint}")
    assert hint not in judge("text").rate([question()])[0].reason


def test_a_password_in_the_base_url_is_shown_nowhere():
    judge = OpenAIJudge(
        Completions("m"), base_url="http://me:hidden@127.0.0.1:9/v1", limits=Limits(retries=0)
    )
    with pytest.raises(InputError, match=r"server at http://127\.0\.0\.1:9/v1 does not") as caught:
        judge.identity  # noqa: B018
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["good", "o", "EMPTY", "ollama"])
def test_a_short_key_strikes_out_no_ordinary_text(server, judge, question, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.respond = lambda body, n: choice("good")
    assert judge("text").rate([question()]) == [Rated(4.0, raw="good")]
    server.respond = lambda body, n: (400, {"error": {"message": f"{key} and ollama"}}, {})
    assert judge("text").rate([question()])[0].reason.endswith(f"400: {key} and ollama")


def test_auto_scoring_can_be_settled_without_a_server():
    judge = OpenAIJudge(Completions("m"), base_url=CLOSED)
    assert judge.settled("text").identity.parameters["scoring"] == "text"
    assert judge.settled("logprobs").identity.parameters == parameters()
    assert judge.given.scoring == "auto"


def parameters(**changes):
    given = {"model": "m", "scoring": "logprobs", **changes}
    return OpenAIJudge(Completions(**given), base_url=CLOSED).identity.parameters


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"scoring": "text"},
        {"revision": "2"},
        {"temperature": None},
        {"temperature": 1.0},
        {"max_tokens": 8},
        {"max_tokens": None},
        {"longest_side": 512},
        {"top_logprobs": 5},
        {"seed": 0},
        {"both_orders": True},
        {"min_valid_mass": 0.1},
        {"extra": {"reasoning_effort": "low"}},
    ],
)
def test_what_changes_an_answer_is_in_the_identity(change):
    assert parameters(**change) != parameters()
    json.dumps(parameters(**change))


def test_what_changes_no_answer_is_not_in_the_identity(monkeypatch):
    monkeypatch.setenv("OTHER", "another key")
    other = OpenAIJudge(
        Completions("m", "logprobs", price_in=1.0, price_out=2.0),
        base_url="http://elsewhere/v1",
        key_variable="OTHER",
        limits=Limits(concurrency=3, timeout=5.0, retries=1, requests_per_minute=10),
        image_tokens=9,
    )
    assert other.identity.parameters == parameters()
    assert "another key" not in repr(vars(other)["given"]) + other.identity.describe()
    assert "another key" not in repr(other)


def test_the_key_is_in_no_answer_and_no_log(server, judge, question, chat_completion, caplog):
    caplog.set_level("DEBUG")
    server.respond = lambda body, n: chat_completion(f"you sent {KEY}")
    (answer,) = judge("text").rate([question()])
    assert answer.raw == "you sent ***"
    server.respond = lambda body, n: (500, {"error": {"message": KEY}}, {})
    (answer,) = judge("text", Limits(retries=0)).rate([question()])
    assert answer.reason.endswith("***")
    assert KEY not in caplog.text


def test_no_key_is_needed_at_ones_own_server_only(monkeypatch, server, question):
    monkeypatch.delenv("OPENAI_API_KEY")
    own = OpenAIJudge(Completions("m", "text"), base_url=server.url)
    assert isinstance(own.rate([question()])[0], Rated)
    with pytest.raises(InputError, match="variable OPENAI_API_KEY holds no key; set it"):
        OpenAIJudge(Completions("m", "text"))


def test_expected_usage(question):
    completions = Completions("m", "text", max_tokens=10, price_in=1.0, price_out=4.0)
    judge = OpenAIJudge(completions, base_url=CLOSED, image_tokens=500)
    usage = judge.expected_usage(question())
    body = json.dumps(completions.bodies(question())[0]["messages"][0]["content"][::2])
    assert usage.prompt_tokens == pytest.approx(500 + len(body) / 4, rel=0.05)
    assert usage.completion_tokens == 10
    assert usage.cost == pytest.approx((usage.prompt_tokens + 40) / 1e6)
    assert judge.expected_usage(question(picture=None)) == Usage(0, 0, 0.0, 0.0)
    unpriced = OpenAIJudge(Completions("m"), base_url=CLOSED)
    assert unpriced.expected_usage(question()).cost is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": ""}, 'model is ""; name the model'),
        ({"scoring": "vote"}, 'scoring is "vote"; choose'),
        ({"temperature": -1.0}, "temperature is -1.0; give a number from 0"),
        ({"max_tokens": 0}, "max_tokens is 0; give a number from 1"),
        ({"longest_side": 0}, "longest_side is 0; give a number of pixels"),
        ({"extra": {"stream": True}}, "leave stream out"),
        ({"top_logprobs": 21}, "top_logprobs is 21; give a number from 1 to 20"),
        ({"min_valid_mass": 1.5}, "min_valid_mass is 1.5; give a number from 0 to 1"),
        ({"price_in": -1.0}, "price_in is -1.0; give the price"),
    ],
)
def test_numbers_out_of_range(wrong, message):
    with pytest.raises(InputError, match=message):
        Completions(**{"model": "m", **wrong})


def test_limits_out_of_range():
    for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"):
        with pytest.raises(InputError, match=f"{name} is 0; give a number above 0"):
            Limits(**{name: 0})
    with pytest.raises(InputError, match="retries is -1"):
        Limits(retries=-1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(openai, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"openai is missing; pip install openai"):
        OpenAIJudge(Completions("m"), base_url=CLOSED)
