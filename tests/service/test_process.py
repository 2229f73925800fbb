"""The service as a process: killed, started again, looked at in a browser, beside PostgreSQL."""

import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import made_service
import pytest
from starlette.testclient import TestClient

from rlli_jax.service import read_decisions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def post(url, **body):
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@contextmanager
def process(log):
    """A service of its own process: (its address, the process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen([sys.executable, made_service.__file__, str(log), str(port)])
    try:
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)
                break
            assert started.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", started
    finally:
        started.kill()
        started.wait()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The log of a service that was killed while eight clients asked: (file, answered ids)."""
    log = tmp_path_factory.mktemp("killed") / "log.sqlite"
    answered, lock = set(), threading.Lock()
    with process(log) as (url, started):

        def client(k):
            with suppress(OSError, ValueError):  # until the service is gone
                while True:
                    made = post(f"{url}/v1/select", user="ann")["id"]
                    post(f"{url}/v1/feedback", id=made, qoe=1 + k % 5)
                    with lock:
                        answered.add((made, 1 + k % 5))

        with ThreadPoolExecutor(8) as clients:
            list(map(lambda k: clients.submit(client, k), range(8)))
            while len(answered) < 200:
                time.sleep(0.01)
            started.send_signal(signal.SIGKILL)
    return log, answered


def test_a_service_that_is_killed_under_load_has_all_that_it_answered(killed):
    log, answered = killed
    frame, _ = read_decisions(f"sqlite:///{log}")
    with sqlite3.connect(log) as connection:
        kept = set(connection.execute("SELECT id, qoe FROM rlli_feedback"))
        assert answered <= {(name, int(qoe)) for name, qoe in kept}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(frame) >= len(answered) >= 200
    assert frame["propensity"].round(9).isin([0.8, 0.1]).all()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_of_a_service_started_again_shows_the_old_log_and_what_comes(killed, tmp_path):
    log, answered = killed
    with process(log) as (url, _):
        before = json.load(urllib.request.urlopen(f"{url}/v1/summary"))
        assert before["ratings"] >= len(answered)
        for _ in range(20):
            post(f"{url}/v1/select", user="ben", request="a cat")
        page = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=400,900",
             f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000", "--dump-dom", url],
            capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
    shown = re.sub(r"<script>.*</script>", "", page, flags=re.S)
    assert f'id="decisions">{before["decisions"] + 20:,}<' in shown
    assert "a stand-in" in shown
    assert "epsilon=0.3" in shown
    providers = shown.split('id="providers">')[1].split("</tbody>")[0]
    for provider in before["providers"]:
        assert f"<td>{provider['name']}</td>" in providers
    mean = next(p for p in before["providers"] if p["name"] == "ink")["qoe"]
    assert f"<td>{mean:.2f}</td>" in providers
    assert providers.count("<svg") >= 1  # an interval for whoever has ratings
    assert "<td>wax</td>" in shown.split('id="latest">')[1]


def test_a_log_in_postgresql_is_written_and_read_as_one_in_sqlite(postgresql):
    with TestClient(made_service.made_app(postgresql)) as client:
        made = client.post("/v1/select", json={"user": "ann"}).json()
        assert client.post("/v1/feedback", json={"id": made["id"], "qoe": 4}).status_code == 200
        assert client.post("/v1/feedback", json={"id": made["id"], "qoe": 5}).status_code == 409
    frame, _ = read_decisions(postgresql)
    assert frame[["user", "provider", "qoe"]].values.tolist() == [["ann", made["provider"], 4.0]]
    with TestClient(made_service.made_app(postgresql)) as client:
        assert client.get("/v1/summary").json()["ratings"] == 1
