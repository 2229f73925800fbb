"""What asking language models costs, and what it loses when processes die: nothing.

    python benchmarks/oracle.py [prefix] [table] [warm] [server] [kill] [--small]

- ``prefix``: 25 personas rate one picture of 576 image tokens: the judge, which computes what
  their prompts share once, against one prompt at a time with ``generate``. The model is a tiny
  random LLaVA, built on the spot; its ratings mean nothing, but must agree.
- ``table``: 1,000,000 stored answers become a table.
- ``warm``: ``rlli judge`` of the paper's case study with every answer stored.
- ``server``: questions a second through the openai judge, from a local server in a process of its
  own that answers at once, and from one that takes 200 ms, 64 questions at a time.
- ``kill``: 4 processes fill one store; at 20 random moments one of them is killed (SIGKILL) and
  another started. The table must equal that of one undisturbed process, and the server must have
  seen no more questions twice than were in flight.

Figures depend on the machine and on what else it does; the load average is printed with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from rlli_jax.catalog import Catalog
from rlli_jax.judges import JudgeIdentity, Question, Rated, Usage, named_scale
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.openai import Limits, OpenAIJudge
from rlli_jax.oracle import ask, build_questions, open_store
from rlli_jax.oracle.keys import Keys
from rlli_jax.oracle.schema import Row
from rlli_jax.personas import Population, Wording
from rlli_jax.qoe import QoETable

ROOT = Path(__file__).parents[1]
SCALE = named_scale("adjectives")


# A server of the least that an OpenAI-compatible one says


def serve(latency: float) -> None:
    """Answer chat completions after ``latency`` seconds; GET says how often each was asked."""
    asked: Counter[int] = Counter()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    body = json.dumps(list(asked.values()))
                else:
                    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                    digest = zlib.crc32(await reader.readexactly(length))
                    asked[digest] += 1
                    await asyncio.sleep(latency)
                    message = {"role": "assistant", "content": SCALE.labels[digest % 5]}
                    usage = {"prompt_tokens": 1000, "completion_tokens": 1}
                    body = json.dumps({"choices": [{"message": message}], "usage": usage})
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=2**24)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, __file__, "serve", "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def judge_at(url: str, concurrency: int) -> OpenAIJudge:
    """The judge under measurement."""
    limits = Limits(concurrency=concurrency)
    return OpenAIJudge(Completions("local", "text"), base_url=url, limits=limits)


def some_questions(users: int) -> list[Question]:
    """``users`` x 6 requests x 4 providers of the studio."""
    return build_questions(
        Population.sample(users, group="women 21-40", seed=0), Catalog.studio(), SCALE
    )


def measure_server(small: bool) -> None:
    """Questions a second, and the share of what latency and concurrency allow."""
    for latency, concurrency, users in ((0.0, 16, 100), (0.0, 64, 100), (0.2, 64, 160)):
        questions = some_questions(users // 10 if small else users)
        with server(latency) as url:
            judge = judge_at(url, concurrency)
            judge.rate(questions[:concurrency])  # connections and encoded pictures
            started, cpu = time.perf_counter(), time.process_time()
            answers = judge.rate(questions)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert all(isinstance(answer, Rated) for answer in answers)
        rate = len(questions) / seconds
        share = f", {rate * latency / concurrency:.1%} of the ideal rate" if latency else ""
        print(
            f"server: {len(questions):,} questions, latency {latency * 1e3:.0f} ms, concurrency "
            f"{concurrency}: {rate:,.0f} questions/s{share}; "
            f"{1e3 * cpu / len(questions):.2f} ms of CPU each"
        )


# Processes that are killed


def fill(store: str, url: str, users: int) -> None:
    """One worker: ask everything, with short leases and small batches."""
    from rlli_jax.oracle import asking

    asking.LEASE_SECONDS, asking.BATCH_SECONDS, asking.FIRST_BATCH = 2.0, 0.1, 8
    with closing(open_store(store)) as answers:
        ask(judge_at(url, 4), some_questions(users), answers)


def measure_kill(small: bool) -> None:
    """Kill workers at random moments; compare with an undisturbed run."""
    workers, kills, users = 4, 5 if small else 20, 50 if small else 300
    questions = some_questions(users)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, server(0.1) as url:
        store = f"{folder}/answers.sqlite"

        def start() -> subprocess.Popen[bytes]:
            arguments = ["--store", store, "--url", url, "--users", str(users)]
            return subprocess.Popen([sys.executable, __file__, "fill", *arguments])

        running, killed = [start() for _ in range(workers)], 0
        while killed < kills:
            time.sleep(rng.uniform(0.5, 5.0))  # starting takes a process two seconds or so
            victim = rng.randrange(workers)
            if running[victim].poll() is None:  # it may have ended, with nothing left to ask
                running[victim].kill()
                running[victim].wait()
                killed += 1
            elif all(process.poll() is not None for process in running):
                break
            running[victim] = start()
        for process in running:
            assert process.wait() == 0
        with urllib.request.urlopen(url) as reply:
            counts = json.load(reply)
        judge = judge_at(url, 16)
        with closing(open_store(store)) as answers:
            after = ask(judge, questions, answers)
        with closing(open_store(f"{folder}/undisturbed.sqlite")) as answers:
            undisturbed = ask(judge, questions, answers)
    assert after == undisturbed
    # People with the same levels of all traits are one question.
    unique = len(set(Keys(judge.identity).of(questions)))
    assert len(counts) == unique
    again = sum(counts) - len(counts)
    print(
        f"kill: {unique:,} questions, {killed} kills of {workers} workers: the table "
        f"equals the undisturbed one; {again} questions were sent again, at most "
        f"{max(counts)} times each (in flight: one batch for each kill)"
    )


# A large table


class Opinion:
    """Made-up answers, as long as a model's."""

    identity = JudgeIdentity("made-up", {"model": "none"}, stand_in=True)

    def rate(self, questions: list[Question]) -> list[Rated]:
        """Not asked when all answers are stored."""
        raise AssertionError("an answer is not stored")


def large_inquiry(folder: str, size: int) -> tuple[Population, Catalog]:
    """1,000 users, and ``size`` / 1,000 small pictures of four providers, made if not there."""
    rng, pictures = np.random.default_rng(0), Path(folder, "pictures")
    for provider in range(4):
        for request in range(size // 4000):
            file = pictures / f"provider {provider}" / f"request {request}.png"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file)
    population = Population.sample(1000, group="women 21-40", seed=0)
    return population, Catalog.from_folder(pictures)


def fill_store(folder: str, size: int) -> None:
    """Write made-up answers of all questions."""
    population, catalog = large_inquiry(folder, size)
    questions = build_questions(population, catalog, SCALE)
    keys, rng = Keys(Opinion.identity), np.random.default_rng(0)
    raw = json.dumps({"text": "good", "probabilities": dict.fromkeys(SCALE.labels, 0.2)})
    with closing(open_store(f"{folder}/answers.sqlite")) as store:
        started = time.perf_counter()
        for first in range(0, len(questions), 4096):
            rows = [
                Row.of(
                    keys.parts(question),
                    Rated(float(rating), 0.97, raw, Usage(1000, 2, 0.001, 0.1)),
                    seconds=0.01,
                    now=0.0,
                )
                for question, rating in zip(
                    questions[first : first + 4096], rng.uniform(1, 5, 4096), strict=False
                )
            ]
            store.record("nobody", rows, keys.take_texts())
        seconds = time.perf_counter() - started
    print(f"table: {len(questions):,} answers stored, {len(questions) / seconds:,.0f} rows/s")


def read_table(folder: str, size: int) -> None:
    """Make the table from stored answers, and say what that took, from reading the pictures on."""
    wall, cpu = time.perf_counter(), time.process_time()
    population, catalog = large_inquiry(folder, size)
    with closing(open_store(f"{folder}/answers.sqlite")) as store:
        answers = ask(Opinion(), build_questions(population, catalog, SCALE), store)
    table = QoETable.from_answers(
        answers,
        population=population,
        catalog=catalog,
        scale=SCALE,
        judge=Opinion.identity,
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"table: {table.qoe.size:,} stored answers become a table in {wall:.1f} s "
        f"({cpu:.1f} s of CPU), peak memory {memory:.2f} GiB",
        flush=True,
    )


def measure_table(small: bool) -> None:
    """In a process of its own, so that its memory is its own."""
    size = 50_000 if small else 1_000_000
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for task in (fill_store, read_table):
            process = context.Process(target=task, args=(folder, size))
            process.start()
            process.join()
            assert process.exitcode == 0


def measure_warm(small: bool) -> None:
    """The whole command, with Python's start."""
    with tempfile.TemporaryDirectory() as folder, server(0.0) as url:
        study = (ROOT / "configs" / "paper.yaml").read_text()
        path = Path(folder, "paper.yaml")
        before, _, after = study.partition("judge:")
        rest = after[after.index("\nenvironment:") :]
        path.write_text(
            f"{before}judge: {{kind: openai, base_url: '{url}', model: local, scoring: text, "
            f"samples: 8, scale: adjectives, store: {folder}/answers.sqlite}}\n{rest}"
        )
        for name in ("cold", "warm", "warm again"):
            started, before_cpu = time.perf_counter(), _cpu_of_children()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "rlli_jax.cli",
                    "judge",
                    path,
                    "--output",
                    f"{folder}/{name}",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            print(
                f"warm: rlli judge of the paper's table, {name}: "
                f"{time.perf_counter() - started:.2f} s "
                f"({_cpu_of_children() - before_cpu:.2f} s of CPU)",
                flush=True,
            )


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Shared prefixes


def measure_prefix(small: bool) -> None:
    """The judge against one prompt at a time with ``generate``, in both wordings of personas."""
    import torch

    from rlli_jax.judges.prefix_cache import common_length
    from rlli_jax.judges.prompting import messages
    from rlli_jax.judges.transformers import TransformersJudge

    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_llava

    people = 5 if small else 25
    scale = named_scale("1-5")
    catalog = Catalog.studio()

    def asked(picture: int, wording: Wording) -> list[Question]:
        population = Population.sample(people, group="women 21-40", seed=0).worded(wording)
        shown = catalog.picture(0, picture)
        return [
            Question(persona, catalog.requests[0], "p", shown, scale)
            for persona in population.personas
        ]

    def distribution(
        judge: TransformersJudge, question: Question, said: tuple[int, ...] = ()
    ) -> np.ndarray:
        """Of the next token, as one writes it today: the processor, then ``generate``."""
        inputs = judge._inputs(question.picture, messages(question))
        ids = torch.cat([inputs["input_ids"], torch.tensor([said], dtype=torch.long)], 1)
        output = judge._model.generate(
            **{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)},
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return np.asarray(output.logits[0][0].double().softmax(-1).numpy())

    def rating(judge: TransformersJudge, question: Question, first: np.ndarray) -> float:
        """From the distributions; spellings of several tokens (" 1") take more passes."""
        tokens = judge._tokens_of(scale, judge._render(messages(question)))
        after: dict[tuple[int, ...], np.ndarray] = {(): first}
        for context in tokens.contexts:
            if context not in after:
                after[context] = distribution(judge, question, context)
        said = {c: np.log(after[c][list(tokens.vocabulary)]) for c in tokens.contexts}
        p = tokens.probabilities(said)
        return float(p @ np.linspace(scale.low, scale.high, len(p)) / p.sum())

    for hidden in (32, 512):  # in large models matrix products take all the time, as in 512
        with tempfile.TemporaryDirectory() as folder:
            size = {"hidden_size": hidden, "intermediate_size": 4 * hidden}
            size["initializer_range"] = 0.5 * (32 / hidden) ** 0.5  # what it says stays as likely
            model = tiny_llava.build(Path(folder, "tiny-random-llava"), side=24, **size)
            judge = TransformersJudge(model, device="cpu", min_valid_mass=0.0, batch_size=25)
            judge.rate(asked(1, "full"))  # loads the model, checks that prefixes can be shared
            distribution(judge, asked(1, "full")[0])
            wordings: tuple[Wording, ...] = ("full", "brief")
            for wording in wordings:
                questions = asked(0, wording)
                wall = time.perf_counter()
                answers = judge.rate(questions)
                shared = time.perf_counter() - wall
                wall = time.perf_counter()
                firsts = [distribution(judge, question) for question in questions]
                first_token = time.perf_counter() - wall
                ratings = [
                    rating(judge, question, first)
                    for question, first in zip(questions, firsts, strict=True)
                ]
                single = time.perf_counter() - wall
                worst = max(
                    abs(answer.rating - expected)
                    for answer, expected in zip(answers, ratings, strict=True)
                    if isinstance(answer, Rated)
                )
                prompts = [
                    judge._inputs(q.picture, messages(q))["input_ids"][0].tolist()
                    for q in questions
                ]
                whole = sum(map(len, prompts))
                common = common_length(prompts)
                least = common + sum(len(prompt) - common for prompt in prompts)
                print(
                    f"prefix: {people} personas, {wording} wording, hidden size {hidden}: prompts "
                    f"of {whole // people} tokens, {common} of them shared (576 of the picture), "
                    f"so {whole / least:.1f} x fewer tokens; shared {shared:.2f} s; one prompt at "
                    f"a time with generate {single:.2f} s: {single / shared:.1f} x, and "
                    f"{first_token:.2f} s without the passes that spellings of several tokens "
                    f"take: {first_token / shared:.1f} x; largest difference of ratings "
                    f"{worst:.1e} (tiny random model)",
                    flush=True,
                )


MEASURES = {
    "prefix": measure_prefix,
    "table": measure_table,
    "warm": measure_warm,
    "server": measure_server,
    "kill": measure_kill,
}


def main() -> None:
    """Print what was asked for; everything if nothing was."""
    parser = argparse.ArgumentParser(description="What asking language models costs.")
    parser.add_argument("measures", nargs="*", help=f"{', '.join(MEASURES)}; all if not given")
    parser.add_argument("--small", action="store_true", help="a tenth or so of the size")
    for name, kind in (("latency", float), ("users", int), ("store", str), ("url", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measures == ["serve"]:
        serve(arguments.latency)
    elif arguments.measures == ["fill"]:
        fill(arguments.store, arguments.url, arguments.users)
    else:
        for name in arguments.measures or MEASURES:
            if name not in MEASURES:
                parser.error(f"{name} is none of {', '.join(MEASURES)}")
            print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
            MEASURES[name](arguments.small)


if __name__ == "__main__":
    main()
