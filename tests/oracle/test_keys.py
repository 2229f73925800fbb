"""Cache keys: what alone changes one, and what does not."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import JudgeIdentity, Question, named_scale
from rlli_jax.oracle.keys import Keys, canonical
from rlli_jax.oracle.questions import Questions
from rlli_jax.personas import Persona

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
SCALE = named_scale("1-5")
PARAMETERS = {
    "model": "llava",
    "revision": "abc",
    "template": "t1",
    "scoring": "logprobs",
    "dtype": "bfloat16",
    "temperature": 0.7,
    "top_p": None,
}


def picture(pixels=PIXELS):
    return Picture("memory", lambda: pixels)


QUESTION = Question(Persona("ann", (3.0,) * 5), "a red ball", "p0", picture(), SCALE)


def key(question=QUESTION, parameters=PARAMETERS, name="openai"):
    (made,) = Keys(JudgeIdentity(name, parameters)).of([question])
    return made


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_of_the_judge_alone_changes_the_key(name):
    assert key(parameters={**PARAMETERS, name: "other"}) != key()


def test_null_absent_and_zero_are_three_things():
    absent = {k: v for k, v in PARAMETERS.items() if k != "temperature"}
    variants = [absent, {**absent, "temperature": None}, {**absent, "temperature": 0}]
    assert len({key(parameters=p) for p in variants}) == 3


def one_pixel_off():
    pixels = PIXELS.copy()
    pixels[2, 3, 1] ^= 1
    return pixels


@pytest.mark.parametrize(
    "change",
    [
        {"persona": Persona("ann", (3.0, 3.0, 3.0, 3.0, 5.0))},
        {"request": "a red bal"},
        {"picture": picture(one_pixel_off())},
        {"picture": picture(PIXELS.reshape(5, 4, 3))},
        {"picture": None},
        {"scale": named_scale("1-10")},
        {"scale": replace(SCALE, name="stars")},
        {"scale": replace(SCALE, labels=("a", "b", "c", "d", "e"))},
        {"scale": replace(SCALE, high=6.0)},
        {"sample": 1},
    ],
    ids=lambda change: "-".join(change),
)
def test_each_part_of_the_question_alone_changes_the_key(change):
    assert key(QUESTION._replace(**change)) != key()


def test_the_judge_itself_changes_the_key():
    assert key(name="transformers") != key()


def test_a_change_of_the_general_setup_changes_the_key(monkeypatch):
    before = key()
    monkeypatch.setattr("rlli_jax.oracle.keys.general_setup", lambda scale: "Rate this.")
    assert key() != before


@pytest.mark.parametrize("changed", ["provider", "persona's name"])
def test_names_do_not_change_the_key(changed):
    other = {
        "provider": QUESTION._replace(provider="another"),
        "persona's name": QUESTION._replace(persona=Persona("ben", (3.0,) * 5)),
    }[changed]
    assert key(other) == key()


def test_file_name_and_lossless_encoding_do_not_change_the_key(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.webp"]
    Image.fromarray(PIXELS).save(files[0], compress_level=0)
    Image.fromarray(PIXELS).save(files[1], compress_level=9)
    Image.fromarray(PIXELS).save(files[2], lossless=True)
    assert len({file.read_bytes() for file in files}) == 3
    keys = {key(QUESTION._replace(picture=Picture.from_file(file))) for file in files}
    assert keys == {key()}


def test_spelling_of_parameters_does_not_change_the_key():
    shuffled = dict(reversed(PARAMETERS.items()))
    assert key(parameters=shuffled) == key()
    assert key(parameters={"n": 1.0, "list": (1, 2)}) == key(parameters={"n": 1, "list": [1, 2]})
    assert key(parameters={"n": True}) != key(parameters={"n": 1})


def test_patience_of_the_real_judge_does_not_change_the_key(monkeypatch):
    openai = pytest.importorskip("rlli_jax.judges.openai")
    from rlli_jax.judges.completions import Completions

    def identity(key, base_url="http://localhost:1/v1", **limits):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        asked = Completions(model="llava", scoring="logprobs")
        limits = openai.Limits(**limits)
        return openai.OpenAIJudge(asked, base_url=base_url, limits=limits).identity

    plain = identity("first-key")
    patient = identity("second-key", timeout=7.0, concurrency=3, retries=2, requests_per_minute=9.0)
    assert Keys(plain).of([QUESTION]) == Keys(patient).of([QUESTION])
    assert "first-key" not in plain.describe()


@pytest.mark.parametrize("scale", [SCALE, named_scale("good-poor")], ids=lambda scale: scale.name)
def test_the_fast_way_is_the_sha256_of_the_canonical_json(scale):
    rng = np.random.default_rng(0)
    pictures = [None, *(picture(rng.integers(0, 256, (2, 2, 3), np.uint8)) for _ in range(3))]
    cells = tuple((f'a "ball" \\ Größe 球 {i % 2}', "p", pictures[i % 4]) for i in range(8))
    personas = tuple(Persona("x", tuple(rng.uniform(1, 5, 5))) for _ in range(3))
    questions = Questions(personas, cells, scale, samples=2)
    keys = Keys(JudgeIdentity("j", PARAMETERS))
    made = keys.of(questions)
    assert made == keys.of(list(questions))
    for question, key in zip(questions, made, strict=True):
        assert key == (None if question.picture is None else keys.parts(question).key())
    # The two requests alternate like the pictures, so each picture comes up twice with one of them.
    assert len(set(made)) == 1 + 3 * 3 * 2
    parts = keys.parts(questions[2])
    text = json.dumps({**vars(parts), "schema": 1}, sort_keys=True, separators=(",", ":"))
    assert made[2] == hashlib.sha256(text.encode()).digest()


def test_digests_stand_for_texts():
    keys = Keys(JudgeIdentity("j", PARAMETERS))
    parts = keys.parts(QUESTION)
    texts = keys.take_texts()
    assert set(texts) == {parts.judge, parts.persona, parts.scale}
    assert json.loads(texts[parts.judge])["parameters"] == PARAMETERS
    assert "respond as a person" in texts[parts.persona]
    assert keys.take_texts() == {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "cannot be part of a key"),
        ({"a": {1: 2}}, "must be text"),
        ([object()], "which is not JSON"),
        (np.float32(1), "float32"),
    ],
)
def test_what_is_not_json_is_refused(value, problem):
    with pytest.raises(InputError, match=problem):
        canonical(value)


@pytest.mark.parametrize("parameters", [{"api_key": "x"}, {"extra": [{"API-Key": "x"}]}])
def test_a_secret_in_the_identity_is_refused(parameters):
    with pytest.raises(InputError, match="is a secret"):
        Keys(JudgeIdentity("openai", parameters))
