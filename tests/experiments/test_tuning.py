"""How a judge is best asked is found by a few questions, and written into the config."""

import json
from contextlib import closing

import pytest
import tiny_study
from chat_server import LocalServer, completion

pytest.importorskip("openai", reason="needs the extra llm")

from rlli_jax.errors import InputError
from rlli_jax.experiments.tuning import write_settings

CONFIG = """\
name: tiny
judge:   # who rates
  kind: openai
  scale: adjectives   # the five
  both_orders: false
policies:
  Random: {learner: random}
"""


def test_settings_are_written_beside_what_is_there(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(CONFIG)
    said = write_settings(path, {"scale": "1-5", "prefill": "Rating:", "both_orders": True})
    assert "judge: scale: 1-5" in said
    text = path.read_text()
    assert "  scale: 1-5   # the five\n" in text
    assert '  prefill: "Rating:"\n' in text
    assert "  both_orders: true\n" in text
    assert text.startswith("name: tiny\njudge:   # who rates\n")
    assert text.endswith("policies:\n  Random: {learner: random}\n")


def test_a_block_in_braces_is_left_to_its_writer(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: tiny\njudge: {kind: openai, scale: 1-5}\n")
    with pytest.raises(InputError, match=r"set by hand in judge: scale: 1-5, prefill"):
        write_settings(path, {"scale": "1-5", "prefill": "Rating:"})
    assert path.read_text() == "name: tiny\njudge: {kind: openai, scale: 1-5}\n"


def test_digits_are_taken_where_words_get_no_probability(rlli, tmp_path, monkeypatch):
    """A server that says words of its own unless it is asked for digits."""
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)

    def respond(body, n):
        asked = json.dumps(body["messages"]).rsplit("one of:", 1)[1]
        label = "4" if "1, 2, 3" in asked else "2" if "5, 4, 3" in asked else None
        tops = {label: 0.9, "The": 0.05} if label else {"The": 0.7, "good": 0.02}
        return completion(label or "The", [(label or "The", tops)])

    with closing(LocalServer()) as server:
        server.respond = respond
        tiny_study.write_pictures(tmp_path / "pictures")
        (tmp_path / "users.csv").write_text("name,O,C,E,A,N\nann,1,2,3,4,5\n")
        judge = {"kind": "openai", "base_url": server.url, "model": "m", "scoring": "logprobs"}
        config = tiny_study.write_config(
            tmp_path,
            catalog={"folder": "pictures"},
            population={"csv": "users.csv"},
            judge=judge | {"store": "a.sqlite", "require": []},
            table={},
            policies={"Random": {"learner": "random"}},
        )
        status, output, errors = rlli(
            "examine", config, "judge.examination={pictures: 3, personas: 0}", "--tune",
            "--output", tmp_path / "found",
        )  # fmt: skip
    assert status == 0, errors
    assert "written into" in output
    text = config.read_text()
    assert "scale: 1-5" in text
    assert "both_orders: true" in text  # the answer followed the place in the list
    assert "prefill" not in text
