"""A table of QoE and its users on the device, as environments draw from it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.envs.chance import index_below
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable


@struct.dataclass(kw_only=True)
class QoESamples:
    """K users, R requests, L providers and up to S samples of each; all traced."""

    qoe: jax.Array  # [K, R, L, S] float32 in [0, 1], the valid samples of a cell first
    count: jax.Array  # [K, R, L] int32, valid samples in each cell; 0 is a hole
    mean: jax.Array  # [K, R, L] float32, what a choice is worth, 0 in a hole
    personas: jax.Array | None  # [K, 5] float32, Big Five on the 1-5 scale; None: unknown
    request_features: jax.Array  # [R, F] float32, what the observation tells of a request

    def drawn(self, cell: Any, chance: jax.Array) -> jax.Array:
        """One of the valid samples of ``cell`` = (users, requests, providers), which has some.

        ``chance``, uniform in [0, 1), and the result have the shape of the cell's indices.
        """
        return self.qoe[(*cell, index_below(self.count[cell], chance))]


def on_device(
    table: QoETable,
    personas: np.ndarray | None = None,
    request_features: np.ndarray | None = None,
    worth: QoETable | None = None,
) -> dict[str, Any]:
    """The fields of :class:`QoESamples`.

    Args:
        table: QoE [K, R, L, S] with its validity mask.
        personas: Big Five [K, 5] on the 1-5 scale, row k for ``table.users[k]``; None if they are
            unknown.
        request_features: [R, F], what the observation tells of a request; one-hot if absent.
        worth: the table by whose mean QoE choices are valued, with the names and holes of
            ``table``; ``table`` itself if absent.

    Raises:
        InputError: shapes or holes disagree, or a user has no sound persona.
    """
    requests = table.qoe.shape[1]
    features = np.eye(requests) if request_features is None else np.asarray(request_features)
    if personas is not None:
        _check_personas(table, np.asarray(personas, np.float64))
    if features.ndim != 2 or len(features) != requests:
        raise InputError(
            f"the table has {requests} requests, but the request features have shape "
            f"{features.shape}; give one row for each request."
        )
    worth = table if worth is None else worth
    if worth.legal.shape != table.legal.shape or (worth.legal != table.legal).any():
        raise InputError("The table of worth has other cells than the table; give it the same.")
    # The valid samples go first, so that a draw is one uniform number times their count.
    first = np.argsort(~table.valid, axis=-1, kind="stable")
    return {
        "qoe": jnp.asarray(np.take_along_axis(table.qoe, first, -1), jnp.float32),
        "count": jnp.asarray(table.valid.sum(-1), jnp.int32),
        "mean": jnp.asarray(worth.mean, jnp.float32),
        "personas": None if personas is None else jnp.asarray(personas, jnp.float32),
        "request_features": jnp.asarray(features, jnp.float32),
    }


def text_vectors(table: QoETable, vectors: np.ndarray | None) -> jax.Array | None:
    """Vectors of the requests' words, [R, D], on the device.

    Raises:
        InputError: they are not one for each request.
    """
    if vectors is None:
        return None
    if np.ndim(vectors) != 2 or len(vectors) != len(table.requests):
        raise InputError(
            f"request_text has shape {np.shape(vectors)}, but the table has "
            f"{len(table.requests)} requests; give one vector for each request."
        )
    return jnp.asarray(vectors, jnp.float32)


def _check_personas(table: QoETable, personas: np.ndarray) -> None:
    """Raise InputError unless there is one sound Big Five vector for each user."""
    people = len(table.users)
    if personas.ndim != 2 or personas.shape[1] != 5 or len(personas) > people:
        raise InputError(
            f"the table has {people} users, but the personas have shape {personas.shape}; give "
            f"one Big Five vector for each user, shape ({people}, 5)."
        )
    known = np.zeros(people, bool)
    known[: len(personas)] = ((personas >= 1) & (personas <= 5)).all(1)  # NaN compares false
    for k in np.flatnonzero(~known)[:1]:
        raise InputError(
            f"user {table.users[k]!r} has no persona; give one Big Five vector for each user: row "
            f"{k} needs five traits from 1 to 5."
        )
