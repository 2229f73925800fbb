"""An OpenAI-compatible server: how fast and how stubbornly it is asked, and what it replies.

Nothing here knows of questions or answers; bytes go out and a status with a body comes back, after
as many tries as it takes.

The key comes from the environment and goes nowhere but to the server.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from rlli_jax.errors import InputError
from rlli_jax.judges.refusals import error_in, refused, web_page

if TYPE_CHECKING:
    from openai import OpenAI

RETRIED = (408, 409, 425, 429)  # and all from 500
HOPELESS = (401, 402, 403, 404)  # every other question would meet the same
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds of backoff, doubled from try to try
LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more has run out of quota
PROXY_STATUS = (403, 407, 502, 503, 504)  # what proxies answer in place of a server
LEAST_SECRET = 12  # characters; shorter keys ("EMPTY", "ollama") are words like others


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


class Endpoint(NamedTuple):
    """What of a server is asked."""

    path: str
    asker: str  # for messages
    reply: str  # what it replies
    largest: int  # bytes of a reply


CHAT = Endpoint("/chat/completions", "openai judge", "a chat completion", 4 * 2**20)


class Server:
    """One server, its key and its limits; safe between threads.

    Args:
        base_url: of the server, with its ``/v1``; None is OpenAI's own.
        key_variable: the environment variable that holds the key. A server at ``base_url`` may
            need none.
        limits: how it may be asked.
        endpoint: what of it is asked.

    Raises:
        InputError: ``base_url`` is no address, the key is none, or there is no key for OpenAI's
            own server.
    """

    def __init__(
        self, base_url: str | None, key_variable: str, limits: Limits, endpoint: Endpoint = CHAT
    ) -> None:
        if base_url is None:
            base_url = os.environ.get("OPENAI_BASE_URL")  # as the client does
        self._base_url = None if base_url is None else _address(base_url, endpoint)
        self._endpoint = endpoint
        self._limits = limits
        self._key = os.environ.get(key_variable, "").strip()
        if not re.fullmatch(r"[ -~]*", self._key):
            raise InputError(
                f"{endpoint.asker}: the key in the environment variable {key_variable} has line "
                "breaks or letters beyond ASCII inside, as no key has; set it anew."
            )
        if not self._key and self._base_url is None:
            raise InputError(
                f"{endpoint.asker}: the environment variable {key_variable} holds no key; set "
                "it, or give the base_url of a server that needs none."
            )
        self._pace = Pace(limits)

    def post(self, body: bytes, tokens: int) -> tuple[int, Any]:
        """Status and body of the server's reply, after as many tries as it takes.

        An error that the server sends with the status 200 counts as its own code says.

        Raises:
            HopelessError: no question will have a usable reply.
            GaveUpError: there was no usable reply in all tries.
        """
        import openai

        try:
            client = self._client
        except Exception as error:  # what the environment asks of it is of many kinds, too
            raise HopelessError(self.scrubbed(_environment_fault(error))) from None
        reason, status, reply = "", 0, None
        for attempt in range(self._limits.retries + 1):
            self._pace.wait(tokens)
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                reply = json.loads(self._read(client, body))
                status, reply = error_in(reply) or (200, reply)
                if not _worth_retrying(status, reply):
                    return status, reply
                reason = refused(status, reply).reason
            except openai.APIStatusError as error:
                if not _worth_retrying(error.status_code, error.body):
                    return error.status_code, error.body
                answer = refused(error.status_code, error.body)
                reason = self.explained(error.status_code, answer.reason)
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
            except HopelessError as error:
                raise HopelessError(self.scrubbed(f"{error}{self._in_the_way}")) from None
            except Exception as error:  # the layers of a connection raise errors of many kinds
                cause = error if isinstance(error, openai.APITimeoutError) else _cause(error)
                reason = f"no answer from the server: {type(cause).__name__}: {cause}"
                reason += self._in_the_way
                if isinstance(cause, ssl.SSLCertVerificationError):
                    advice = "name the file of its authority in SSL_CERT_FILE"
                    raise HopelessError(self.scrubbed(f"{reason}; {advice}")) from None
            if attempt < self._limits.retries:
                time.sleep(wait)
        raise GaveUpError(self.scrubbed(reason))

    def _read(self, client: OpenAI, body: bytes) -> bytes:
        """The bytes of one reply, of bounded size and in bounded time."""
        deadline = time.monotonic() + self._limits.timeout
        reply = bytearray()
        # As client.chat.completions.with_streaming_response does, for a body that is JSON already.
        headers = {"Content-Type": "application/json", "X-Stainless-Raw-Response": "stream"}
        response: Any = client.post(
            self._endpoint.path, cast_to=object, content=body, options={"headers": headers}
        )
        with closing(response):
            for chunk in response.iter_bytes():
                reply += chunk
                if len(reply) > self._endpoint.largest:
                    largest = f"{self._endpoint.largest:,}"
                    raise _UnusableError(f"the answer is larger than {largest} bytes")
                if time.monotonic() > deadline:
                    raise _UnusableError(f"no whole answer in {self._limits.timeout:g} s")
        start = reply[:1000].decode(errors="replace").lstrip("\ufeff \r\n\t")
        if start.startswith(("data:", "event:", ": ")):
            raise HopelessError(
                "the server streams its answer (text/event-stream), which was not asked for; turn "
                "streaming off at the server or the proxy before it"
            )
        if page := web_page(start):
            raise HopelessError(
                f"the server at {self.where} answers with {page}, not with "
                f"{self._endpoint.reply}; "
                f"correct the base_url, or log in where it asks for it{self._without_version}"
            )
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
    def where(self) -> str:
        """The server's address, without a password that it may hold."""
        return re.sub(r"//[^/@]*@", "//", self._base_url or "api.openai.com")

    @property
    def _without_version(self) -> str:
        """A hint, where the address does not end as those of most servers do."""
        if self._base_url is None or re.search(r"/(v\d+\w*|openai)$", self._base_url):
            return ""
        return "; the base_url does not end in /v1, as those of most servers do"

    @property
    def _in_the_way(self) -> str:
        """A hint, where an environment variable sends requests through a proxy."""
        parts = urlsplit(self._base_url or "https://api.openai.com")
        host = parts.hostname or ""
        for name in (f"{parts.scheme}_proxy", "all_proxy"):
            for variable in (name, name.upper()):
                if os.environ.get(variable) and not proxy_bypass(host):
                    return (
                        f"; the environment variable {variable} sends requests to {host} through "
                        f"a proxy: if it should not, add {host} to NO_PROXY"
                    )
        return ""

    def explained(self, status: int, reason: str) -> str:
        """A refusal with what else may lie behind it."""
        if status in (404, 405):
            reason += self._without_version
        if status in PROXY_STATUS:
            reason += self._in_the_way
        return self.scrubbed(reason)

    def scrubbed(self, text: str) -> str:
        """Servers and clients quote what they were sent."""
        return text.replace(self._key, "***") if len(self._key) >= LEAST_SECRET else text


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


class GaveUpError(Exception):
    """All tries are used up."""


class _UnusableError(Exception):
    """A reply that cannot be used."""


class HopelessError(GaveUpError):
    """Every other question would meet the same."""


def _address(base_url: str, endpoint: Endpoint) -> str:
    """The base URL of a server; InputError if it cannot be one."""
    url = base_url.strip()
    if not re.match(r"https?://[^/]", url, re.I):
        raise InputError(
            f"{endpoint.asker}: the base_url {base_url!r} is no address of a server; it begins "
            "with http:// or https://, as in http://127.0.0.1:8000/v1."
        )
    url = url.rstrip("/")
    if url.endswith(endpoint.path):
        raise InputError(
            f"{endpoint.asker}: leave {endpoint.path} out of the base_url {base_url!r}; it is "
            "added."
        )
    return url


def _environment_fault(error: Exception) -> str:
    """Which environment variable keeps the HTTP client from being made, in one sentence."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.environ.get(name) and isinstance(error, OSError):
            return (
                f"the environment variable {name} names {os.environ[name]!r}, which holds no "
                "certificates; correct or unset it"
            )
    names = [f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")]
    proxies = [name for name in os.environ if name.upper() in names and os.environ[name]]
    if isinstance(error, ImportError):
        socks = [name for name in proxies if os.environ[name].lower().startswith("socks")]
        return (
            f"the environment variable {', '.join(socks or proxies)} names a SOCKS proxy, for "
            "which the package socksio is missing; install it, name an HTTP proxy, or unset the "
            "variable"
        )
    if proxies:
        strange = [n for n in proxies if not re.match(r"(https?|socks5h?)://", os.environ[n])]
        return (
            f"the environment variable {', '.join(strange or proxies)} names no proxy that can be "
            f"used ({error}); correct or unset it"
        )
    return f"no connection to a server can be made ({error})"


def _cause(error: BaseException) -> BaseException:
    """The error at the root of another, which clients wrap several times."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


def _worth_retrying(status: int, body: Any) -> bool:
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("code") == "insufficient_quota":
        return False
    return status in RETRIED or status >= 500


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
