"""Asking: once, in batches, within a budget, by several processes, and through crashes."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import (
    Failed,
    Invalid,
    JudgeIdentity,
    Question,
    Rated,
    Usage,
    named_scale,
)
from rlli_jax.oracle import Budget, ask, asking, housekeeping, open_store, plan
from rlli_jax.oracle.asking import look_up
from rlli_jax.personas import Persona

SCALE = named_scale("1-5")


def picture(index):
    pixels = np.full((2, 2, 3), index, np.uint8)
    return Picture(f"picture {index}", lambda: pixels)


PICTURES = [picture(i) for i in range(10)]


def questions(size, samples=1):
    """``size`` different questions about 10 pictures, and ``samples`` of each."""
    return [
        Question(Persona("ann", (3.0,) * 5), f"request {i // 10}", "p", PICTURES[i % 10], SCALE, s)
        for i in range(size)
        for s in range(samples)
    ]


def opinion(question):
    """A rating that depends on the whole question."""
    return Rated(
        1 + int(question.picture.digest[:4], 16) % 5 / 2 + question.sample / 10, 0.9, "raw"
    )


class Paid:
    """Counts what it is asked; answers by ``opinion`` unless told otherwise."""

    identity = JudgeIdentity("paid", {"model": "m"})
    usage = Usage(90, 10, 0.01, 0.5)

    def __init__(self, answer=opinion):
        self.asked = []
        self.answer = answer

    def expected_usage(self, question):
        return replace(self.usage, seconds=None)

    def rate(self, questions):
        self.asked += questions
        return [replace(self.answer(question), usage=self.usage) for question in questions]


def summary(judge, asked, store, **options):
    console = Console(file=io.StringIO(), width=200)
    answers = ask(judge, asked, store, console=console, **options)
    return answers, console.file.getvalue()


def test_everything_is_asked_once_and_then_never_again(store):
    judge, asked = Paid(), questions(60, samples=2)
    doubled = [*asked, *reversed(asked)]
    first = ask(judge, doubled, store)
    assert first == [opinion(q) for q in doubled]
    assert Counter(judge.asked) == Counter(asked)
    assert ask(judge, doubled, store) == first
    assert len(judge.asked) == len(asked)


def test_questions_of_one_picture_are_asked_together(store):
    judge = Paid()
    ask(judge, questions(50), store)
    order = [question.picture.digest for question in judge.asked]
    changes = sum(a != b for a, b in pairwise(order))
    assert changes == 9


def test_no_picture_is_no_question_for_a_paid_judge(store):
    judge = Paid()
    asked = [q._replace(picture=None) if i % 2 else q for i, q in enumerate(questions(6))]
    answers = ask(judge, asked, store)
    assert answers[1::2] == [Invalid("no picture")] * 3
    assert all(question.picture is not None for question in judge.asked)
    assert len(judge.asked) == 3


def test_failed_answers_are_asked_again_and_invalid_ones_are_not(store):
    def at_first(question):
        kinds = [Failed("timeout"), Invalid("chatter", "Well..."), opinion(question)]
        return kinds[int(question.request[-1]) % 3]

    asked = questions(30)
    first = ask(Paid(at_first), asked, store)
    assert Counter(type(a) for a in first) == {Failed: 10, Invalid: 10, Rated: 10}
    later = Paid()
    second = ask(later, asked, store)
    assert set(later.asked) == {
        q for q, a in zip(asked, first, strict=True) if isinstance(a, Failed)
    }
    assert [a for a in second if isinstance(a, Invalid)] == [Invalid("chatter", "Well...")] * 10
    assert not any(isinstance(a, Failed) for a in second)


@pytest.mark.parametrize("rating", [0.99, 5.01, 7.0, float("nan"), float("inf")])
def test_a_rating_off_the_scale_is_invalid_and_final(store, rating):
    judge = Paid(lambda question: Rated(rating, raw="seven"))
    for _ in range(2):
        (answer,) = ask(judge, questions(1), store)
        assert isinstance(answer, Invalid)
        assert answer.raw == "seven"
    assert len(judge.asked) == 1


def test_judges_that_cost_nothing_need_no_store():
    judge = Paid()
    asked = [*questions(3), *questions(3)]
    assert ask(judge, asked) == [opinion(q) for q in asked]
    assert judge.asked == asked[:3]


def test_a_judge_that_swallows_an_answer_is_found_out(store):
    judge = Paid()
    judge.rate = lambda questions: [Rated(1.0)]
    with pytest.raises(RuntimeError, match="1 answers to 12 questions"):
        ask(judge, questions(12), store)


# Plan, budget


def test_plan(store):
    judge = Paid()
    asked = [*questions(40), *questions(10), questions(1)[0]._replace(picture=None)]
    before = plan(judge, asked, store)
    assert before == asking.Plan(51, 1, 40, 0, 40, 4000, pytest.approx(0.4), None)
    assert "expected time     unknown" in before.describe()
    assert not judge.asked
    judge.usage = Usage(180, 20, 0.05)
    ask(judge, questions(30), store)
    after = plan(judge, asked, store)
    assert (after.cached, after.to_ask) == (30, 10)
    assert (after.tokens, after.cost) == (2000, pytest.approx(0.5))  # what answers really cost
    assert after.seconds > 0
    assert "to ask                      10" in after.describe()


def test_plan_of_a_judge_that_does_not_know(store):
    judge = Paid()
    judge.expected_usage = lambda question: Usage()
    unknown = plan(judge, questions(3), store)
    assert (unknown.tokens, unknown.cost, unknown.seconds) == (None, None, None)
    nothing = plan(judge, [], store)
    assert (nothing.tokens, nothing.cost, nothing.seconds) == (0, 0, 0)


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (Budget(questions=25), 25),
        (Budget(tokens=1234), 12),
        (Budget(money=0.405), 40),
        (Budget(questions=30, money=0.205), 20),
        (Budget(questions=0), 0),
    ],
)
def test_a_budget_stops_cleanly_and_resumes(store, budget, count):
    judge, asked = Paid(), questions(60)
    first, said = summary(judge, asked, store, budget=budget)
    assert len(judge.asked) == count
    unasked = [a for a in first if isinstance(a, Failed)]
    assert len(unasked) == 60 - count
    assert all(a.reason.startswith("not asked: the budget of") for a in unasked)
    assert "stopped: the budget of" in said
    assert ask(judge, asked, store) == [opinion(q) for q in asked]
    assert Counter(judge.asked) == Counter(asked)


def test_a_budget_counts_what_answers_really_cost(store):
    judge = Paid()
    judge.expected_usage = lambda question: Usage(9, 1, 0.001)
    ask(judge, questions(300), store, budget=Budget(tokens=5000))
    assert 50 <= len(judge.asked) <= 50 + asking.FIRST_BATCH


def test_a_budget_for_what_the_judge_cannot_tell(store):
    judge = Paid()
    judge.expected_usage = lambda question: Usage(1, 1, None)
    with pytest.raises(InputError, match=r"budget\.money: the judge cannot tell"):
        ask(judge, questions(1), store, budget=Budget(money=1.0))


@pytest.mark.parametrize("name", ["questions", "tokens", "money"])
def test_a_negative_budget(name):
    with pytest.raises(InputError, match=rf"budget\.{name} is -1"):
        Budget(**{name: -1})


def test_a_judge_that_only_fails_is_given_up(store):
    judge = Paid(lambda question: Failed("connection refused"))
    answers, said = summary(judge, questions(500), store)
    assert len(judge.asked) < 300
    assert len(answers) == 500
    assert "64 questions failed one after another (connection refused)" in said
    assert not any(isinstance(a, Rated | Invalid) for a in answers)


def test_the_summary_counts_everything(store):
    answers = iter([Failed("timeout"), Invalid("chatter"), Rated(1.0), Rated(2.0)])
    _, said = summary(Paid(lambda question: next(answers)), questions(4), store)
    assert "4 questions: 0 answers were stored, 4 asked" in said
    assert "2 rated, 1 invalid, 1 failed; 400 tokens, cost 0.04" in said


def test_tokens_that_were_only_expected_are_said_to_be_about_so_many(store):
    def said(usage):
        judge = Paid(lambda question: Failed("timeout"))
        judge.usage, judge.expected_usage = usage, lambda question: Usage(90, 10, 0.01)
        return summary(judge, questions(4), store)[1]

    assert "4 failed; 400 tokens, " in said(Usage(90, 10, 0.01))
    assert "4 failed; about 400 tokens, " in said(Usage())
    assert "4 failed; 0 tokens, " in said(Usage(0, 0, 0.0))


def test_a_cost_that_nobody_knows_is_not_nothing(store):
    judge = Paid()
    judge.usage = Usage(90, 10)
    _, said = summary(judge, questions(4), store)
    assert said.endswith("400 tokens, cost unknown\n")


# Crashes and company


def test_an_exception_gives_the_questions_back(store):
    judge, asked = Paid(), questions(80)
    batches = []

    def rate(questions):
        batches.append(questions)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return Paid.rate(judge, questions)

    judge.rate = rate
    with pytest.raises(KeyboardInterrupt):
        ask(judge, asked, store)
    again = Paid()
    started = time.monotonic()
    ask(again, asked, store)
    assert len(again.asked) == 80 - asking.FIRST_BATCH
    assert time.monotonic() - started < asking.LEASE_SECONDS / 2  # it did not wait for leases


def test_leases_are_renewed_while_a_batch_takes_long(store, monkeypatch):
    monkeypatch.setattr(asking, "LEASE_SECONDS", 0.4)
    judge = Paid()
    keys = list(look_up(judge, questions(1), store).places)

    def rate(questions):
        time.sleep(1.0)
        assert store.claim("another", keys, 60) == set()
        return [opinion(q) for q in questions]

    judge.rate = rate
    ask(judge, questions(1), store)


def test_what_is_waited_for_is_said(store, monkeypatch):
    monkeypatch.setattr(asking, "LEASE_SECONDS", 0.6)
    asked = questions(3)
    store.claim("nowhere 12345 x", list(look_up(Paid(), asked, store).places), 3600)
    output = io.StringIO()
    ask(Paid(), asked, store, console=Console(file=output, width=200))
    assert "waiting for 3 questions that another worker (nowhere process 12345) is asking; " in (
        output.getvalue()
    )
    assert len(store.lookup(look_up(Paid(), asked, store).places)) == 3  # one lease later


def test_answers_that_the_store_does_not_take_are_kept_in_a_file(store, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record = store.record

    def full(owner, rows, texts):
        if owner:
            raise InputError("store: the disk is full.")
        record(owner, rows, texts)

    monkeypatch.setattr(store, "record", full)
    judge, asked = Paid(), questions(20)
    with pytest.raises(InputError, match=r"disk is full\. The last 20 answers are in .*: take"):
        ask(judge, asked, store)
    (file,) = tmp_path.glob("rlli-answers-*.jsonl.gz")
    assert housekeeping.import_answers(store, file) == 20
    assert list(ask(judge, asked, store)) == [opinion(question) for question in asked]
    assert len(judge.asked) == 20  # nothing was paid for twice
    monkeypatch.setattr("tempfile.tempdir", str(file))  # a file, so nothing can be written in it
    with pytest.raises(InputError, match=r"The last 5 answers are lost: .* cannot be written"):
        ask(judge, questions(25), store)


WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_asking import Paid, opinion, questions
from rlli_jax.oracle import ask, asking, open_store

asking.LEASE_SECONDS = 1.0
asking.BATCH_SECONDS = 0.05
asking.FIRST_BATCH = 8


class Slow(Paid):
    def rate(self, questions):
        with open({log!r}, "a") as log:
            for question in questions:
                log.write(f"{{question.request}} {{question.picture.name}}\\n")
        time.sleep(0.004 * len(questions))
        return super().rate(questions)


print("ready", flush=True)
sys.stdin.readline()
asked = questions({size})
assert ask(Slow(), asked, open_store({address!r})) == [opinion(q) for q in asked]
"""


@pytest.fixture
def workers(address, tmp_path):
    """Starts processes that fill one store; they begin when ``go`` is called."""
    started = []
    log = tmp_path / "asked.log"

    def start(count, size):
        script = textwrap.dedent(WORKER).format(
            tests=str(Path(__file__).parent), log=str(log), size=size, address=address
        )
        # Only the worker's own path counts: rlli_jax is installed.
        new = [
            subprocess.Popen(
                [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(count)
        ]
        started.extend(new)
        for worker in new:
            assert worker.stdout.readline() == b"ready\n"
        return new

    def go(workers):
        for worker in workers:
            worker.stdin.write(b"\n")
            worker.stdin.flush()

    def counts():
        return Counter(log.read_text().splitlines()) if log.exists() else Counter()

    yield start, go, counts
    for worker in started:
        worker.kill()
        worker.communicate()


def test_two_workers_ask_no_question_twice(workers, address):
    start, go, counts = workers
    both = start(2, 200)
    go(both)
    assert [worker.wait(60) for worker in both] == [0, 0]
    assert len(counts()) == 200
    assert set(counts().values()) == {1}


def test_killed_workers_lose_only_what_was_in_flight(workers, address):
    start, go, counts = workers
    doomed, survivor = start(2, 200)
    rng = np.random.default_rng(0)
    go([doomed])
    while not counts():
        time.sleep(0.01)
    time.sleep(rng.uniform(0.05, 0.3))
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    store = open_store(address)
    kept = len(ask(Paid(), questions(200), store, budget=Budget(questions=0))) - sum(
        isinstance(a, Failed)
        for a in ask(Paid(), questions(200), store, budget=Budget(questions=0))
    )
    in_flight = sum(counts().values()) - kept
    go([survivor])
    assert survivor.wait(60) == 0
    twice = [question for question, count in counts().items() if count > 1]
    assert len(counts()) == 200
    assert max(counts().values()) <= 2
    assert len(twice) <= in_flight
    asked = questions(200)
    assert ask(Paid(), asked, store, budget=Budget(questions=0)) == [opinion(q) for q in asked]
    store.close()


def test_a_slow_judge_is_asked_all_questions_about_a_picture_together(tmp_path, monkeypatch):
    """Or it would pass the beginning that their prompts share anew for each."""
    monkeypatch.setattr(asking, "BATCH_SECONDS", 1e-9)  # so that a batch would be one question
    monkeypatch.setattr(asking, "FIRST_BATCH", 1)
    calls = []

    class Slow(Paid):
        def rate(self, questions):
            calls.append([question.picture.digest for question in questions])
            return super().rate(questions)

    with closing(open_store(tmp_path / "answers.sqlite")) as store:
        ask(Slow(), questions(30), store)
        assert [len(set(digests)) for digests in calls] == [1] * 10
        ask(Slow(), questions(60), store, budget=Budget(questions=2))
    assert [len(digests) for digests in calls[10:]] == [2]  # a budget divides them all the same
