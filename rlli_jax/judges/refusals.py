"""What an OpenAI-compatible server sends in place of an answer: errors and refusals, as answers."""

from __future__ import annotations

import json
import re
from typing import Any

from rlli_jax.judges import Failed, Invalid

# What servers call a request whose content their filter refuses, and an answer that it cuts off.
CONTENT_FILTERS = (
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "moderation_blocked",
)
FILTERED = ("content_filter", "safety", "prohibited_content", "blocklist", "refusal")
FILTER_REFUSED = "the server's content filter refused the question"

RAW_LIMIT = 10_000  # characters of an answer that are kept; a label needs far fewer


def error_in(body: Any) -> tuple[int, Any] | None:
    """The status and body of an error that a server sends in place of a completion, or inside of
    one, with the status 200; None if there is none. An error without a status has 200."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = body.get("error")
    if not error and isinstance(choice, dict):
        error = choice.get("error")
        if not error and str(choice.get("finish_reason")).lower() == "error":
            error = "the answer ended with an error"
    if not error and choice is None:  # {"object": "error", "message": ...}, {"detail": ...}
        error = {key: body[key] for key in ("message", "detail", "code") if body.get(key)}
        error = error if error.keys() - {"code"} else None
    if not error:
        return None
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    return int(code) if code and re.fullmatch(r"[1-5]\d\d", str(code)) else 200, {"error": error}


def refused(status: int, body: Any) -> Invalid | Failed:
    """The answer to a question whose request was refused with an HTTP status and a body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = _message(error)
    if _is_filtered(error):
        return Invalid(FILTER_REFUSED, message[:RAW_LIMIT])
    reported = "reports an error" if status == 200 else f"answered with status {status}"
    hint = ""
    if status == 413:
        hint = "; the picture is too large for it: set judge.longest_side, for example 1024"
    elif "max_completion_tokens" in message:
        hint = "; set judge.max_tokens=null and judge.extra={max_completion_tokens: 16}"
    shown = message[:300].rstrip(".") if hint else message[:300]
    return Failed(f"the server {reported}: {shown}{hint}")


def _message(error: Any) -> str:
    """What an error says, in whichever form."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return web_page(text) or text


def web_page(text: str) -> str:
    """What to call a text that is a page for people instead of an answer; empty if it is none."""
    if not re.match(r"\s*(<!doctype html|<html|<head|<body)", text, re.I):
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
    return "a web page" + (f" called {title[1].strip()[:80]!r}" if title else "")


def _is_filtered(error: Any) -> bool:
    if not isinstance(error, dict):
        return False
    inner, metadata = (error.get(key) or {} for key in ("innererror", "metadata"))
    inner = inner if isinstance(inner, dict) else {}
    codes = {
        str(code).lower() for code in (error.get("code"), error.get("type"), inner.get("code"))
    }
    return bool(codes & set(CONTENT_FILTERS)) or (
        isinstance(metadata, dict) and "flagged_input" in metadata
    )
