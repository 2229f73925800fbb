"""End to end against an OpenAI-compatible server that is not ours: ``transformers serve``.

It serves the tiny random LLaVA. So that its first token is a label, the labels' tokens have a large
bias; which of them it says is left to the model.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_llava

from rlli_jax.judges import Rated
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.openai import Limits, OpenAIJudge
from rlli_jax.judges.transformers import TransformersJudge
from rlli_jax.oracle import ask, open_store

NEEDED = ("accelerate", "fastapi", "uvicorn")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason=f"transformers serve needs {', '.join(NEEDED)}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import transformers

    folder = tiny_llava.build(tmp_path_factory.mktemp("served") / "tiny-random-llava")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer.encode(label, add_special_tokens=False) for label in (" poor", " good")]
    assert all(len(ids) == 1 for ids in tokens)
    config = transformers.GenerationConfig.from_pretrained(folder)
    config.sequence_bias = [[ids, 1000.0] for ids in tokens]
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(model):
    """Its address; ready to answer."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    with open(model / "serve.log", "w+") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        try:
            for _ in range(240):
                if process.poll() is not None:
                    pytest.fail(f"the server ended: {(model / 'serve.log').read_text()[-2000:]}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def test_a_table_is_asked_of_the_server_once(model, server, question, tmp_path):
    questions = [
        question(user, provider, "good-poor") for user in range(2) for provider in range(2)
    ]
    judge = OpenAIJudge(
        Completions(str(model), max_tokens=1), base_url=server, limits=Limits(concurrency=2)
    )
    with closing(open_store(tmp_path / "answers.sqlite")) as store:
        answers = ask(judge, questions, store)
    assert judge.identity.parameters["scoring"] == "text"  # this server gives no log-probabilities
    assert all(isinstance(answer, Rated) and answer.rating in (0.0, 1.0) for answer in answers)
    local = TransformersJudge(model, device="cpu", min_valid_mass=0.0).rate(questions)
    # The server's model reads the very prompts of the judge in process.
    assert [a.usage.prompt_tokens for a in answers] == [a.usage.prompt_tokens for a in local]
    silent = OpenAIJudge(
        Completions(str(model), max_tokens=1, scoring="text"), base_url="http://127.0.0.1:9/v1"
    )
    with closing(open_store(tmp_path / "answers.sqlite")) as store:
        assert ask(silent, questions, store) == answers
