"""Prompts: the shared part first, the persona last, and every word of it in the digest."""

import json

from rlli_jax.judges import prompting
from rlli_jax.judges.prompting import ORDERS, label_orders, messages, template_digest


def texts(chat):
    return [part.get("text") for part in chat[0]["content"]]


def test_image_after_the_setup_and_persona_last(question):
    chat = messages(question())
    assert [part["type"] for part in chat[0]["content"]] == ["text", "image", "text"]
    assert json.loads(json.dumps(chat)) == chat
    before, _, after = texts(chat)
    assert "from worst to best: bad, poor, fair, good, excellent" in before
    assert after.index("a cat on a roof") < after.index("respond as a person")
    assert after.endswith("with one of: bad, poor, fair, good, excellent.")


def test_personas_of_a_picture_share_all_but_the_persona(question):
    one, other = texts(messages(question(0))), texts(messages(question(1)))
    assert one[0] == other[0]
    shared = one[2].index("respond as a person")
    assert one[2][:shared] == other[2][:shared]
    assert one[2] != other[2]


def test_neither_provider_nor_name_is_told(question):
    text = json.dumps(messages(question(5)))
    assert "p0" not in text
    assert "user 5" not in text


def test_the_order_of_labels_changes_only_the_last_sentence(question):
    assert label_orders(False) == ORDERS[:1]
    assert label_orders(True) == ORDERS
    first, second = (texts(messages(question(), order)) for order in ORDERS)
    assert second[2].endswith("with one of: excellent, good, fair, poor, bad.")
    assert first[0] == second[0]
    assert first[2].rsplit(":", 1)[0] == second[2].rsplit(":", 1)[0]


def test_every_wording_is_in_the_digest(monkeypatch):
    digest = template_digest()
    assert template_digest() == digest
    for name in ("setup_text", "request_text", "persona_request"):
        with monkeypatch.context() as patch:
            patch.setattr(prompting, name, lambda *args: "other words")
            assert template_digest.__wrapped__() != digest
