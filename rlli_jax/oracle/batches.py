"""What is missing goes out as a file for a batch service, and the answers come back in one.

The file's format is that of :mod:`rlli_jax.judges.batch_files`; a line's id is the question's key,
so an answer finds its question in any order and in any later process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rlli_jax.judges import Question
from rlli_jax.judges.batch_files import BatchSummary, read_batch, require_settled, write_batch
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.oracle.asking import look_up, on_scale
from rlli_jax.oracle.schema import Row
from rlli_jax.oracle.store import Store


def export_batch(
    judge: OpenAIJudge, questions: Sequence[Question], store: Store, path: str | Path
) -> int:
    """Write a request for every question without a stored answer; returns the number of lines.

    Nothing is claimed: answers that come from elsewhere in the meantime are asked again.

    No server is asked.

    Raises:
        InputError: the file cannot be written, or the judge's scoring is not settled.
    """
    require_settled(judge.given)
    missing = look_up(judge, questions, store).missing
    return write_batch(path, judge.completions, {key.hex(): q for key, q in missing.items()})


def import_batch(
    judge: OpenAIJudge, questions: Sequence[Question], store: Store, path: str | Path
) -> BatchSummary:
    """Keep the answers of a service's file; questions without one stay unanswered.

    Lines of questions that are not of this study or are answered already count as unknown.

    Raises:
        InputError: the file cannot be read, or the judge's scoring is not settled.
    """
    require_settled(judge.given)
    found = look_up(judge, questions, store)
    missing = found.missing
    answers, summary = read_batch(
        path, judge.completions, {key.hex(): q for key, q in missing.items()}
    )
    rows = []
    for key, question in missing.items():
        answer = answers.get(key.hex())
        if answer is not None:
            parts = found.keys.parts(question)
            answer = on_scale(question, answer)
            rows.append(Row.of(parts, answer, seconds=None, now=time.time()))
    store.add(rows, found.keys.take_texts())
    return summary
