"""Which prompts are alike enough to share their first denoising steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Group(NamedTuple):
    """Prompts that share steps."""

    prompt: str
    """With which the shared steps are denoised."""
    members: tuple[str, ...]


def nearby(prompts: Sequence[str], embeddings: np.ndarray, distance: float) -> list[Group]:
    """Groups in which any two prompts are at most so far apart; the common prompt is the one that
    is nearest to the others on average (the first of several).

    Args:
        prompts: n texts.
        embeddings: of them, float [n, d].
        distance: cosine distance, in [0, 2]. Groups are those of complete linkage.

    Returns:
        Groups of two and more, in the order of their first prompts.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, and seldom needed
    from scipy.spatial.distance import pdist, squareform

    apart = pdist(embeddings, "cosine")
    labels = fcluster(linkage(apart, "complete"), distance, "distance")
    matrix, groups = squareform(apart), []
    for label in dict.fromkeys(labels.tolist()):
        places = np.flatnonzero(labels == label)
        if len(places) > 1:
            medoid = int(places[matrix[np.ix_(places, places)].mean(1).argmin()])
            groups.append(Group(prompts[medoid], tuple(prompts[i] for i in places.tolist())))
    return groups
