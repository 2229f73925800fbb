import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from made_pictures import Painter, picture, prompts
from rich.console import Console

from rlli_jax.catalog.pictures import decode
from rlli_jax.errors import InputError
from rlli_jax.generation import (
    Made,
    NotMade,
    PictureBudget,
    PictureStore,
    Refused,
    make_pictures,
    plan_pictures,
)


@pytest.fixture
def store(tmp_path):
    with closing(PictureStore(tmp_path / "store", message=pytest.fail)) as opened:
        yield opened


def test_every_picture_is_made_once_and_then_never_again(store):
    shades = {f"prompt {i}": (i * 20, 0, 0) for i in range(5)}
    painter = Painter(paint=lambda prompt: Made(picture(shades[prompt])))
    first = make_pictures([painter], prompts(5), store)
    for text, shade in shades.items():
        pixels = decode(store.path(first[text, "painter"]))
        assert np.array_equal(pixels, np.full((24, 32, 3), shade))
    assert make_pictures([painter], prompts(5), store) == first
    assert Counter(painter.asked) == dict.fromkeys(shades, 1)


def test_what_is_known_of_a_model_only_when_it_is_there_counts_for_the_pictures_that_it_made(store):
    """As with a model that making the first picture downloads."""

    class Downloading(Painter):
        def settings(self, prompt):
            return super().settings(prompt) | {"revision": "1" if self.asked else None}

    painter = Downloading()
    found = make_pictures([painter], prompts(3), store)
    assert {kept.settings["revision"] for kept in found.values()} == {"1"}
    assert make_pictures([painter], prompts(3), store) == found
    assert len(painter.asked) == 3


def test_a_refused_prompt_is_a_hole_with_its_reason_and_is_not_tried_again(store):
    def paint(prompt):
        return Refused("it is rude") if prompt == "prompt 1" else Made(picture())

    painter = Painter(paint=paint)
    for _ in range(2):
        kept = make_pictures([painter], prompts(3), store)["prompt 1", "painter"]
        assert (kept.picture, kept.reason) == (None, "it is rude")
    assert len(painter.asked) == 3


def test_what_failed_is_one_sentence_and_the_rest_is_kept(store):
    broken = Painter(
        "broken", lambda p: NotMade("no paint") if p == "prompt 0" else Made(picture())
    )
    whole = Painter("whole")
    with pytest.raises(InputError, match=r"1 of 6 pictures are not made \(broken: no paint\)"):
        make_pictures([broken, whole], prompts(3), store)
    broken.paint = lambda prompt: Made(picture())
    assert len(make_pictures([broken, whole], prompts(3), store)) == 6
    assert Counter(broken.asked) == {"prompt 0": 2, "prompt 1": 1, "prompt 2": 1}
    assert len(whole.asked) == 3


def test_a_provider_that_only_fails_is_given_up(store):
    painter = Painter(paint=lambda prompt: NotMade("no paint"))
    with pytest.raises(InputError, match="40 of 40"):
        make_pictures([painter], prompts(40), store)
    assert len(painter.asked) == 8


def test_a_budget_stops_cleanly_and_goes_on(store):
    painter = Painter(paint=lambda prompt: Made(picture(), cost=0.25), price=0.25)
    with pytest.raises(InputError, match=r"7 of 10 pictures are not made \(the budget is used up"):
        make_pictures([painter], prompts(10), store, budget=PictureBudget(money=0.75))
    assert len(painter.asked) == 3
    with pytest.raises(InputError, match="3 of 10"):
        make_pictures([painter], prompts(10), store, budget=PictureBudget(pictures=4))
    assert len(painter.asked) == 7
    painter.price = None
    with pytest.raises(InputError, match="nobody knows what a picture of painter costs"):
        make_pictures([painter], prompts(10), store, budget=PictureBudget(money=1))


def test_a_plan_says_what_is_there_and_what_the_rest_costs(store):
    painter = Painter(paint=lambda prompt: Made(picture(), seconds=2.0, cost=0.5), price=0.5)
    plan = plan_pictures([painter], prompts(4), store)
    assert (plan.pictures, plan.cached, plan.to_make, plan.cost, plan.seconds) == (4, 0, 4, 2, None)
    assert not store.folder.exists()  # planning makes nothing
    make_pictures([painter], prompts(3), store)
    plan = plan_pictures([painter], prompts(4), store)
    assert (plan.cached, plan.to_make, plan.cost, plan.seconds) == (3, 1, 0.5, 2.0)
    assert "to make                      1" in plan.describe()


def test_the_summary_counts_everything(store):
    console = Console(file=io.StringIO(), width=200)
    painter = Painter(paint=lambda prompt: Made(picture(), cost=0.5))
    make_pictures([painter], prompts(1), store)
    make_pictures([painter], prompts(3), store, console=console)
    assert console.file.getvalue() == (
        "3 pictures: 1 were stored, 2 made, 0 refused, 0 failed; cost 1.00\n"
    )


@pytest.mark.parametrize("damage", ["picture", "gone", "record", "other"])
def test_what_is_damaged_is_made_again_with_a_message(tmp_path, damage):
    said = []
    with closing(PictureStore(tmp_path, message=said.append)) as store:
        painter = Painter()
        kept = make_pictures([painter], prompts(1), store)["prompt 0", "painter"]
        (record,) = tmp_path.glob("records/*/*.json")
        file = store.path(kept)
        if damage == "picture":
            file.write_bytes(file.read_bytes()[:-9] + b"somewhere")
        elif damage == "gone":
            file.unlink()
        elif damage == "record":
            record.write_bytes(record.read_bytes()[:50])
        else:
            record.write_text(record.read_text().replace("prompt 0", "prompt 9"))
        assert make_pictures([painter], prompts(1), store)["prompt 0", "painter"].picture
        assert len(painter.asked) == 2
        assert "damaged" in said[0]
        assert decode(file).shape == (24, 32, 3)


def test_what_a_full_disk_does_not_take_is_kept_elsewhere(small_disk, monkeypatch, tmp_path):
    folder, enlarge = small_disk(600_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    rng = np.random.default_rng(0)

    def noise(prompt):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(file, "PNG")
        return Made(file.getvalue(), cost=1.0)

    painter = Painter(paint=noise, batch=1)
    with closing(PictureStore(folder / "store")) as store:
        with pytest.raises(InputError, match=r"disk or the quota is full.*copy what is in it into"):
            make_pictures([painter], prompts(8), store)
        paid = len(painter.asked)
        assert 1 < paid < 8
        enlarge(8_000_000)
        (rescued,) = tmp_path.glob("rlli-pictures-*")
        subprocess.run(["cp", "-r", f"{rescued}/.", store.folder], check=True)
        assert len(make_pictures([painter], prompts(8), store)) == 8
    assert Counter(painter.asked) == {f"prompt {i}": 1 for i in range(8)}


# Several processes

WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from made_pictures import Painter, picture, prompts
from rlli_jax.generation import Made, PictureStore, make_pictures, making

making.LEASE_SECONDS = 1.0
making.POLL_SECONDS = 0.02


def paint(prompt):
    with open({log!r}, "a") as log:
        log.write(prompt + "\\n")
    time.sleep(0.02)
    return Made(picture(), cost=1.0)


print("ready", flush=True)
sys.stdin.readline()
store = PictureStore({folder!r})
assert len(make_pictures([Painter(paint=paint)], prompts(40), store)) == 40
store.close()
"""


@pytest.fixture
def workers(tmp_path):
    log, started = tmp_path / "made.log", []
    script = textwrap.dedent(WORKER).format(
        tests=str(Path(__file__).parent.parent), log=str(log), folder=str(tmp_path / "store")
    )

    def start(count):
        for _ in range(count):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
        for worker in started:
            assert worker.stdout.readline() == b"ready\n"
        return started

    def go(worker):
        worker.stdin.write(b"\n")
        worker.stdin.flush()

    yield start, go, lambda: Counter(log.read_text().split("\n")[:-1]) if log.exists() else {}
    for worker in started:
        worker.kill()
        worker.communicate()


def test_two_workers_make_each_picture_once(workers):
    start, go, made = workers
    both = start(2)
    for worker in both:
        go(worker)
    assert [worker.wait(60) for worker in both] == [0, 0]
    assert made() == {f"prompt {i}": 1 for i in range(40)}


def test_a_killed_worker_loses_only_what_was_in_flight(workers):
    start, go, made = workers
    doomed, survivor = start(2)
    go(doomed)
    while sum(made().values()) < 10:
        time.sleep(0.01)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    go(survivor)
    assert survivor.wait(60) == 0
    counts = made()
    assert set(counts) == {f"prompt {i}" for i in range(40)}
    assert sorted(counts.values())[-2] == 1  # at most the picture at work was made twice
    assert max(counts.values()) <= 2
