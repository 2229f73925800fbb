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
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Literal, NamedTuple, TypeAlias

from rlli_jax.errors import InputError
from rlli_jax.judges import JSON, USUAL, Form, Invalid, Question, Scale, named_scale
from rlli_jax.personas import Persona
from rlli_jax.personas.prompts import general_setup, persona_text

Messages: TypeAlias = list[dict[str, JSON]]
Sees: TypeAlias = Literal["picture", "description"]

NOT_DESCRIBED = Invalid("this judge reads descriptions, and the question has none")

# The general set-up always lists the labels from the worst. What changes with the order stands at
# the very end, so that the prompts of both orders share their prefix too.
ORDERS = ("worst first", "best first")


def label_orders(both: bool) -> tuple[str, ...]:
    """The orders in which a judge lists the labels: worst first, or both to average over them.

    Models favour labels for their place in a list; the mean over both orders is free of that.
    """
    return ORDERS if both else ORDERS[:1]


def orders_of(question: Question, both: bool) -> tuple[str, ...]:
    """The orders in which a question is asked by a judge that is set to ``both``."""
    return label_orders(both) if question.form.order is None else (question.form.order,)


def messages(question: Question, order: str = ORDERS[0]) -> Messages:
    """The chat messages of a question; ``{"type": "image"}`` is where its picture goes.

    ``order`` is one of ORDERS: how the labels are listed in the last sentence. With a description
    in place of the picture, and for all that shows none, all parts are text.
    """
    if question.form.asks == "statement":
        return statement_messages(question, order)
    if question.form.asks == "pair":
        return pair_messages(question, order)
    if question.form.asks == "plan":
        return plan_messages(question, order)
    shown: JSON = {"type": "image"}
    if question.description is not None:
        shown = _text(described(question.description))
    wording = WORDINGS[question.form.wording]
    content: list[JSON] = [
        _text(wording.setup(question.scale) + "\n\n"),
        shown,
        _text(wording.request(question) + wording.persona(question, order)),
    ]
    return [{"role": "user", "content": content}]


def shows_picture(question: Question) -> bool:
    """Whether the picture itself is sent: not in place of a description, nor with a statement."""
    return (
        question.picture is not None
        and question.description is None
        and question.form.asks == "picture"
    )


def is_text(chat: Messages) -> bool:
    """Whether there is no picture in the messages."""
    return all(part["type"] == "text" for m in chat for part in m["content"])  # type: ignore


def flat(chat: Messages) -> Messages:
    """The same messages with one text as content, which is what text models' templates take."""
    return [
        {**m, "content": "".join(part["text"] for part in m["content"])}  # type: ignore
        for m in chat
    ]


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


# Rendering takes a while and a table asks for the same few texts many times.
@lru_cache(maxsize=64)
def setup_text(scale: Scale) -> str:
    """How to rate on the scale: the same for all questions."""
    return general_setup(scale)


@lru_cache(maxsize=65536)
def _persona_text(persona: Persona) -> str:
    return persona_text(persona)


def described(description: str) -> str:
    """A description where a picture would be."""
    return f"The picture, described in words: {description}\n"


def request_text(question: Question) -> str:
    """What stands between picture and persona, the same for all personas."""
    return f"\nThis picture was made for the request: {question.request}\n\n"


def persona_request(question: Question, order: str) -> str:
    """Who is to rate, and the labels once more."""
    return (
        f"{_persona_text(question.persona)}\n\n"
        f"As this person, rate the picture with one of: {_labels(question.scale, order)}."
    )


def _labels(scale: Scale, order: str) -> str:
    return ", ".join(scale.labels if order == ORDERS[0] else scale.labels[::-1])


def statement_messages(question: Question, order: str) -> Messages:
    """Asks whether an item of a questionnaire, ``question.request``, describes the persona.

    The persona stands first, for many items are asked of one persona.
    """
    worst, best = question.scale.labels[0], question.scale.labels[-1]
    text = (
        f"{_persona_text(question.persona)}\n\n"
        "You are given a statement, and say how well it describes you, as this person. "
        f"{worst} means that it is wholly wrong of you, {best} that it is wholly right. Answer "
        "with exactly one of the labels and nothing else.\n\n"
        f"Statement: {question.request}\n\n"
        f"As this person, answer with one of: {_labels(question.scale, order)}."
    )
    return [{"role": "user", "content": [_text(text)]}]


ANYONE = Persona("anyone", (1.0, 2.0, 3.0, 4.0, 5.0))  # of whom a wording is hashed
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PAIR_SCALE = Scale("pair", ("second", "first"), 0.0, 1.0)
"""The expected rating is the probability that the picture shown first is preferred."""


def pair_question(persona: Persona, request: str, first: str, second: str) -> Question:
    """Which of two described pictures, shown in this order, does the persona prefer?

    Both descriptions are shown as one text, so the key knows what is shown and in which order.
    """
    shown = f"The first picture, described in words: {first}\n"
    shown += f"The second picture, described in words: {second}\n"
    return Question(persona, request, "", None, PAIR_SCALE, 0, shown, Form("pair"))


def pair_messages(question: Question, order: str) -> Messages:
    """Asks which of the two pictures of :func:`pair_question` the persona prefers.

    The persona stands last, for many personas are asked about one pair.
    """
    first, second = question.scale.labels[::-1]
    text = (
        "People with different personalities can like the same picture quite differently. You are "
        "shown two pictures in words, take the part of a person whose personality is described "
        "below, and say which of the two that person prefers: by that person's own taste, not by "
        f"what people like on average. Answer with {first} or {second} and nothing else.\n\n"
        f"{question.description}"
        f"\nBoth pictures were made for the request: {question.request}\n\n"
        f"{_persona_text(question.persona)}\n\n"
        "As this person, say which picture you prefer, with one of: "
        f"{_labels(question.scale, order)}."
    )
    return [{"role": "user", "content": [_text(text)]}]


def plan_question(situation: str, question: str, goals: Sequence[str]) -> Question:
    """Which of some goals is next in a situation? Goals are shown by letters, so that no label
    begins another; the rating is the number of the letter. No persona is told.

    Raises:
        InputError: more goals than letters, or fewer than two.
    """
    if not 2 <= len(goals) <= len(LETTERS):
        raise InputError(
            f"{len(goals)} goals cannot be asked for by letters; give 2 to {len(LETTERS)}."
        )
    letters = tuple(LETTERS[: len(goals)])
    scale = Scale("goals", letters, 0.0, len(goals) - 1.0)
    shown = "".join(f"{letter}: {goal}\n" for letter, goal in zip(letters, goals, strict=True))
    request = f"{situation}\n{question}\n"
    return Question(ANYONE, request, "", None, scale, 0, shown, Form("plan"))


def plan_messages(question: Question, order: str) -> Messages:
    """Asks for a goal, see :func:`plan_question`."""
    text = (
        f"{question.request}{question.description}"
        f"Answer with one letter and nothing else: {_labels(question.scale, order)}."
    )
    return [{"role": "user", "content": [_text(text)]}]


def _paraphrased_setup(scale: Scale) -> str:
    return (
        "Tastes differ with personality. You play somebody whose personality you are told, look at "
        "a picture through that person's eyes and grade it by that person's liking. Grades go "
        f"from {scale.labels[0]} (lowest) to {scale.labels[-1]} (highest), with nothing else "
        f"allowed than: {', '.join(scale.labels)}."
    )


def _paraphrased_request(question: Question) -> str:
    return f"\nSomebody had asked for: {question.request}\n\n"


def _paraphrased_persona(question: Question, order: str) -> str:
    return (
        f"{_persona_text(question.persona)}\n\n"
        "Being that person, give the picture a single grade, one of: "
        f"{_labels(question.scale, order)}."
    )


class _Wording(NamedTuple):
    setup: Callable[[Scale], str]
    request: Callable[[Question], str]
    persona: Callable[[Question, str], str]


# The usual one looks its functions up when it is used.
WORDINGS = {
    "usual": _Wording(
        lambda scale: setup_text(scale),
        lambda question: request_text(question),
        lambda question, order: persona_request(question, order),
    ),
    "paraphrase": _Wording(_paraphrased_setup, _paraphrased_request, _paraphrased_persona),
}


@cache
def template_digest(sees: Sees = "picture") -> str:
    """A hash of the wording, for the identity of judges that use it: a new wording, a new key.

    It covers this module and the general set-up; the text of a persona is part of each question.
    """
    return _digest(USUAL, "description" if sees == "description" else None)


@cache
def form_digest(form: Form) -> str:
    """A hash of the wording of a form, for the keys of questions that are put so."""
    if form.asks == "pair":
        return _digest_of(pair_question(ANYONE, "request", "one", "other"))
    if form.asks == "plan":
        return _digest_of(plan_question("situation", "question", ("one", "other")))
    return _digest(form, None)


def _digest(form: Form, description: str | None) -> str:
    scale = named_scale("adjectives")
    probe = Question(ANYONE, "request", "provider", None, scale, 0, description, form)
    return _digest_of(probe)


def _digest_of(probe: Question) -> str:
    text = json.dumps([messages(probe, order) for order in ORDERS])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
