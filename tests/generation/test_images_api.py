"""A real server on this machine that speaks like an OpenAI-compatible one, well or badly."""

import base64
import threading
import time
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from chat_server import LocalServer
from made_pictures import picture, prompts

from rlli_jax.catalog.pictures import decode
from rlli_jax.errors import InputError
from rlli_jax.generation import PictureStore, make_pictures
from rlli_jax.generation.base import key_of
from rlli_jax.generation.images_api import ImagesAPIProvider
from rlli_jax.judges import server as asking
from rlli_jax.judges.server import Limits


def reply(content=None, **more):
    content = picture() if content is None else content
    return {"created": 1, "data": [{"b64_json": base64.b64encode(content).decode(), **more}]}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    with closing(LocalServer()) as server:
        server.respond = lambda body, n: reply()
        yield server


@pytest.fixture
def store(tmp_path):
    with closing(PictureStore(tmp_path / "store", message=pytest.fail)) as opened:
        yield opened


def provider(server, **changes):
    given = {"base_url": server.url, "size": "32x24", "price": 0.04} | changes
    limits = {"concurrency": 1, "timeout": 5.0, "retries": 2} | given.pop("limits", {})
    return ImagesAPIProvider("api", "painter-1", limits=Limits(**limits), **given)


def test_a_picture_is_asked_for_as_the_standard_has_it(server, store):
    api = provider(server, quality="high", extra={"background": "opaque"})
    kept = make_pictures([api], ["a cat"], store)["a cat", "api"]
    assert server.requests == [
        {"model": "painter-1", "size": "32x24", "quality": "high", "background": "opaque",
         "prompt": "a cat", "n": 1}
    ]  # fmt: skip
    assert decode(store.path(kept)).shape == (24, 32, 3)
    assert (kept.width, kept.height, kept.cost) == (32, 24, 0.04)


def test_failures_that_pass_are_tried_again_and_nothing_is_paid_twice(server, store):
    troubles = [(429, {"error": {"message": "slow down"}}, {"retry-after-ms": "1"}),
                (500, {"error": {"message": "oops"}}, {}), None]  # fmt: skip

    def respond(body, n):
        return troubles[n] if n < len(troubles) else reply()

    server.respond = respond
    found = make_pictures([provider(server, limits={"retries": 3})], prompts(3), store)
    assert len(found) == 3
    assert make_pictures([provider(server)], prompts(3), store) == found
    asked = Counter(body["prompt"] for body in server.requests[len(troubles) :])
    assert asked == {f"prompt {i}": 1 for i in range(3)}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"data": [{"b64_json": "!!!"}]}, "b64_json is no base64"),
        (reply(b"text"), "is not a PNG, JPEG or WebP image"),
        (reply(picture()[:-30]), "truncated, damaged or unreadable"),
        ({"data": []}, "the server's reply has no picture"),
        ({"data": [{"url": "ftp://x"}]}, "neither b64_json nor url"),
        ((500, {"error": {"message": "oops"}}, {}), "status 500: oops"),
    ],
)
def test_a_reply_without_a_picture_is_asked_for_again_by_the_next_run(server, store, bad, problem):
    server.respond = lambda body, n: bad if body["prompt"] == "prompt 1" else reply()
    with pytest.raises(InputError, match=rf"1 of 3 pictures .*{problem}"):
        make_pictures([provider(server)], prompts(3), store)
    asked = len(server.requests)
    server.respond = lambda body, n: reply()
    assert make_pictures([provider(server)], prompts(3), store)["prompt 1", "api"].picture
    assert [body["prompt"] for body in server.requests[asked:]] == ["prompt 1"]


def test_a_picture_of_another_size_is_paid_for_once_and_is_a_hole(server, store):
    server.respond = lambda body, n: reply(picture(size=(16, 16)))
    for _ in range(2):
        kept = make_pictures([provider(server)], prompts(1), store)["prompt 0", "api"]
        assert kept.reason == "the picture is 16 x 16 pixels, not 32 x 24 as asked"
        assert (kept.picture, kept.cost) == (None, 0.04)
    assert len(server.requests) == 1


def test_what_the_content_filter_refuses_is_a_hole_with_its_reason(server, store):
    error = {"code": "content_policy_violation", "message": "Your request was rejected."}
    server.respond = lambda body, n: (
        (400, {"error": error}, {}) if body["prompt"] == "prompt 1" else reply()
    )
    for _ in range(2):
        kept = make_pictures([provider(server)], prompts(2), store)["prompt 1", "api"]
        assert kept.picture is None
        assert kept.reason.endswith("refused the prompt: Your request was rejected.")
    assert len(server.requests) == 2


def test_a_server_that_takes_too_long(server, store):
    server.respond = lambda body, n: time.sleep(1.0) or reply()
    api = provider(server, limits={"timeout": 0.3, "retries": 0})
    with pytest.raises(InputError, match=r"1 of 1 pictures .*Timeout"):
        make_pictures([api], prompts(1), store)


def test_a_wrong_key_stops_at_once_and_is_not_shown(server, store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    server.respond = lambda body, n: (
        401, {"error": {"message": "Incorrect API key: sk-very-secret-key"}}, {}
    )  # fmt: skip
    with pytest.raises(InputError, match=r"20 of 20 pictures .*Incorrect API key: \*\*\*"):
        make_pictures([provider(server)], prompts(20), store)
    assert len(server.requests) <= 2


def test_a_picture_behind_an_address_is_fetched(server, store):
    content = picture((1, 2, 3))

    class Files(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    files = HTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=files.serve_forever, args=(0.01,))
    thread.start()
    try:
        address = f"http://127.0.0.1:{files.server_address[1]}/picture"
        server.respond = lambda body, n: {"data": [{"url": address}]}
        kept = make_pictures([provider(server)], prompts(1), store)["prompt 0", "api"]
        assert store.path(kept).read_bytes() == content
    finally:
        files.shutdown()
        thread.join()
        files.server_close()


def test_several_pictures_are_under_way_together(server, store):
    server.respond = lambda body, n: time.sleep(0.1) or reply()
    make_pictures([provider(server, limits={"concurrency": 4})], prompts(8), store)
    assert 1 < server.busiest <= 4


def test_all_that_can_change_a_picture_changes_its_key(server):
    def key(text="a cat", model="painter-1", **changes):
        given = {"size": "32x24", "base_url": server.url} | changes
        return key_of(ImagesAPIProvider("api", model, **given).settings(text))

    before = key()
    assert key(price=3.0, limits=Limits(concurrency=9), base_url="http://other/v1") == before
    others = {key("a dog"), key(model="painter-2"), key(size="64x64"), key(quality="low"),
              key(revision="2"), key(extra={"style": "vivid"})}  # fmt: skip
    assert len(others | {before}) == 7
