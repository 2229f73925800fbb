"""Questions and answers as files of batch services: OpenAI's, ``vllm run-batch`` and others.

A line of the file that goes out is one request with a ``custom_id``, the caller's key of the
question. Lines come back in any order, some as errors, some not at all; every line that can be
used is, and the summary counts the others and says why lines failed. Files may be compressed by
gzip, and hold JSON lines, one array, or indented JSON.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlli_jax.errors import InputError, why
from rlli_jax.files import whole
from rlli_jax.judges import Answer, Failed, Invalid, Question, Rated
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.prompting import label_orders
from rlli_jax.judges.refusals import refused

URL = "/v1/chat/completions"

LONGEST_ID = 64  # characters of a custom_id that all services take
# What OpenAI takes as one batch; others are of the same order.
MOST_LINES, MOST_BYTES = 50_000, 200_000_000
REASONS = 3  # of failed lines, that are shown


@dataclass(frozen=True)
class BatchSummary:
    """What became of the questions and lines of a file of results."""

    rated: int = 0
    invalid: int = 0
    failed: int = 0  # error lines: ask again
    missing: int = 0  # questions without a line: ask again
    duplicate: int = 0  # lines for a question that had one already; the first good one counts
    unknown: int = 0  # lines with an id that was not asked for
    unreadable: int = 0  # lines that are no result, a truncated last one included
    # Why lines failed, with their numbers.
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        text = (
            f"{self.rated:,} rated, {self.invalid:,} invalid, {self.failed:,} failed, "
            f"{self.missing:,} missing; lines left out: {self.duplicate:,} duplicate, "
            f"{self.unknown:,} unknown, {self.unreadable:,} unreadable"
        )
        if self.unreadable and not self.rated + self.invalid + self.failed:
            text += "\nno line is a result of a batch: is this the service's file of results?"
        often = Counter(self.reasons).most_common(REASONS)
        return "\n".join([text, *(f"failed ({count:,}): {reason}" for reason, count in often)])


def too_large(lines: int, size: int) -> str:
    """A warning, if a file of so many lines and bytes is more than services take; else ""."""
    if lines <= MOST_LINES and size <= MOST_BYTES:
        return ""
    return (
        f"{lines:,} lines and {size / 1e6:,.0f} MB are more than many services take at once "
        f"({MOST_LINES:,} lines, {MOST_BYTES / 1e6:.0f} MB at OpenAI): cut the file between lines, "
        "or make pictures smaller by judge.longest_side"
    )


def write_batch(
    path: str | Path, completions: Completions, questions: Mapping[str, Question]
) -> int:
    """Write one line for each question and label order; returns the number of lines.

    Args:
        path: the file; it appears only when it is whole.
        completions: how to ask.
        questions: by custom_id, the caller's key. With both label orders the file has two lines
            for each, with ``/0`` and ``/1`` behind the key, of which as much is left out as makes
            64 characters. Without a picture there is nothing to
            ask, and no line.

    Raises:
        InputError: the scoring is not settled, or the file cannot be written.
    """
    require_settled(completions)
    lines = 0
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for key, question in questions.items():
            if question.shown is None:
                continue
            bodies = completions.bodies(question)
            for custom_id, body in zip(_custom_ids(key, completions), bodies, strict=True):
                line = {"custom_id": custom_id, "method": "POST", "url": URL, "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines += 1
    return lines


def read_batch(
    path: str | Path, completions: Completions, questions: Mapping[str, Question]
) -> tuple[dict[str, Answer], BatchSummary]:
    """Answers by custom_id from a file of results, and what became of the rest.

    ``completions`` and ``questions`` are those that the batch was written with. A question has an
    answer if every line of it is there; of several lines with one id the first counts that is not
    a failure. A question without a picture is Invalid, as every judge answers it.

    Raises:
        InputError: the file cannot be read, or the scoring is not settled.
    """
    require_settled(completions)
    asked = {i: i for key in questions for i in _custom_ids(key, completions)}
    asked |= {  # as files had them before ids were kept short
        f"{key}/{i}": custom_id
        for key in questions
        for i, custom_id in enumerate(_custom_ids(key, completions))
    }
    bodies: dict[str, Any] = {}  # custom_id -> body of its reply
    failures: dict[str, Answer] = {}
    duplicate = unknown = unreadable = 0
    for line in _lines(Path(path)):
        custom_id = line.get("custom_id") if isinstance(line, dict) else None
        if not isinstance(custom_id, str):
            unreadable += 1
            continue
        if custom_id not in asked:
            unknown += 1
            continue
        custom_id = asked[custom_id]
        duplicate += custom_id in bodies or custom_id in failures
        failure = _failure(line)
        if failure is None:
            bodies.setdefault(custom_id, line["response"].get("body"))
        else:
            failures.setdefault(custom_id, failure)
    answers: dict[str, Answer] = {}
    for key, question in questions.items():
        if question.shown is None:
            answers[key] = Invalid("no picture")
            continue
        ids = _custom_ids(key, completions)
        failed = [failures[i] for i in ids if i in failures and i not in bodies]
        if all(i in bodies for i in ids):
            answers[key] = completions.answer([bodies[i] for i in ids], question, None)
        elif failed:
            answers[key] = failed[0]
    kinds = [type(answer) for answer in answers.values()]
    reasons = Counter(answer.reason for answer in answers.values() if isinstance(answer, Failed))
    return answers, BatchSummary(
        rated=kinds.count(Rated),
        invalid=kinds.count(Invalid),
        failed=kinds.count(Failed),
        missing=len(questions) - len(answers),
        duplicate=duplicate,
        unknown=unknown,
        unreadable=unreadable,
        reasons=reasons,
    )


def require_settled(completions: Completions) -> None:
    """Raise InputError if a server would first have to be asked what it can do."""
    if completions.scoring == "auto":
        raise InputError(
            "judge.scoring: a batch file needs to know its scoring; choose 'logprobs' or 'text' "
            "instead of 'auto'."
        )


def _custom_ids(key: str, completions: Completions) -> list[str]:
    orders = label_orders(completions.both_orders)
    if len(orders) == 1:
        return [key]
    return [f"{key[: LONGEST_ID - 2]}/{i}" for i in range(len(orders))]


def _lines(path: Path) -> Iterator[Any]:
    """The results in a file, None for what is not JSON."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            content = file.read().removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({why(error)}); name a file of results.") from None
    for value in _values(content):
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _values(content: bytes) -> Iterator[Any]:
    """JSON lines, one value, or several indented ones; None for a line that is not JSON."""
    lines = [line for line in content.splitlines() if line.strip()]
    try:
        if len(lines) > 1:
            json.loads(lines[0])
    except ValueError:  # not lines, or a damaged one
        try:
            yield from list(_indented(content.decode()))
            return
        except ValueError:
            pass
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            yield None


def _indented(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    value = re.compile(r"\s*(?=\S)")  # what stands before the next one
    at = 0
    while before := value.match(text, at):
        found, at = decoder.raw_decode(text, before.end())
        yield found


def _failure(line: Mapping[str, Any]) -> Answer | None:
    """The answer in a line that reports an error, None for one with a completion."""
    response = line.get("response")
    if line.get("error") or not isinstance(response, dict):
        error = line.get("error") or "the line has no response"
        message = error.get("message", error) if isinstance(error, dict) else error
        return Failed(f"the batch service reports an error: {str(message)[:300]}")
    status = response.get("status_code", 200)
    return None if status == 200 else refused(status, response.get("body"))
