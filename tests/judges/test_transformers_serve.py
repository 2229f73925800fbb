"""End to end against an OpenAI-compatible server that is not ours: ``transformers serve``.

It serves the tiny random LLaVA. So that its first token is a label, the labels' tokens have a large
bias; which of them it says is left to the model.
"""

from contextlib import closing
from importlib.util import find_spec

import pytest
import tiny_llava
from model_server import served

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
    with served(model) as address:
        yield address


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
