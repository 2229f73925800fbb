"""A real HTTP server on 127.0.0.1 that speaks like an OpenAI-compatible one, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


def completion(text: str | None = "good", logprobs: Any = None, **message: Any) -> dict[str, Any]:
    """The body of a chat completion; logprobs: [(chosen, {token: probability}), ...]."""
    content = logprobs and [
        {
            "token": chosen,
            "logprob": float(np.log(top.get(chosen, 1e-9))),
            "top_logprobs": [{"token": t, "logprob": float(np.log(p))} for t, p in top.items()],
        }
        for chosen, top in logprobs
    ]
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": {"content": content} if content else None,
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2, "total_tokens": 1002},
    }


class LocalServer:
    """A server that answers what ``respond(body, n)`` says to its n-th request.

    It says a dict (status 200), (status, body, headers) with a body of JSON, bytes or an iterator
    of parts, bytes that are sent in place of a whole HTTP response, or None to hang up.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.respond: Callable[[dict[str, Any], int], Any] = lambda body, n: completion()
        self.busy = self.busiest = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    n = len(outer.requests)
                    outer.requests.append(body)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                try:
                    self.send(outer.respond(body, n))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client has had enough
                finally:
                    with lock:
                        outer.busy -= 1

            def send(self, reply: Any) -> None:
                if reply is None or isinstance(reply, bytes):
                    self.wfile.write(reply or b"")
                    self.close_connection = True
                    return
                status, content, headers = reply if isinstance(reply, tuple) else (200, reply, {})
                if isinstance(content, Iterator):
                    self.send_response(status)
                    self.end_headers()
                    for part in content:
                        self.wfile.write(part)
                    self.close_connection = True
                    return
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.close_connection = "Content-Length" in headers  # a false one
                headers = {"Content-Type": "application/json", **headers}
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
