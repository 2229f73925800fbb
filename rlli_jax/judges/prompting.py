"""What a language model is asked: one chat message with a picture, as plain data.

What all questions share stands first (how to rate), then the picture and its request, and the
persona last. So the personas who look at one picture share a long prefix, which a judge in process
computes once and a server keeps in its prefix cache. Everything is one user message, because some
chat templates refuse a system message and others move it. The provider is not named: the model
rates the picture and not a brand.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache, lru_cache
from typing import TypeAlias

from rlli_jax.judges import JSON, Question, Scale, named_scale
from rlli_jax.personas import Persona
from rlli_jax.personas.prompts import general_setup, persona_text

Messages: TypeAlias = list[dict[str, JSON]]

# The general set-up always lists the labels from the worst. What changes with the order stands at
# the very end, so that the prompts of both orders share their prefix too.
ORDERS = ("worst first", "best first")


def label_orders(both: bool) -> tuple[str, ...]:
    """The orders in which a judge lists the labels: worst first, or both to average over them.

    Models favour labels for their place in a list; the mean over both orders is free of that.
    """
    return ORDERS if both else ORDERS[:1]


def messages(question: Question, order: str = ORDERS[0]) -> Messages:
    """The chat messages of a question; ``{"type": "image"}`` is where its picture goes.

    ``order`` is one of ORDERS: how the labels are listed in the last sentence.
    """
    content: list[JSON] = [
        {"type": "text", "text": setup_text(question.scale) + "\n\n"},
        {"type": "image"},
        {"type": "text", "text": request_text(question) + persona_request(question, order)},
    ]
    return [{"role": "user", "content": content}]


def request_text(question: Question) -> str:
    """What stands between picture and persona, the same for all personas."""
    return f"\nThis picture was made for the request: {question.request}\n\n"


def persona_request(question: Question, order: str) -> str:
    """Who is to rate, and the labels once more."""
    labels = question.scale.labels if order == ORDERS[0] else question.scale.labels[::-1]
    return (
        f"{_persona_text(question.persona)}\n\n"
        f"As this person, rate the picture with one of: {', '.join(labels)}."
    )


@cache
def template_digest() -> str:
    """A hash of the wording, for the identity of judges that use it: a new wording, a new key.

    It covers this module and the general set-up; the text of a persona is part of each question.
    """
    persona = Persona("anyone", (1.0, 2.0, 3.0, 4.0, 5.0))
    probe = Question(persona, "request", "provider", None, named_scale("adjectives"))
    text = json.dumps([messages(probe, order) for order in ORDERS])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Rendering takes a while and a table asks for the same few texts many times.
@lru_cache(maxsize=64)
def setup_text(scale: Scale) -> str:
    """How to rate on the scale: the same for all questions."""
    return general_setup(scale)


@lru_cache(maxsize=65536)
def _persona_text(persona: Persona) -> str:
    return persona_text(persona)
