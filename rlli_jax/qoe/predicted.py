"""The table that a model of QoE fills: what is believed of every cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from rlli_jax.qoe.model import QoEModel
from rlli_jax.qoe.table import QoETable

SAMPLES = 8  # of what is believed of a cell
QUANTILES = ndtri((np.arange(SAMPLES) + 0.5) / SAMPLES)  # of a standard normal


def predicted_table(
    model: QoEModel,
    asked: np.ndarray,
    offered: np.ndarray,
    *,
    users: Sequence[str],
    requests: Sequence[str],
    providers: Sequence[str],
    judge: str,
    stand_in: bool,
) -> QoETable:
    """A table of beliefs, also where there is an answer, which is only part of what is known.

    The samples of a cell are quantiles of its posterior, so that a reward drawn from them is
    drawn from what is believed: uncertain cells give spread rewards.

    Args:
        model: of the answers.
        asked: bool [K, R, L], the cells that the judge was asked about.
        offered: bool [K, R, L], the cells with a picture; the others are holes.
        users, requests, providers: names [K], [R], [L].
        judge: who was asked, for reports.
        stand_in: as of the judge.
    """
    believed = model.users()
    spread = believed.sd
    samples = believed.mean[..., None] + spread[..., None] * QUANTILES
    share = asked.sum() / offered.sum()
    return QoETable(
        qoe=np.clip(samples, 0, 1),
        valid=np.broadcast_to(offered[..., None], samples.shape),
        users=tuple(users),
        requests=tuple(requests),
        providers=tuple(providers),
        judge=f"{judge}; {share:.1%} of the cells were asked, all are predicted by a model of QoE",
        stand_in=stand_in,
        missing=(asked & np.isnan(model.answers)).astype(int),
        asked=asked,
        sd=np.where(offered, spread, 0),
    )
