"""Who may ask, how much at once and how often; before anything is read or parsed."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 16_384  # bytes
CLIENTS = 10_000  # whose rates are remembered; the one unheard of for longest is forgotten


class Buckets:
    """A token bucket for each client: ``rate`` requests a second, and as many at once."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._now = rate, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether the client may ask once more now."""
        now = self._now()
        left, then = self._left.pop(client, (self._rate, now))
        left = min(self._rate, left + (now - then) * self._rate)
        self._left[client] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return left >= 1


class Limits:
    """Around an ASGI application: 401 without the key, 429 above the rate, 413 above the length.

    Paths under ``/v1`` need the key, if there is one, as ``Authorization: Bearer KEY``.
    """

    def __init__(self, app: ASGIApp, key: str | None, rate: float) -> None:
        self._app, self._key = app, None if key is None else key.encode()
        self._buckets = Buckets(max(rate, 1.0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        body, more = b"", True
        while more:  # the whole body, or no more of it than is allowed
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > LONGEST_BODY:
                await _too_large()(scope, receive, send)
                return
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, once, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = dict(scope["headers"])
        if self._key is not None:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given, self._key):
                return _said(
                    401,
                    "the key is missing or wrong; send the header Authorization: Bearer KEY.",
                    {"WWW-Authenticate": "Bearer"},
                )
        client = scope.get("client")
        if not self._buckets.take(client[0] if client else ""):
            return _said(
                429, "too many requests from this address; try again later.", {"Retry-After": "1"}
            )
        length = headers.get(b"content-length", b"0")
        return _too_large() if length.isdigit() and int(length) > LONGEST_BODY else None


def _too_large() -> ASGIApp:
    return _said(413, f"the body is larger than {LONGEST_BODY:,} bytes.", {"Connection": "close"})


def _said(status: int, sentence: str, headers: dict[str, Any]) -> ASGIApp:
    return JSONResponse({"detail": sentence}, status, headers)
