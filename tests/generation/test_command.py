import sys
from contextlib import closing

import pytest

from rlli_jax.errors import InputError
from rlli_jax.generation import Made, NotMade, PictureStore, Refused, make_pictures
from rlli_jax.generation.base import key_of
from rlli_jax.generation.command import CommandProvider

DRAW = """
import sys
from PIL import Image
prompt, output, seed = sys.argv[1:]
if prompt == "rude":
    print("warning", file=sys.stderr); print("not this one", file=sys.stderr); sys.exit(3)
if prompt == "broken":
    sys.exit("no paint left")
if prompt == "silent":
    sys.exit(0)
if prompt == "text":
    open(output, "w").write("no picture"); sys.exit(0)
if prompt == "slow":
    import time; time.sleep(20)
Image.new("RGB", (8, 8), (len(prompt), int(seed), 0)).save(output)
"""


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "draw.py").write_text(DRAW)

    def make(**changes):
        given = {"folder": tmp_path, "seed": 7, "timeout": 10.0, "price": 0.5} | changes
        return CommandProvider(
            "p", ["{python}", "draw.py", "{prompt}", "{output}", "{seed}"], **given
        )

    return make


def test_a_program_gets_prompt_output_and_seed(provider, tmp_path):
    """The prompt is one word whatever is in it: no shell reads it."""
    prompt = "a cat; touch bad {seed} $(touch bad)"
    with closing(PictureStore(tmp_path / "store")) as store:
        kept = make_pictures([provider()], [prompt], store)[prompt, "p"]
        from rlli_jax.catalog.pictures import decode

        assert decode(store.path(kept))[0, 0].tolist() == [len(prompt), 7, 0]
    assert kept.cost == 0.5
    assert 0 < kept.seconds < 10
    assert not (tmp_path / "bad").exists()


def test_what_a_program_may_end_with(provider):
    texts = ("rude", "broken", "silent", "text", "fine")
    found = dict(provider(concurrency=2).make(texts))
    assert found["rude"] == Refused("not this one", 0.5)
    assert found["broken"].reason == f"{sys.executable} ended with status 1: no paint left"
    assert "wrote no picture" in found["silent"].reason
    assert "is not a PNG, JPEG or WebP image" in found["text"].reason
    assert isinstance(found["fine"], Made)


def test_a_program_that_takes_too_long_is_stopped(provider):
    ((_, outcome),) = provider(timeout=0.5).make(["slow"])
    assert outcome == NotMade(f"{sys.executable} took longer than 0.5 s")


def test_a_program_that_is_not_there_is_hopeless(tmp_path):
    provider = CommandProvider("p", ["nowhere", "{prompt}", "{output}"], folder=tmp_path)
    ((_, outcome),) = provider.make(["a cat"])
    assert outcome.hopeless
    assert "nowhere cannot be run" in outcome.reason


def test_all_that_can_change_a_picture_changes_its_key(provider, tmp_path):
    def key(text="a cat", **changes):
        return key_of(provider(**changes).settings(text))

    before = key()
    assert key(timeout=3.0, concurrency=9, price=2.0) == before
    others = {key("a dog"), key(seed=8), key(revision="2")}
    (tmp_path / "draw.py").write_text(DRAW + "\n")  # another program
    assert len(others | {key(), before}) == 5


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["draw", "{prompt}"], "no {output}"),
        (["draw", "{output}"], "no {prompt}"),
        (["draw", "{prompt}", "{output}", "{size}"], "placeholder {size}"),
        (["draw", "{prompt}", "{output}", "{"], "a brace that is no placeholder"),
    ],
)
def test_commands_that_cannot_work_are_refused(tmp_path, command, problem):
    with pytest.raises(InputError, match=problem):
        CommandProvider("p", command, folder=tmp_path)
