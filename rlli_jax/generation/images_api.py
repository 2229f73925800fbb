"""A provider behind any OpenAI-compatible server with ``/v1/images/generations``."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from rlli_jax.errors import InputError
from rlli_jax.generation.base import (
    Made,
    NotMade,
    Outcome,
    Refused,
    in_parallel,
    in_parts,
)
from rlli_jax.generation.store import fault_of
from rlli_jax.judges import Invalid
from rlli_jax.judges.refusals import refused
from rlli_jax.judges.server import HOPELESS, Endpoint, GaveUpError, HopelessError, Limits, Server

LARGEST = 64 * 2**20  # bytes of a reply, and of a picture behind an address
IMAGES = Endpoint("/images/generations", "images_api provider", "pictures", LARGEST)
BATCH = 4  # pictures for each thread at a time
DOWNLOADS = 4  # tries to fetch a picture that is paid for


class ImagesAPIProvider:
    """Asks an OpenAI-compatible server for pictures, several at a time.

    What changes a picture is in ``settings``; how fast and how stubbornly the server is asked is
    not, nor is its address: ``revision`` tells apart servers that give other pictures under one
    model's name. A reply without a usable picture is tried again by the next run; a picture of
    another size than asked is paid for and stays a hole, with its reason.

    Args:
        name: of the provider.
        model: as the server calls it.
        revision: any text; another one makes new pictures.
        size: such as "1024x1024"; None or "auto": the server's own.
        quality: as the server calls it; None: not sent.
        extra: further fields of a request.
        base_url: of the server, with its ``/v1``; None is OpenAI's own.
        key_variable: the environment variable that holds the key.
        limits: how it may be asked.
        price: of a picture.

    Raises:
        InputError: openai is not installed, ``base_url`` is no address, or there is no key.
    """

    def __init__(
        self,
        name: str,
        model: str,
        *,
        revision: str | None = None,
        size: str | None = None,
        quality: str | None = None,
        extra: Mapping[str, Any] | None = None,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        limits: Limits | None = None,
        price: float | None = None,
    ) -> None:
        if find_spec("openai") is None:
            raise InputError("images_api: the package openai is missing; pip install openai.")
        self.name, self.price = name, price
        self._limits = limits or Limits()
        self._given = {"base_url": base_url, "key_variable": key_variable}
        asked = {"model": model, "size": size, "quality": quality}
        self._asked = {k: v for k, v in asked.items() if v is not None} | dict(extra or {})
        self._revision = revision
        sized = re.fullmatch(r"(\d+)x(\d+)", size or "")
        self._size = (int(sized[1]), int(sized[2])) if sized else None

    @cached_property
    def _server(self) -> Server:
        return Server(limits=self._limits, endpoint=IMAGES, **self._given)  # type: ignore[arg-type]

    def settings(self, prompt: str) -> Mapping[str, Any]:
        """What is sent, and the revision."""
        return {
            "kind": "images_api",
            "request": self._asked,
            "revision": self._revision,
            "prompt": prompt,
        }

    def batches(self, prompts: Sequence[str]) -> list[list[str]]:
        """A few for each thread."""
        return in_parts(prompts, BATCH * self._limits.concurrency)

    def steps(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Nobody knows."""
        return 0, 0

    def make(self, prompts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
        """Ask for each. Raises InputError if there is no key for OpenAI's own server."""
        self._server  # noqa: B018 - is made, or refused, before any thread begins
        return in_parallel(self._make, prompts, self._limits.concurrency)

    def _make(self, prompt: str) -> Outcome:
        started = time.monotonic()
        body = json.dumps({**self._asked, "prompt": prompt, "n": 1}).encode()
        server = self._server
        try:
            status, reply = server.post(body, 0)
        except GaveUpError as error:
            return NotMade(str(error), hopeless=isinstance(error, HopelessError))
        if status != 200:
            answer = refused(status, reply)
            if isinstance(answer, Invalid):
                said = server.scrubbed(answer.raw)[:300]
                return Refused(f"the server's content filter refused the prompt: {said}", 0.0)
            hopeless = status in HOPELESS or status == 429
            return NotMade(server.explained(status, answer.reason), hopeless)
        try:
            content = _picture(reply)
        except ValueError as error:
            return NotMade(server.scrubbed(f"the server's reply has no picture: {error}"))
        seconds = time.monotonic() - started
        if fault := fault_of(content):
            return NotMade(f"the server's reply has no picture: {fault}")
        if fault := fault_of(content, self._size):
            return Refused(fault, self.price)
        return Made(content, seconds=seconds, cost=self.price)


def _picture(reply: Any) -> bytes:
    """The bytes of the picture in a reply. Raises ValueError if there is none."""
    try:
        (first,) = reply["data"]
        encoded, address = first.get("b64_json"), first.get("url")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"it is {json.dumps(reply)[:200]}") from None
    if isinstance(encoded, str) and encoded:
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"b64_json is no base64 ({error})") from None
    if isinstance(address, str) and re.match(r"https?://", address):
        return _downloaded(address)
    raise ValueError("it has neither b64_json nor url")


def _downloaded(address: str) -> bytes:
    """What is behind an address, which a server gave in place of a picture."""
    problem = ""
    for attempt in range(DOWNLOADS):
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                content: bytes = response.read(LARGEST + 1)
            if len(content) <= LARGEST:
                return content
            problem = f"it is larger than {LARGEST:,} bytes"
            break
        except OSError as error:
            problem = str(error)
            time.sleep(0.5 * 2**attempt)
    raise ValueError(f"what is behind its url cannot be fetched ({problem})")
