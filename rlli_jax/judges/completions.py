"""The chat completions protocol of OpenAI and its likes, without the network.

:class:`Completions` turns a question into request bodies and a response body into an answer. The
judge that asks a server and the files of batch services both speak through it, so that an answer
is the same whichever way it came.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, get_args

from PIL import Image

from rlli_jax.catalog import Picture
from rlli_jax.catalog.pictures import shrink
from rlli_jax.errors import InputError, shown
from rlli_jax.judges import JSON, Answer, Failed, Invalid, Question, Scale, Usage
from rlli_jax.judges.prompting import (
    Sees,
    flat,
    is_text,
    label_orders,
    messages,
    orders_of,
    shows_picture,
    template_digest,
)
from rlli_jax.judges.refusals import (
    FILTER_REFUSED,
    FILTERED,
    RAW_LIMIT,
    error_in,
    refused,
)
from rlli_jax.judges.scoring import (
    MIN_VALID_MASS,
    averaged,
    expected_answer,
    folded,
    likely_tokens,
    listed_probabilities,
    spaced,
    text_answer,
)

Scoring = Literal["auto", "logprobs", "text"]

# How models mark the end and the beginning of their reasoning where a server leaves it in.
REASONED = re.compile(
    r"</(think|thinking|thought|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.I
)
REASONING = re.compile(
    r"\s*(<(think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>analysis)", re.I
)
NO_REASONING = "turn the model's reasoning off by judge.extra"

RANGES = {
    "model": "name the model",
    "scoring": "choose 'auto', 'logprobs' or 'text'",
    "temperature": "give a number from 0, or none to leave it to the server",
    "max_tokens": "give a number from 1, or none to leave it out",
    "longest_side": "give a number of pixels from 1, or none to send pictures as they are",
    "sees": "choose 'picture' or 'description'",
    "extra": "leave stream out, for answers are read whole",
    "top_logprobs": "give a number from 1 to 20",
    "min_valid_mass": "give a number from 0 to 1",
    "price_in": "give the price of a million tokens, from 0",
    "price_out": "give the price of a million tokens, from 0",
}

PLACE = "data:place-of-the-picture"

# What tells vLLM and its likes to go on from a last message of the assistant; llama.cpp does so
# anyhow.
CONTINUED: Mapping[str, JSON] = {"continue_final_message": True, "add_generation_prompt": False}


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
    max_tokens: int | None = 16  # None: not sent, the server decides
    top_logprobs: int = 20
    seed: int | None = None  # sample i is asked with seed + i; None: not sent
    both_orders: bool = False
    longest_side: int | None = None  # pixels; larger pictures are scaled down to it
    min_valid_mass: float = MIN_VALID_MASS
    sees: Sees = "picture"  # or descriptions, for models that only read
    prefill: str = ""  # how the answer begins; the server must be able to go on from it
    extra: Mapping[str, JSON] = field(default_factory=dict)  # further fields of the request body
    price_in: float | None = None  # money for a million prompt tokens; changes no answer
    price_out: float | None = None  # money for a million answer tokens

    def __post_init__(self) -> None:
        for name, given, legal in (
            ("model", self.model, bool(self.model)),
            ("scoring", self.scoring, self.scoring in get_args(Scoring)),
            ("temperature", self.temperature, self.temperature is None or self.temperature >= 0),
            ("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1),
            ("longest_side", self.longest_side, self.longest_side is None or self.longest_side > 0),
            ("sees", self.sees, self.sees in get_args(Sees)),
            ("extra", self.extra, not self.extra.get("stream")),
            ("top_logprobs", self.top_logprobs, 1 <= self.top_logprobs <= 20),
            ("min_valid_mass", self.min_valid_mass, 0 <= self.min_valid_mass <= 1),
            ("price_in", self.price_in, self.price_in is None or self.price_in >= 0),
            ("price_out", self.price_out, self.price_out is None or self.price_out >= 0),
        ):
            if not legal:
                raise InputError(f"openai judge: {name} is {shown(given)}; {RANGES[name]}.")

    def parameters(self) -> dict[str, JSON]:
        """All of the above that changes an answer, for the judge's identity."""
        # Absent if not set: answers of before these options keep their keys.
        set_only: dict[str, JSON] = {}
        if self.longest_side is not None:
            set_only["longest_side"] = self.longest_side
        if self.sees != "picture":
            set_only["sees"] = self.sees
        if self.prefill:
            set_only["prefill"] = self.prefill
        return {
            "model": self.model,
            "revision": self.revision,
            "template": template_digest(self.sees),
            "scoring": self.scoring,
            "label_orders": list(label_orders(self.both_orders)),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_logprobs": self.top_logprobs if self.scoring == "logprobs" else None,
            "seed": self.seed,
            "min_valid_mass": self.min_valid_mass if self.scoring == "logprobs" else None,
            "extra": dict(self.extra),
            **set_only,
        }

    @property
    def most_tokens(self) -> int | None:
        """The longest answer that is asked for, under whichever name; None if that is open."""
        limits = (self.max_tokens, self.extra.get("max_completion_tokens"))
        return next((n for n in limits if isinstance(n, int)), None)

    def bodies(self, question: Question) -> list[dict[str, JSON]]:
        """The request bodies of a question that shows something, one for each label order."""
        if not shows_picture(question):
            return self._bodies(question, None)
        assert question.picture is not None
        return self._bodies(question, _image(data_url(question.picture, self.longest_side)))

    def _bodies(self, question: Question, image: JSON) -> list[dict[str, JSON]]:
        return [
            self.body(_with_image(messages(question, order), image), question.sample)
            for order in orders_of(question, self.both_orders)
        ]

    def payloads(self, question: Question) -> list[bytes]:
        """The request bodies as JSON in UTF-8. Only a picture's first question encodes it, which
        else would take longer than all that a client does."""
        if not shows_picture(question):
            return [json.dumps(body).encode() for body in self._bodies(question, None)]
        assert question.picture is not None
        place, url = json.dumps(PLACE).encode(), quoted_url(question.picture, self.longest_side)
        return [
            # The picture stands before all that a question adds, so the first place is its own.
            json.dumps(body).encode().replace(place, url, 1)
            for body in self._bodies(question, _image(PLACE))
        ]

    def body(self, chat: JSON, sample: int = 0) -> dict[str, JSON]:
        """The request body of chat messages; content without a picture is one text, as text
        models' templates take it."""
        assert isinstance(chat, list)
        if not any(isinstance(m["content"], str) for m in chat) and is_text(chat):
            chat = flat(chat)
        body: dict[str, JSON] = {"model": self.model, "messages": chat}
        if self.prefill:
            body["messages"] = [*chat, {"role": "assistant", "content": self.prefill}]
            body |= CONTINUED
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
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
        failure = error_in(body)
        if failure is not None:
            return refused(*failure)
        try:
            usage = self._usage(body.get("usage") or {}, seconds)
            said = _Said.of(body["choices"][0])
            if said.filtered or said.refusal:
                reason = "the model refused to answer" if said.refusal else FILTER_REFUSED
                return Invalid(reason, (said.refusal or said.text or "")[:RAW_LIMIT], usage)
            if said.text is None and not said.logprobs and not said.reasoned:
                return Failed("the server's answer is empty: it has no content", usage)
            return self._rated(said, question.scale, usage)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
            return Failed("the server's answer is not a chat completion")

    def _rated(self, said: _Said, scale: Scale, usage: Usage) -> Answer:
        raw = (said.text or "")[:RAW_LIMIT]
        if said.reasoned and not said.answer.strip():
            return Invalid(self._cut_off("in its reasoning", f", or {NO_REASONING}"), raw, usage)
        if self.scoring == "text":
            # Some servers repeat the beginning that they went on from.
            text = said.answer.removeprefix(self.prefill)
            answer = text_answer(scale, text, usage)
            cut_off = said.cut_off and (isinstance(answer, Invalid) or said.may_go_on(scale))
            return Invalid(self._cut_off(), raw, usage) if cut_off else replace(answer, raw=raw)
        if not said.logprobs:
            reason = "the server gave no log-probabilities; choose scoring 'text'"
            return Invalid(reason, raw, usage)
        start = said.start
        if start is None:
            return Invalid(
                "the log-probabilities begin with the model's reasoning, and its answer is not "
                f"found in them; {NO_REASONING}, or choose scoring 'text'",
                raw,
                usage,
            )
        listed = listed_probabilities(scale, said.logprobs[start:], not said.cut_off)
        rated = expected_answer(
            scale, listed.probabilities, self.min_valid_mass, said.answer[:RAW_LIMIT], usage,
            likely_tokens(said.logprobs[start]),
        )  # fmt: skip
        unclear = listed.unclear(scale)
        if not unclear:
            return rated
        return Invalid(self._cut_off() if said.cut_off else unclear, rated.raw, usage)

    def _cut_off(self, where: str = "before its end", also: str = "") -> str:
        now = "" if self.most_tokens is None else f" (now {self.most_tokens})"
        elsewhere = self.max_tokens is None and self.most_tokens is not None
        key = "judge.extra.max_completion_tokens" if elsewhere else "judge.max_tokens"
        return f"the answer was cut off {where}; raise {key}{now}{also}"

    def _usage(self, usage: Mapping[str, Any], seconds: float | None) -> Usage:
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Usage(tokens_in, tokens_out, self.cost(tokens_in, tokens_out), seconds)

    def cost(self, tokens_in: int | None, tokens_out: int | None) -> float | None:
        """What so many tokens cost, or None if a number or a price is unknown."""
        if None in (tokens_in, tokens_out, self.price_in, self.price_out):
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6  # type: ignore[operator]


@dataclass(frozen=True)
class _Said:
    """What one choice of a chat completion says, however the server puts it."""

    text: str | None  # the content; None if there is none
    reasoning: bool  # the server tells of reasoning apart from the content
    refusal: str
    finish: str
    logprobs: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> _Said:
        message = choice.get("message") or {}
        finish = str(choice.get("finish_reason") or "").lower()
        if not message and finish not in FILTERED:
            raise ValueError("a choice has no message")
        content = message.get("content")
        parts: list[Any] = content if isinstance(content, list) else [content or ""]
        kinds = [part.get("type") if isinstance(part, dict) else "text" for part in parts]
        texts = [
            part if isinstance(part, str) else str(part.get("text") or "")
            for part, kind in zip(parts, kinds, strict=True)
            if kind in ("text", "output_text")
        ]
        refusals = [part.get("refusal") or "" for part in parts if isinstance(part, dict)]
        return cls(
            text=None if content is None else "".join(texts),
            reasoning=any(message.get(key) for key in ("reasoning_content", "reasoning"))
            or any(kind in ("thinking", "reasoning") for kind in kinds),
            refusal=str(message.get("refusal") or "".join(refusals)),
            finish=finish,
            logprobs=(choice.get("logprobs") or {}).get("content") or (),
        )

    @property
    def filtered(self) -> bool:
        return self.finish in FILTERED

    @property
    def cut_off(self) -> bool:
        return self.finish in ("length", "max_tokens")

    def may_go_on(self, scale: Scale) -> bool:
        """Whether a label goes on from the answer, which may have been cut off."""
        answer = folded(self.answer)
        labels = [folded(label) for label in scale.labels]
        return any(label != answer and label.startswith(answer) for label in labels)

    @property
    def answer(self) -> str:
        """The content behind the reasoning; empty if the reasoning has no end."""
        text = REASONED.split(self.text or "")[-1]
        return "" if REASONING.match(text) else text

    @property
    def reasoned(self) -> bool:
        """Whether there is reasoning, inside the content or apart from it."""
        text = self.text or ""
        return self.reasoning or bool(REASONED.search(text) or REASONING.match(text))

    @property
    def start(self) -> int | None:
        """Where in ``logprobs`` the answer begins; None if it begins after reasoning, and where
        is not known."""
        tokens = [spaced(str(position["token"])) for position in self.logprobs]
        while tokens and (not tokens[-1].strip() or re.fullmatch(r"<.*>", tokens[-1])):
            tokens.pop()
        text, wanted = "".join(tokens).rstrip(), self.answer.strip()
        places = list(accumulate(map(len, tokens), initial=0))  # of the tokens in the text
        if wanted and text.endswith(wanted):
            begin = len(text) - len(wanted)
            fitting = [
                i for i, at in enumerate(places) if not text[at:begin].strip() and at <= begin
            ]
            if fitting:
                return 0 if fitting[0] == 0 else fitting[-1]
        reasoned = list(REASONED.finditer(text))
        if reasoned:
            return next(i for i, at in enumerate(places) if at >= reasoned[-1].end())
        begins_so = self.reasoned or bool(REASONING.match(text))
        return None if begins_so else 0


def _image(url: str) -> JSON:
    return {"type": "image_url", "image_url": {"url": url}}


def _with_image(chat: JSON, image: JSON) -> JSON:
    """The messages with ``image`` in the place of ``{"type": "image"}``."""
    if isinstance(chat, list):
        return [_with_image(part, image) for part in chat]
    if isinstance(chat, dict):
        if chat.get("type") == "image":
            return image
        return {key: _with_image(value, image) for key, value in chat.items()}
    return chat


@lru_cache(maxsize=64)
def quoted_url(picture: Picture, longest_side: int | None = None) -> bytes:
    """:func:`data_url` as a JSON string."""
    return f'"{data_url(picture, longest_side)}"'.encode()


# A table asks of one picture once for each persona, and encoding takes longer than sending.
@lru_cache(maxsize=64)
def data_url(picture: Picture, longest_side: int | None = None) -> str:
    """The picture as a PNG in a data URL, scaled down to ``longest_side`` if that is given."""
    buffer = io.BytesIO()
    pixels = picture.pixels if longest_side is None else shrink(picture.pixels, longest_side)
    # The lightest compression: encoding is then fast, and the pixels are the same.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
