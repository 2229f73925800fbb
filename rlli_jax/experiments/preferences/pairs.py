"""Comparisons from a file, in the layout of Pick-a-Pic (Kirstain et al. 2023, arXiv 2305.01569)."""

from pathlib import Path

import numpy as np

from rlli_jax.qoe import QoETable
from rlli_jax.tabular import read_table
from rlli_jax.teaching.preferences import pairs_of


def read_pairs(path: Path, table: QoETable) -> tuple[np.ndarray, np.ndarray]:
    """Place of each comparison (context x Q + pair, int32 [P]) and how much of it the first of the
    pair won (float32 [P], 0.5 for a tie), as :func:`rlli_jax.teaching.preferences.resampled` takes.

    Raises:
        InputError: the file cannot be read, or lacks a column; a row names a user, a request or a
            provider that the table does not have, or a picture that nobody rated; labels that are
            no choice; two rows of one user that say the opposite of the same pair.
    """
    rows = read_table(path, "a comparison")
    advice = "name them user_id, caption, model_0, model_1, label_0"
    users, requests, first, second = (
        rows.names(rows.require(*names, advice=advice))
        for names in (
            ("user_id", "user"), ("caption", "request"),
            ("model_0", "provider_0"), ("model_1", "provider_1"),
        )
    )  # fmt: skip
    label = rows.numbers(rows.require("label_0", advice=advice))
    other = rows.find("label_1")
    against = 1 - label if other is None else rows.numbers(other)
    number = {tuple(pair): q for q, pair in enumerate(pairs_of(len(table.providers)).tolist())}
    known = {
        "user": {name: i for i, name in enumerate(table.users)},
        "request": {name: i for i, name in enumerate(table.requests)},
        "provider": {name: i for i, name in enumerate(table.providers)},
    }

    def find(what: str, name: str, row: int) -> int:
        if name not in known[what]:
            rows.fail(f"nobody knows the {what} {name!r} here; the table of QoE has others", row)
        return known[what][name]

    place, won = np.zeros(len(users), np.int32), np.zeros(len(users), np.float32)
    said: dict[int, int] = {}  # place and winner's row
    for row in range(len(users)):
        k, r = find("user", users[row], row), find("request", requests[row], row)
        a, b = find("provider", first[row], row), find("provider", second[row], row)
        if a == b:
            rows.fail(f"the provider {first[row]!r} is compared with itself", row)
        for provider in (a, b):
            if not table.legal[k, r, provider]:
                name = table.providers[provider]
                rows.fail(f"there is no rating of the picture of {name!r} for this user", row)
        if label[row] not in (0, 0.5, 1) or not np.isclose(label[row] + against[row], 1):
            rows.fail(
                f"label_0 is {label[row]:g} and label_1 {against[row]:g}; give 1 and 0, 0 and 1, "
                "or 0.5 and 0.5 for a tie",
                row,
            )
        context = k * len(table.requests) + r
        place[row] = context * len(number) + number[min(a, b), max(a, b)]
        won[row] = label[row] if a < b else 1 - label[row]
        before = said.setdefault(int(place[row]), row)
        if won[before] + won[row] == 1 and won[row] != 0.5:
            rows.fail(
                f"it contradicts row {rows.frame.index[before]}, where {users[row]!r} preferred "
                "the other of the same two; keep one, or give both a label of 0.5",
                row,
            )
    return place, won
