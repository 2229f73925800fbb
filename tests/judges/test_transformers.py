"""The transformers judge with tiny random models, built here: their ratings mean nothing, but the
ways to compute them must agree."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra llm")
pytest.importorskip("transformers", reason="needs the extra llm")

import tiny_llava
import torch
import transformers

from rlli_jax.catalog import Picture
from rlli_jax.catalog.pictures import shrink
from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated, named_scale, prefix_cache
from rlli_jax.judges import transformers as transformers_judge
from rlli_jax.judges.prompting import ORDERS, messages
from rlli_jax.judges.transformers import TransformersJudge


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These models are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_llava.make_tokenizer()


@pytest.fixture(scope="session")
def judge(llava):
    return TransformersJudge(llava, device="cpu", min_valid_mass=0.0)


def fresh(llava, judge, **arguments):
    """A judge with a state of its own and the parts of one that is loaded."""
    other = TransformersJudge(llava, device="cpu", **{"min_valid_mass": 0.0, **arguments})
    other._checkpoint.model, other._checkpoint.processor = (
        judge._checkpoint.model,
        judge._checkpoint.processor,
    )
    return other


def spelled_out(judge, question, order=ORDERS[0]):
    """Label probabilities by one pass for each token: what ``rate`` must give."""
    chat = messages(question, order)
    inputs = judge._inputs(question.picture, chat)
    tokens = judge._tokens_of(question.scale, judge._render(chat))

    def next_token(said):
        ids = torch.cat([inputs["input_ids"], torch.tensor([said], dtype=torch.long)], 1)
        with torch.inference_mode():
            logits = judge._checkpoint.model(
                **{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            ).logits
        return logits[0, -1].double().softmax(-1).numpy()

    p = np.zeros(len(question.scale.labels))
    for ids, label in tokens.spellings.items():
        mass = np.prod([next_token(list(ids[:i]))[t] for i, t in enumerate(ids)])
        for other in tokens.spellings:  # "10" is not "1"; these labels begin no third one
            if len(other) > len(ids) and other[: len(ids)] == ids:
                rest = range(len(ids), len(other))
                mass -= mass * np.prod([next_token(list(other[:i]))[other[i]] for i in rest])
        p[label] += mass
    return p


def rating(question, p):
    scale = question.scale
    return float(p @ np.linspace(scale.low, scale.high, len(p)) / p.sum())


@pytest.mark.parametrize("scale", ["adjectives", "1-5", "1-10", "good-poor"])
def test_ratings_are_those_of_one_pass_for_each_token(judge, question, scale):
    questions = [question(i, i % 2, scale) for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = judge.rate(questions)
    assert judge._scorer.shares is True
    for ask, answer in zip(questions, answers, strict=True):
        assert isinstance(answer, Rated)
        p = spelled_out(judge, ask)
        assert answer.rating == pytest.approx(rating(ask, p), abs=1e-5)
        assert answer.valid_mass == pytest.approx(p.sum(), rel=1e-3)
        said = json.loads(answer.raw)
        np.testing.assert_allclose(list(said["probabilities"].values()), p, rtol=1e-3, atol=2e-7)
    assert len({answer.rating for answer in answers}) == 4


def test_ten_begins_with_one_in_this_tokenizer(judge, question):
    """The scale 1-10 tests labels of several tokens only if "10" is no token of its own."""
    tokens = judge._tokens_of(named_scale("1-10"), judge._render(messages(question())))
    (ten,) = [ids for ids, label in tokens.spellings.items() if label == 9 and len(ids) == 2][:1]
    assert ten[:1] in tokens.spellings


def test_pictures_are_scaled_down_to_the_longest_side(judge, llava, question):
    small = fresh(llava, judge, longest_side=8)
    pixels = shrink(question().picture.pixels, 8)
    scaled = question()._replace(picture=Picture("scaled", lambda: pixels))
    assert small.rate([question()])[0].rating == judge.rate([scaled])[0].rating
    assert small.rate([question()])[0].rating != judge.rate([question()])[0].rating
    assert small.identity.parameters == judge.identity.parameters | {"longest_side": 8}
    assert "longest_side" not in judge.identity.parameters
    with pytest.raises(InputError, match="longest_side is 0; give a number of pixels"):
        TransformersJudge(llava, longest_side=0)


def test_an_answer_does_not_depend_on_the_batch(judge, llava, question):
    questions = [question(i, p) for i in range(3) for p in range(2)]
    together = judge.rate(questions)
    alone = [fresh(llava, judge, batch_size=1).rate([ask])[0] for ask in questions]
    shuffled = fresh(llava, judge, batch_size=2).rate(questions[::-1])[::-1]
    for a, b, c in zip(together, alone, shuffled, strict=True):
        assert a.rating == pytest.approx(b.rating, abs=1e-5)
        assert a.rating == pytest.approx(c.rating, abs=1e-5)


def test_holes_and_samples(judge, question):
    hole, one, again = judge.rate([question(0, None), question(0), question(0, sample=3)])
    assert hole == Invalid("no picture")
    assert one == again


def test_average_over_label_orders(judge, llava, question):
    both = fresh(llava, judge, both_orders=True)
    questions = [question(0), question(1)]
    for ask, answer in zip(questions, both.rate(questions), strict=True):
        parts = [rating(ask, spelled_out(judge, ask, order)) for order in ORDERS]
        assert parts[0] != pytest.approx(parts[1], abs=1e-4)
        assert answer.rating == pytest.approx(np.mean(parts), abs=1e-5)
        assert len(answer.raw.splitlines()) == 2


def test_little_valid_mass_is_invalid(judge, llava, question):
    (answer,) = fresh(llava, judge, min_valid_mass=0.99).rate([question()])
    assert isinstance(answer, Invalid)
    assert "is on the scale's labels" in answer.reason
    assert json.loads(answer.raw)["probabilities"]


def counting(model, seen, fail=lambda rows, shared: False, of=len):
    """The model, with its batch sizes written down and memory that may run out."""

    class Counting:
        config, generation_config = model.config, model.generation_config
        model_ = model

        def __call__(self, **arguments):
            rows = len(arguments["input_ids"])
            shared = "position_ids" in arguments
            seen.append((of(arguments["input_ids"]), shared))
            if fail(rows, shared):
                raise torch.OutOfMemoryError("CUDA out of memory (in a test)")
            return model(**arguments)

    return Counting()


def test_a_picture_is_looked_at_once_for_all_personas(judge, llava, question):
    other, seen = fresh(llava, judge), []
    other.rate([question(0), question(1)])  # the check of shared prefixes
    other._checkpoint.model = counting(judge._checkpoint.model, seen)
    other.rate([question(i, scale="good-poor") for i in range(20)])
    assert seen[0] == (1, False)
    assert all(shared for _, shared in seen[1:])
    assert {rows for rows, _ in seen[1:]} == {16, 4}


def test_behind_a_label_only_its_tokens_are_passed(judge, llava, question):
    other, widths = fresh(llava, judge), []
    other._scorer.shares = True
    other._checkpoint.model = counting(judge._checkpoint.model, widths, of=lambda ids: ids.shape[1])
    other.rate([question(i, scale="adjectives") for i in range(4)])
    prefix, ending, *paths = (width for width, _ in widths)
    assert prefix > ending > 50
    assert paths
    assert max(paths) < 8


@pytest.mark.parametrize(("negligible", "follows"), [(1.0, False), (1e-99, True)])
def test_only_spellings_that_are_likely_enough_are_followed(
    judge, llava, question, monkeypatch, negligible, follows
):
    monkeypatch.setattr(prefix_cache, "NEGLIGIBLE", negligible)
    other, seen = fresh(llava, judge), []
    other._scorer.shares = True
    other._checkpoint.model = counting(judge._checkpoint.model, seen)
    answers = other.rate([question(i) for i in range(4)])
    assert all(isinstance(answer, Rated) for answer in answers)
    paths = len(judge._tokens_of(named_scale("adjectives"), "").paths)
    assert paths > 1
    assert sum(rows for rows, shared in seen if shared) == 4 * (1 + paths if follows else 1)


def test_prompts_that_do_not_end_as_their_texts_are_processed_singly(
    judge, llava, question, monkeypatch
):
    questions = [question(i) for i in range(3)]
    expected = judge.rate(questions)
    assert judge._prompts([messages(ask) for ask in questions], [1, 2, 3]) is None
    monkeypatch.setattr(
        TransformersJudge,
        "_prompts",
        lambda self, chats, whole: [whole] if len(chats) == 1 else None,
    )
    for a, b in zip(fresh(llava, judge).rate(questions), expected, strict=True):
        assert a.rating == pytest.approx(b.rating, abs=1e-5)


def test_out_of_memory_halves_the_batch_and_goes_on(judge, llava, question):
    questions = [question(i) for i in range(6)]
    expected = judge.rate(questions)
    other, seen = fresh(llava, judge), []
    other._scorer.shares = True
    other._checkpoint.model = counting(judge._checkpoint.model, seen, lambda rows, shared: rows > 3)
    answers = other.rate(questions)
    for a, b in zip(answers, expected, strict=True):
        assert a.rating == pytest.approx(b.rating, abs=1e-5)
    assert other._scorer.batch_size <= 3
    sizes = [rows for rows, shared in seen if shared]
    assert max(sizes) > 3
    assert all(rows <= 3 for rows in sizes[sizes.index(other._scorer.batch_size) :])


def test_a_prompt_that_never_fits_fails(judge, llava, question):
    for shared in (True, False):
        other = fresh(llava, judge)
        other._scorer.shares = shared
        other._checkpoint.model = counting(judge._checkpoint.model, [], lambda rows, shared: True)
        (one, two) = other.rate([question(0), question(1)])
        assert one == Failed("the device's memory is too small for one prompt")
        assert two == one


def test_other_errors_of_a_model_are_not_hidden(judge, llava, question):
    other = fresh(llava, judge)
    other._scorer.shares = True

    def broken(rows, shared):
        raise RuntimeError("a mistake")

    other._checkpoint.model = counting(judge._checkpoint.model, [], broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        other.rate([question(0), question(1)])


def test_a_model_that_fails_the_check_is_asked_whole_prompts(judge, llava, question, monkeypatch):
    questions = [question(i, p) for i in range(3) for p in range(2)]
    expected = judge.rate(questions)
    other = fresh(llava, judge)
    right = prefix_cache.make_prefix

    def wrong_positions(model, inputs, length):
        return replace(right(model, inputs, length), shift=-9)

    monkeypatch.setattr(prefix_cache, "make_prefix", wrong_positions)
    with pytest.warns(RuntimeWarning, match="every prompt is passed whole") as caught:
        answers = other.rate([*questions, question(9), question(8)])
    assert len([w for w in caught if w.category is RuntimeWarning]) == 1
    for a, b in zip(answers, expected, strict=False):
        assert a.rating == pytest.approx(b.rating, abs=1e-5)


def test_a_model_without_a_cache_is_asked_whole_prompts(judge, llava, question):
    questions = [question(0), question(1)]
    other = fresh(llava, judge)

    class NoCache:
        config, generation_config = (
            judge._checkpoint.model.config,
            judge._checkpoint.model.generation_config,
        )

        def __call__(self, *, input_ids, attention_mask, pixel_values, use_cache, logits_to_keep):
            return judge._checkpoint.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                pixel_values=pixel_values,
                logits_to_keep=logits_to_keep,
            )

    other._checkpoint.model = NoCache()
    with pytest.warns(RuntimeWarning, match="every prompt is passed whole"):
        answers = other.rate(questions)
    for a, b in zip(answers, judge.rate(questions), strict=True):
        assert a.rating == pytest.approx(b.rating, abs=1e-5)


def test_expected_usage_counts_exactly(judge, llava, question):
    both = fresh(llava, judge, both_orders=True)
    for ask in (question(0), question(1, 1, "1-10")):
        lengths = [
            judge._inputs(ask.picture, messages(ask, order))["input_ids"].shape[1]
            for order in ORDERS
        ]
        assert judge.expected_usage(ask).prompt_tokens == lengths[0]
        assert both.expected_usage(ask).prompt_tokens == sum(lengths)
        (answer,) = both.rate([ask])
        assert answer.usage.prompt_tokens == sum(lengths)
        assert answer.usage.seconds > 0
    assert judge.expected_usage(question(0, None)).prompt_tokens == 0


# ---- Qwen2-VL: positions of three dimensions (M-RoPE), image tokens by the picture's size


class QwenProcessor:
    """Qwen2VLProcessor without its video part, which needs torchvision."""

    chat_template = "as below"

    def __init__(self, tokenizer, images):
        self.tokenizer, self.images = tokenizer, images

    def apply_chat_template(self, chat, *, tokenize, **_):
        parts = chat[0]["content"]
        text = "".join(p.get("text", "<image>") for p in parts) + "\nASSISTANT:"
        if not tokenize:
            return text
        (image,) = [p["image"] for p in parts if p["type"] == "image"]
        found = dict(self.images([image], return_tensors="pt"))
        n = int(found["image_grid_thw"].prod()) // self.images.merge_size**2
        ids = self.tokenizer(text.replace("<image>", "<image>" * n), return_tensors="pt")
        is_image = ids["input_ids"] == self.tokenizer.convert_tokens_to_ids("<image>")
        return {**found, **ids, "mm_token_type_ids": is_image.int()}


@pytest.fixture(scope="module")
def qwen(tokenizer):
    torch.manual_seed(1)
    config = transformers.Qwen2VLConfig(
        text_config={
            **tiny_llava.SMALL,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=len(tokenizer) - 1,
        vision_start_token_id=len(tokenizer) - 2,
    )
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    images = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
        patch_size=8, min_pixels=32 * 32, max_pixels=64 * 64
    )
    return model, QwenProcessor(tokenizer, images)


def test_qwen_shares_prefixes_too(llava, qwen, question):
    judge = TransformersJudge(llava, device="cpu", min_valid_mass=0.0)
    judge._checkpoint.model, judge._checkpoint.processor = qwen
    questions = [question(i, p, "1-10") for i in range(3) for p in range(2)]
    inputs = judge._inputs(questions[0].picture, messages(questions[0]))
    assert int(inputs["image_grid_thw"].prod()) > 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = judge.rate(questions)
    assert judge._scorer.shares is True
    for ask, answer in zip(questions, answers, strict=True):
        assert answer.valid_mass > 0
        alone = TransformersJudge(llava, device="cpu", min_valid_mass=0.0)
        alone._checkpoint.model, alone._checkpoint.processor = qwen
        alone._scorer.shares = False
        (whole,) = alone.rate([ask])
        assert answer.rating == pytest.approx(whole.rating, abs=1e-4)


# ---- the identity, without a model


def files_of(llava, folder):
    folder.mkdir()
    for path in llava.iterdir():
        if path.suffix in (".json", ".jinja"):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_identity_of_a_folder(llava, tmp_path):
    identity = TransformersJudge(llava).identity
    assert identity.name == "transformers"
    assert identity.stand_in is False
    assert identity.parameters["model"] == "tiny-random-llava"
    assert identity.parameters["dtype"] == "float32"
    copied = files_of(llava, tmp_path / "tiny-random-llava")
    one = TransformersJudge(copied).identity
    assert one == TransformersJudge(copied, device="cpu", batch_size=2).identity
    with (copied / "config.json").open("a") as file:
        file.write("\n")
    assert TransformersJudge(copied).identity != one


def test_what_changes_an_answer_is_in_the_identity(llava):
    changes = [
        {},
        {"revision": "2"},
        {"dtype": "bfloat16"},
        {"both_orders": True},
        {"min_valid_mass": 0.1},
    ]
    identities = [TransformersJudge(llava, **change).identity for change in changes]
    for a, b in itertools.combinations(identities, 2):
        assert a != b


def test_dtype_of_the_checkpoint(llava, tmp_path):
    folder = files_of(llava, tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    for kept in ({"torch_dtype": "float16"}, {"text_config": {"dtype": "float16"}}):
        (folder / "config.json").write_text(json.dumps({**config, **kept}))
        assert TransformersJudge(folder).identity.parameters["dtype"] == "float16"
    (folder / "config.json").write_text("{}")
    assert TransformersJudge(folder).identity.parameters["dtype"] == "float32"


def test_revision_of_a_name_is_the_commit(monkeypatch, tmp_path):
    """With the layout of the hub's local cache, and nothing asked of the network."""
    import huggingface_hub.file_download

    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "models--org--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "config.json").write_text('{"dtype": "bfloat16"}')
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    parameters = TransformersJudge("org/name").identity.parameters
    assert parameters["model"] == "org/name"
    assert parameters["revision"] == commit
    assert parameters["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; choose auto, float32"),
        ({"min_valid_mass": 2.0}, "min_valid_mass is 2.0; give a number from 0 to 1"),
        ({"batch_size": 0}, "batch_size is 0; give a number from 1"),
    ],
)
def test_arguments_out_of_range(llava, wrong, message):
    with pytest.raises(InputError, match=message):
        TransformersJudge(llava, **wrong)


def test_a_missing_package_is_named(monkeypatch, llava):
    monkeypatch.setattr(transformers_judge, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"torch is missing; pip install 'rlli_jax\[llm\]'"):
        TransformersJudge(llava)


def test_models_that_are_not_there(llava, tmp_path, question):
    with pytest.raises(InputError, match=r"has no config\.json"):
        TransformersJudge(tmp_path).identity  # noqa: B018
    with pytest.raises(InputError, match="there is no folder no such name"):
        TransformersJudge("no such name").identity  # noqa: B018
    without_weights = files_of(llava, tmp_path / "broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        TransformersJudge(without_weights).rate([question()])


def test_a_device_that_is_not_there(llava, question):
    with pytest.raises(InputError, match="a device that is there"):
        TransformersJudge(llava, device="no such device").rate([question()])
