"""A judge behind any OpenAI-compatible server: vLLM, ``transformers serve``, hosted services.

What changes an answer is in :class:`~rlli_jax.judges.completions.Completions`. How fast and how
stubbornly the server is asked (:mod:`rlli_jax.judges.server`) is no part of the judge's identity.
Nor is the server's address: the same model elsewhere gives the same answers. Where it does not
(another quantisation under one name), ``Completions.revision`` tells them apart.
"""

from __future__ import annotations

import copy
import json
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal, cast

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, JudgeIdentity, Question, Rated, Usage
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.prompting import NOT_DESCRIBED, messages, orders_of, shows_picture
from rlli_jax.judges.refusals import error_in, refused
from rlli_jax.judges.server import HOPELESS, GaveUpError, HopelessError, Limits, Server

CHARACTERS_PER_TOKEN = 4  # of English, by the usual rule of thumb


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
        InputError: openai is not installed, ``base_url`` is no address, the key is none, or there
            is no key for OpenAI's own server.
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
            raise InputError("openai judge: the package openai is missing; pip install openai.")
        self.given = completions  # before "auto" is settled
        self._image_tokens = image_tokens
        self._limits = limits or Limits()
        self._server = Server(base_url, key_variable, self._limits)

    def settled(self, scoring: Literal["logprobs", "text"]) -> OpenAIJudge:
        """The same judge with "auto" taken as ``scoring``, so that no server need be asked."""
        other = copy.copy(self)
        other.__dict__.pop("identity", None)
        other.__dict__["completions"] = replace(self.given, scoring=scoring)
        return other

    @cached_property
    def completions(self) -> Completions:
        """How the server is asked; with scoring "auto" it is asked first what it can do."""
        given = self.given
        if given.scoring != "auto":
            return given
        text, numbers = replace(given, scoring="text"), [given.top_logprobs]
        while numbers:
            wanted = replace(given, scoring="logprobs", top_logprobs=numbers.pop(0))
            status, reply = self._probe(wanted)
            if status == 200:
                return wanted if _has_logprobs(reply) else text
            reason = refused(status, reply).reason
            if "top_logprobs" in reason:  # it may allow fewer, and say how many
                allowed = [int(n) for n in re.findall(r"\b\d{1,2}\b", reason)]
                numbers = sorted({n for n in allowed if 2 <= n < wanted.top_logprobs})[-1:]
            elif re.search(r"log_?prob", reason, re.I):
                return text
        # Whatever it disliked: does it answer without log-probabilities?
        status, reply = self._probe(text)
        if status != 200 and not re.search(r"log_?prob", reason, re.I):
            raise InputError(
                f"openai judge: asked whether it gives log-probabilities, the server at "
                f"{self._server.where} refused ({self._server.explained(status, reason)}); "
                "correct the model, the base_url, the key or what is sent."
            )
        return text

    def _probe(self, completions: Completions) -> tuple[int, Any]:
        """Status and body of the reply to a question that is put as the others will be.

        Raises:
            InputError: there was no reply.
        """
        chat: list[Any] = [{"role": "user", "content": "Say yes."}]
        try:
            status, reply = self._server.post(json.dumps(completions.body(chat)).encode(), 1)
        except HopelessError as error:
            raise InputError(f"openai judge: {error}.") from None
        except GaveUpError as error:
            raise InputError(
                f"openai judge: the server at {self._server.where} does not answer ({error}); "
                "start it, or name the scoring, 'logprobs' or 'text'."
            ) from None
        if status == 200 and error_in(reply) is not None:
            reason = self._server.scrubbed(refused(status, reply).reason)
            raise InputError(f"openai judge: at {self._server.where}, {reason}.")
        return status, reply

    @cached_property
    def prefill_fault(self) -> str:
        """Why the server does not go on from the answer's beginning; empty if it does.

        The tokens of three prompts tell: where the last message stays open, the beginning adds its
        own tokens, and twice the beginning adds them twice; where it is closed, the end of one
        message and the start of another come on top.
        """
        if not self.given.prefill:
            return ""
        once, lengths = self.given.prefill.strip(), list[int]()
        for beginning in ("", once, f"{once} {once}"):
            completions = replace(self.given, prefill=beginning, scoring="text")
            try:
                status, reply = self._probe(completions)
            except InputError as error:
                return str(error).removeprefix("openai judge: ").removesuffix(".")
            if status != 200:
                reason = self._server.explained(status, refused(status, reply).reason)
                return f"asked to go on from judge.prefill, {reason}"
            length = (reply.get("usage") or {}).get("prompt_tokens")
            if not isinstance(length, int):
                return "the server counts no tokens, so nobody knows whether it takes a prefill"
            lengths.append(length)
        first, second = lengths[1] - lengths[0], lengths[2] - lengths[1]
        if second < 1 or first - second > 1:
            return (
                "the server closes the message that judge.prefill begins, and starts another; "
                "remove judge.prefill"
            )
        return ""

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
        places: list[tuple[str, str, int]] = []
        for i, question in enumerate(questions):
            try:
                shown = question.shown
            except InputError as error:  # the picture went away
                answers[i] = Failed(str(error))
                continue
            if shown is not None and self.given.sees == "description" and shows_picture(question):
                answers[i] = NOT_DESCRIBED
            elif shown is not None:
                begin = question.request if shown else question.persona.name
                places.append((shown, begin, i))
        asked = [i for *_, i in sorted(places)]
        if asked and self.prefill_fault:
            for i in asked:
                answers[i] = Failed(self.prefill_fault, Usage(0, 0, 0.0, 0.0))
            return answers
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
        if question.shown is None:
            return Usage(0, 0, 0.0, 0.0)
        completions = self.given
        orders = orders_of(question, completions.both_orders)
        image_tokens = self._image_tokens if shows_picture(question) else 0
        tokens_in = len(orders) * image_tokens + sum(
            math.ceil(len(part["text"]) / CHARACTERS_PER_TOKEN)
            for order in orders
            for message in messages(question, order)
            for part in cast("list[dict[str, str]]", message["content"])
            if part["type"] == "text"
        )
        longest = completions.most_tokens
        tokens_out = None if longest is None else len(orders) * longest
        return Usage(tokens_in, tokens_out, completions.cost(tokens_in, tokens_out))

    def _rate(self, question: Question, run: _Run) -> Answer:
        started = time.monotonic()
        replies: list[Any] = []
        usage = self.expected_usage(question)
        tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        try:
            bodies = self.completions.payloads(question)
        except InputError as error:  # a picture that went away, a server that is not there
            return Failed(self._server.scrubbed(str(error)))
        for body in bodies:
            if run.stop:
                nothing = None if replies else Usage(0, 0, 0.0, 0.0)
                return Failed(f"not asked: {run.stop}", nothing)
            try:
                status, reply = self._server.post(body, tokens // len(bodies))
            except GaveUpError as error:
                run.failed(str(error), is_hopeless=isinstance(error, HopelessError))
                return Failed(str(error))
            if status != 200:
                answer = refused(status, reply)
                if isinstance(answer, Failed):
                    answer = Failed(self._server.explained(status, answer.reason))
                    if status in HOPELESS or status == 429:
                        run.stop = answer.reason
                return self._clean(answer)
            run.answered()
            replies.append(reply)
        seconds = time.monotonic() - started
        return self._clean(self.completions.answer(replies, question, seconds))

    def _clean(self, answer: Answer) -> Answer:
        if isinstance(answer, Rated):
            return replace(answer, raw=self._server.scrubbed(answer.raw))
        reason = self._server.scrubbed(answer.reason)
        if isinstance(answer, Invalid):
            return replace(answer, reason=reason, raw=self._server.scrubbed(answer.raw))
        return replace(answer, reason=reason)


class _Run:
    """What the questions of one call know of each other: whether it is worth going on."""

    def __init__(self, patience: int) -> None:
        self.stop = ""
        self._left = self._patience = patience

    def answered(self) -> None:
        self._left = self._patience

    def failed(self, reason: str, is_hopeless: bool) -> None:
        self._left -= 1
        if self._left <= 0 or is_hopeless:
            self.stop = reason


def _has_logprobs(reply: Any) -> bool:
    try:
        return bool(reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"])
    except (KeyError, IndexError, TypeError):
        return False
