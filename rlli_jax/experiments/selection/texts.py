"""The requests of a study in words, as vectors that a policy is told."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from rlli_jax.experiments.selection.config import TextBlock
from rlli_jax.qoe import QoETable
from rlli_jax.sentences import components, encode


class Texts(NamedTuple):
    """The requests of a study in words, as a policy is told them."""

    vectors: dict[str, np.ndarray]  # by request, [D] float32
    encoder: str

    def of(self, table: QoETable) -> np.ndarray:
        """[R, D] of the requests of a table."""
        return np.stack([self.vectors[request] for request in table.requests])


def texts(requests: Sequence[str], seen: Sequence[str], block: TextBlock) -> Texts:
    """What the observation part ``request_text`` tells a policy.

    Args:
        requests: all.
        seen: those that learners see, to which principal components are fitted.
        block: of the policy.

    Raises:
        InputError: as :func:`rlli_jax.sentences.encode` and ``components``.
    """
    found = _encoded(tuple(requests), block.encoder)
    places = np.array([requests.index(request) for request in seen])
    vectors = components(found.vectors, places, block.components)
    return Texts(dict(zip(requests, vectors, strict=True)), found.encoder)


_encoded = cache(encode)
