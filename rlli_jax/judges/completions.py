"""The chat completions protocol of OpenAI and its likes, without the network.

:class:`Completions` turns a question into request bodies and a response body into an answer. The
judge that asks a server and the files of batch services both speak through it, so that an answer
is the same whichever way it came.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

from PIL import Image

from rlli_jax.catalog import Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import JSON, Answer, Failed, Invalid, Question, Usage
from rlli_jax.judges.prompting import label_orders, messages, template_digest
from rlli_jax.judges.scoring import (
    MIN_VALID_MASS,
    averaged,
    expected_answer,
    listed_probabilities,
    text_answer,
)

Scoring = Literal["auto", "logprobs", "text"]

# What servers call a request whose content their filter refuses.
CONTENT_FILTERS = ("content_filter", "content_policy_violation")

RANGES = {
    "model": "name the model",
    "scoring": "choose 'auto', 'logprobs' or 'text'",
    "temperature": "give a number from 0, or none to leave it to the server",
    "max_tokens": "give a number from 1",
    "top_logprobs": "give a number from 1 to 20",
    "min_valid_mass": "give a number from 0 to 1",
    "price_in": "give the price of a million tokens, from 0",
    "price_out": "give the price of a million tokens, from 0",
}

PLACE = "data:place-of-the-picture"

RAW_LIMIT = 10_000  # characters of an answer that are kept; a label needs far fewer


@dataclass(frozen=True)
class Completions:
    """How to ask and how to read: all that may change an answer of an OpenAI-compatible server.

    ``scoring``: "logprobs" weights the labels by the server's log-probabilities; "text" reads one
    label, and is for repeated samples at a temperature above 0; "auto" leaves it to the judge to
    find out what its server can do, and must be settled before anything is asked.

    Raises:
        InputError: no model, or a number out of its range.
    """

    model: str
    scoring: Scoring = "auto"
    revision: str | None = None  # told apart by it: servers that serve one name differently
    temperature: float | None = 0.0  # None: not sent, the server decides
    max_tokens: int = 16
    top_logprobs: int = 20
    seed: int | None = None  # sample i is asked with seed + i; None: not sent
    both_orders: bool = False
    min_valid_mass: float = MIN_VALID_MASS
    extra: Mapping[str, JSON] = field(default_factory=dict)  # further fields of the request body
    price_in: float | None = None  # money for a million prompt tokens; changes no answer
    price_out: float | None = None  # money for a million answer tokens

    def __post_init__(self) -> None:
        for name, given, legal in (
            ("model", self.model, bool(self.model)),
            ("scoring", self.scoring, self.scoring in get_args(Scoring)),
            ("temperature", self.temperature, self.temperature is None or self.temperature >= 0),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1),
            ("top_logprobs", self.top_logprobs, 1 <= self.top_logprobs <= 20),
            ("min_valid_mass", self.min_valid_mass, 0 <= self.min_valid_mass <= 1),
            ("price_in", self.price_in, self.price_in is None or self.price_in >= 0),
            ("price_out", self.price_out, self.price_out is None or self.price_out >= 0),
        ):
            if not legal:
                raise InputError(f"openai judge: {name} is {given!r}; {RANGES[name]}.")

    def parameters(self) -> dict[str, JSON]:
        """All of the above that changes an answer, for the judge's identity."""
        return {
            "model": self.model,
            "revision": self.revision,
            "template": template_digest(),
            "scoring": self.scoring,
            "label_orders": list(label_orders(self.both_orders)),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_logprobs": self.top_logprobs if self.scoring == "logprobs" else None,
            "seed": self.seed,
            "min_valid_mass": self.min_valid_mass if self.scoring == "logprobs" else None,
            "extra": dict(self.extra),
        }

    def bodies(self, question: Question) -> list[dict[str, JSON]]:
        """The request bodies of a question that has a picture, one for each label order."""
        assert question.picture is not None
        image: JSON = {"type": "image_url", "image_url": {"url": data_url(question.picture)}}
        return self._bodies(question, image)

    def _bodies(self, question: Question, image: JSON) -> list[dict[str, JSON]]:
        return [
            self._body(_with_image(messages(question, order), image), question.sample)
            for order in label_orders(self.both_orders)
        ]

    def payloads(self, question: Question) -> list[bytes]:
        """The request bodies as JSON in UTF-8. Only a picture's first question encodes it, which
        else would take longer than all that a client does."""
        assert question.picture is not None
        image: JSON = {"type": "image_url", "image_url": {"url": PLACE}}
        place, url = json.dumps(PLACE).encode(), quoted_url(question.picture)
        return [
            # The picture stands before all that a question adds, so the first place is its own.
            json.dumps(body).encode().replace(place, url, 1)
            for body in self._bodies(question, image)
        ]

    def _body(self, chat: JSON, sample: int) -> dict[str, JSON]:
        body: dict[str, JSON] = {
            "model": self.model,
            "messages": chat,
            "max_tokens": self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed + sample
        if self.scoring == "logprobs":
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body | dict(self.extra)

    def answer(self, bodies: Sequence[Any], question: Question, seconds: float | None) -> Answer:
        """The answer in the response bodies, one for each label order."""
        return averaged([self._read(body, question, seconds) for body in bodies])

    def _read(self, body: Any, question: Question, seconds: float | None) -> Answer:
        try:
            usage = self._usage(body.get("usage") or {}, seconds)
            choice = body["choices"][0]
            text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
            logprobs = (choice.get("logprobs") or {}).get("content")
            raw = str(text or "")[:RAW_LIMIT]
            if refusal or choice.get("finish_reason") == "content_filter":
                return Invalid(
                    "the model refused to answer", str(refusal or raw)[:RAW_LIMIT], usage
                )
            if self.scoring == "text":
                return text_answer(question.scale, raw, usage)
            if not logprobs:
                return Invalid(
                    "the server gave no log-probabilities; choose scoring 'text'", raw, usage
                )
            probabilities = listed_probabilities(question.scale, logprobs)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
            return Failed("the server's answer is not a chat completion")
        return expected_answer(question.scale, probabilities, self.min_valid_mass, raw, usage)

    def _usage(self, usage: Mapping[str, Any], seconds: float | None) -> Usage:
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Usage(tokens_in, tokens_out, self.cost(tokens_in, tokens_out), seconds)

    def cost(self, tokens_in: int | None, tokens_out: int | None) -> float | None:
        """What so many tokens cost, or None if a number or a price is unknown."""
        if None in (tokens_in, tokens_out, self.price_in, self.price_out):
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6  # type: ignore[operator]


def _with_image(chat: JSON, image: JSON) -> JSON:
    """The messages with ``image`` in the place of ``{"type": "image"}``."""
    if isinstance(chat, list):
        return [_with_image(part, image) for part in chat]
    if isinstance(chat, dict):
        if chat.get("type") == "image":
            return image
        return {key: _with_image(value, image) for key, value in chat.items()}
    return chat


def refused(status: int, body: Any) -> Invalid | Failed:
    """The answer to a question whose request was refused with an HTTP status and a body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    if isinstance(error, dict) and error.get("code") in CONTENT_FILTERS:
        return Invalid("the server's content filter refused the question", str(message)[:RAW_LIMIT])
    return Failed(f"the server answered with status {status}: {str(message)[:300]}")


@lru_cache(maxsize=64)
def quoted_url(picture: Picture) -> bytes:
    """:func:`data_url` as a JSON string."""
    return f'"{data_url(picture)}"'.encode()


# A table asks of one picture once for each persona, and encoding takes longer than sending.
@lru_cache(maxsize=64)
def data_url(picture: Picture) -> str:
    """The picture as a PNG in a data URL."""
    buffer = io.BytesIO()
    # The lightest compression: encoding is then fast, and the pixels are the same.
    Image.fromarray(picture.pixels).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
