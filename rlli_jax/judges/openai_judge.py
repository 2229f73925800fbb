"""A judge behind any OpenAI-compatible server: vLLM, ``transformers serve``, hosted services.

What changes an answer is in :class:`~rlli_jax.judges.completions.Completions`; what is here only
decides how fast and how stubbornly the server is asked, and is no part of the judge's identity.
Nor is the server's address: the same model elsewhere gives the same answers. Where it does not
(another quantisation under one name), ``Completions.revision`` tells them apart.

The key comes from the environment and goes nowhere but to the server.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, JudgeIdentity, Question, Rated, Usage
from rlli_jax.judges.completions import Completions, refused
from rlli_jax.judges.prompting import label_orders, persona_request, request_text, setup_text

if TYPE_CHECKING:
    from openai import OpenAI

RETRIED = (408, 409, 425, 429)  # and all from 500
HOPELESS = (401, 403, 404)  # every other question would meet the same
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds of backoff, doubled from try to try
LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more has run out of quota
LARGEST_REPLY = 4 * 2**20  # bytes; a rating needs a few thousand
CHARACTERS_PER_TOKEN = 4  # of English, by the usual rule of thumb


@dataclass(frozen=True)
class Limits:
    """How a server may be asked. None is no limit."""

    concurrency: int = 16  # requests at a time
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None  # prompt and answer, as estimated before asking
    timeout: float = 60.0  # seconds that a whole reply may take
    retries: int = 6  # after the first try

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"openai judge: {name} is {value}; give a number above 0.")
        if self.retries < 0:
            raise InputError(f"openai judge: retries is {self.retries}; give a number from 0.")


class OpenAIJudge:
    """Asks an OpenAI-compatible server, many questions at a time.

    Args:
        completions: the model, and how to ask and read. Where its ``scoring`` is "auto", the
            server is asked once, before the identity is known, whether it gives log-probabilities.
        base_url: of the server, with its ``/v1``; None is OpenAI's own.
        key_variable: the environment variable that holds the key. A server at ``base_url`` may
            need none.
        limits: how it may be asked.
        image_tokens: tokens of a picture, for estimates only (LLaVA-1.5: 576).

    Raises:
        InputError: openai is not installed, or there is no key for OpenAI's own server.
    """

    def __init__(
        self,
        completions: Completions,
        *,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        limits: Limits | None = None,
        image_tokens: int = 576,
    ) -> None:
        if find_spec("openai") is None:
            raise InputError("openai judge: the package openai is missing; install rlli_jax[llm].")
        self._given = completions
        self._base_url, self._limits = base_url, limits or Limits()
        self._image_tokens = image_tokens
        self._key = os.environ.get(key_variable, "")
        if not self._key and base_url is None:
            raise InputError(
                f"openai judge: the environment variable {key_variable} holds no key; set it, or "
                "give the base_url of a server that needs none."
            )
        self._pace = Pace(self._limits)

    @cached_property
    def completions(self) -> Completions:
        """How the server is asked; with scoring "auto" it is asked first what it can do."""
        if self._given.scoring != "auto":
            return self._given
        given = replace(self._given, scoring="logprobs")
        body: dict[str, Any] = {
            "model": given.model,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": given.max_tokens,
            "logprobs": True,
            "top_logprobs": 1,
            **given.extra,
        }
        try:
            status, reply = self._post(json.dumps(body).encode(), 1)
        except _GaveUpError as error:
            raise InputError(
                f"openai judge: the server at {self._where} does not answer ({error}); start it, "
                "or name the scoring, 'logprobs' or 'text'."
            ) from None
        if status in (400, 422):  # it refuses the question for log-probabilities
            return replace(given, scoring="text")
        if status != 200:
            answer = refused(status, reply)
            raise InputError(
                f"openai judge: asked whether it gives log-probabilities, the server at "
                f"{self._where} refused ({self._scrubbed(answer.reason)}); "
                "correct the model, the base_url or the key."
            )
        try:
            has_logprobs = bool(reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"])
        except (KeyError, IndexError, TypeError):
            has_logprobs = False
        return replace(given, scoring="logprobs" if has_logprobs else "text")

    @cached_property
    def identity(self) -> JudgeIdentity:
        """The model and how it is asked; neither the server nor the key."""
        return JudgeIdentity("openai", self.completions.parameters())

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer to each question, in order. Whatever the server does, it never raises.

        Questions of one picture follow each other, so that a server with a prefix cache has it at
        hand. After a refusal that all questions would meet (a wrong key, say), and when as many
        questions as are asked at a time have failed in a row, the others are Failed unasked.
        """
        answers: list[Answer] = [Invalid("no picture")] * len(questions)
        asked = [i for i, q in enumerate(questions) if q.picture is not None]
        asked.sort(key=lambda i: (questions[i].picture.digest, questions[i].request))  # type: ignore[union-attr]
        run = _Run(self._limits.concurrency)
        with ThreadPoolExecutor(self._limits.concurrency, "openai-judge") as pool:
            try:
                rated = pool.map(lambda i: self._rate(questions[i], run), asked)
                for i, answer in zip(asked, rated, strict=True):
                    answers[i] = answer
            except BaseException:
                run.stop = "interrupted"
                pool.shutdown(cancel_futures=True)
                raise
        return answers

    def expected_usage(self, question: Question) -> Usage:
        """Tokens and cost at a guess: characters / 4, ``image_tokens``, and the longest answer."""
        if question.picture is None:
            return Usage(0, 0, 0.0, 0.0)
        completions = self._given
        orders = label_orders(completions.both_orders)
        tokens_in = len(orders) * self._image_tokens + sum(
            math.ceil(len(text) / CHARACTERS_PER_TOKEN)
            for order in orders
            for text in (
                setup_text(question.scale),
                request_text(question),
                persona_request(question, order),
            )
        )
        tokens_out = len(orders) * completions.max_tokens
        return Usage(tokens_in, tokens_out, completions.cost(tokens_in, tokens_out))

    def _rate(self, question: Question, run: _Run) -> Answer:
        started = time.monotonic()
        replies = []
        usage = self.expected_usage(question)
        tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        bodies = self.completions.payloads(question)
        for body in bodies:
            if run.stop:
                return Failed(f"not asked: {run.stop}")
            try:
                status, reply = self._post(body, tokens // len(bodies))
            except _GaveUpError as error:
                run.failed(str(error))
                return Failed(str(error))
            if status != 200:
                answer = self._clean(refused(status, reply))
                if status in HOPELESS or status == 429:
                    run.stop = answer.reason if isinstance(answer, Failed) else ""
                return answer
            run.answered()
            replies.append(reply)
        seconds = time.monotonic() - started
        return self._clean(self.completions.answer(replies, question, seconds))

    def _post(self, body: bytes, tokens: int) -> tuple[int, Any]:
        """Status and body of the server's reply, after as many tries as it takes.

        Raises:
            _GaveUpError: there was no usable reply in all tries.
        """
        import openai

        client, reason = self._client, ""
        for attempt in range(self._limits.retries + 1):
            self._pace.wait(tokens)
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                return 200, json.loads(self._read(client, body))
            except openai.APIStatusError as error:
                if not _worth_retrying(error):
                    return error.status_code, error.body
                reason = refused(error.status_code, error.body).reason
                after = retry_after(error.response.headers)
                if after is not None and after > LONGEST_RETRY_AFTER:
                    reason = f"{reason}; it asks to come back in {after:.0f} s"
                    break
                if after is not None:
                    self._pace.pause(after)
                    wait = after * random.uniform(1.0, 1.1)
            except json.JSONDecodeError:
                reason = "the server's answer is not whole JSON"
            except _UnusableError as error:
                reason = str(error)
            except Exception as error:  # the layers of a connection raise errors of many kinds
                reason = f"no answer from the server: {type(error).__name__}: {error}"
            if attempt < self._limits.retries:
                time.sleep(wait)
        raise _GaveUpError(self._scrubbed(reason))

    def _read(self, client: OpenAI, body: bytes) -> bytes:
        """The bytes of one reply, of bounded size and in bounded time."""
        deadline = time.monotonic() + self._limits.timeout
        reply = bytearray()
        # As client.chat.completions.with_streaming_response does, for a body that is JSON already.
        headers = {"Content-Type": "application/json", "X-Stainless-Raw-Response": "stream"}
        response: Any = client.post(
            "/chat/completions", cast_to=object, content=body, options={"headers": headers}
        )
        with closing(response):
            for chunk in response.iter_bytes():
                reply += chunk
                if len(reply) > LARGEST_REPLY:
                    raise _UnusableError(f"the answer is larger than {LARGEST_REPLY:,} bytes")
                if time.monotonic() > deadline:
                    raise _UnusableError(f"no whole answer in {self._limits.timeout:g} s")
        return bytes(reply)

    @cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            timeout=self._limits.timeout,
            max_retries=0,
        )

    @property
    def _where(self) -> str:
        return self._base_url or "api.openai.com"

    def _scrubbed(self, text: str) -> str:
        """Servers and clients quote what they were sent."""
        return text.replace(self._key, "***") if self._key else text

    def _clean(self, answer: Answer) -> Answer:
        if isinstance(answer, Rated):
            return replace(answer, raw=self._scrubbed(answer.raw))
        reason = self._scrubbed(answer.reason)
        if isinstance(answer, Invalid):
            return replace(answer, reason=reason, raw=self._scrubbed(answer.raw))
        return replace(answer, reason=reason)


class Pace:
    """Spreads requests evenly over the minute, under its limits; safe between threads."""

    def __init__(self, limits: Limits) -> None:
        self._request = 60 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._token = 60 / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self._next = 0.0  # when the next request may go
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Sleep until a request of so many tokens may go."""
        if seconds := self.reserve(time.monotonic(), tokens):
            time.sleep(seconds)

    def reserve(self, now: float, tokens: int) -> float:
        """Take the next place in the line; returns the seconds until then."""
        with self._lock:
            start = max(now, self._next)
            self._next = start + max(self._request, tokens * self._token)
            return start - now

    def pause(self, seconds: float) -> None:
        """Let nobody go for a while: the server has asked one to wait, and means all."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _Run:
    """What the questions of one call know of each other: whether it is worth going on."""

    def __init__(self, patience: int) -> None:
        self.stop = ""
        self._left = self._patience = patience

    def answered(self) -> None:
        self._left = self._patience

    def failed(self, reason: str) -> None:
        self._left -= 1
        if self._left <= 0:
            self.stop = reason


class _GaveUpError(Exception):
    """All tries are used up."""


class _UnusableError(Exception):
    """A reply that cannot be used."""


def _worth_retrying(error: Any) -> bool:
    if error.code == "insufficient_quota":
        return False
    return error.status_code in RETRIED or error.status_code >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After as a number or a date (RFC 9110, 10.2.3),
    or OpenAI's retry-after-ms. None if it does not say, or not in a way that can be read."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
