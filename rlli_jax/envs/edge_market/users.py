"""The users of an edge market: personas, what they ask for, their QoE, and how tastes drift.

QoE comes from the oracle's table, by user, request and provider. Drift follows the two user
models of RecSim (Ie et al., arXiv:1909.04847): interest that moves with what was served (its
interest evolution), and satiation with what is served again and again (its long-term
satisfaction). It is off unless :class:`Drift` is given.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.envs.edge_market.tasks import Task
from rlli_jax.envs.qoe_samples import QoESamples, on_device
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable


class Drift(struct.PyTreeNode):
    """How tastes move when provider l serves user k with QoE q (of the table).

    interest_kl <- interest_kl + interest_rate ((2 q - 1) - interest_kl), in [-1, 1], from 0;
    satiation_k <- satiation_memory satiation_k, then satiation_kl + 1, from 0.
    The user then feels clip(q + interest_weight interest, 0, 1) / (1 + satiation_weight satiation).
    """

    interest_rate: float | jax.Array = 0.0  # in [0, 1]
    interest_weight: float | jax.Array = 0.2  # >= 0
    satiation_weight: float | jax.Array = 0.0  # >= 0
    satiation_memory: float | jax.Array = 0.7  # in [0, 1], kept from one task of a user to the next


class Tastes(struct.PyTreeNode):
    """Where the tastes of all users are."""

    interest: jax.Array  # [K, L] float32 in [-1, 1]
    satiation: jax.Array  # [K, L] float32 >= 0


@struct.dataclass(kw_only=True)
class Users(QoESamples):
    """K users and their R requests; all traced."""

    user_mix: jax.Array  # [K] float32, cumulative share of the tasks, the last is 1
    request_mix: jax.Array  # [R] float32, the same for requests
    drift: Drift | None = None


def make_users(
    table: QoETable,
    personas: np.ndarray | None,
    *,
    request_features: np.ndarray | None = None,
    user_mix: Sequence[float] | None = None,
    request_mix: Sequence[float] | None = None,
    drift: Drift | None = None,
) -> Users:
    """Put a table and its users on the device.

    Args:
        table: QoE [K, R, L, S] with its validity mask.
        personas: Big Five [K, 5] on the 1-5 scale, row k for ``table.users[k]``; None if
            they are unknown.
        request_features: [R, F], what the observation tells of a request; one-hot if absent.
        user_mix, request_mix: how often each user and each request comes, as weights; equal if
            absent. Users and requests are drawn independently.
        drift: how tastes move; they do not if absent.

    Raises:
        InputError: a user without persona or without a provider for some request, shapes that
            disagree, or impossible weights or drift.
    """
    table.require_served()  # users and requests are drawn independently
    people, asked, _, _ = table.qoe.shape
    if drift is not None:
        for name, value, top in (
            ("interest_rate", drift.interest_rate, 1.0),
            ("interest_weight", drift.interest_weight, np.inf),
            ("satiation_weight", drift.satiation_weight, np.inf),
            ("satiation_memory", drift.satiation_memory, 1.0),
        ):
            if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= top)):
                raise InputError(f"{name} of the drift is {value}: it must lie in [0, {top:g}]")
    return Users(
        **on_device(table, personas, request_features),
        user_mix=_cumulative(user_mix, people, "user_mix"),
        request_mix=_cumulative(request_mix, asked, "request_mix"),
        drift=drift,
    )


def sampled_qoe(users: Users, task: Task, provider: jax.Array) -> jax.Array:
    """QoE of the task's own sample of the judge at a provider with a rating, float32 []."""
    return users.drawn((task.user, task.request, provider), task.draw)


def felt(
    users: Users, tastes: Tastes | None, task: Task, qoe: jax.Array, provider: jax.Array
) -> jax.Array:
    """What the user feels of ``qoe`` [...] at ``provider`` [...], given where the tastes are."""
    if users.drift is None or tastes is None:
        return qoe
    interest = users.drift.interest_weight * tastes.interest[task.user, provider]
    weariness = users.drift.satiation_weight * tastes.satiation[task.user, provider]
    return jnp.clip(qoe + interest, 0.0, 1.0) / (1 + weariness)


def start_tastes(users: Users | None) -> Tastes | None:
    """Neutral tastes, or none where they do not drift."""
    if users is None or users.drift is None:
        return None
    neutral = jnp.zeros((users.qoe.shape[0], users.qoe.shape[2]))
    return Tastes(interest=neutral, satiation=neutral)


def move_tastes(
    users: Users, tastes: Tastes, task: Task, provider: jax.Array, qoe: jax.Array, served: jax.Array
) -> Tastes:
    """The tastes after ``provider`` served ``task`` with ``qoe``; the same if not ``served``."""
    drift, k = users.drift, task.user
    assert drift is not None
    interest = drift.interest_rate * ((2 * qoe - 1) - tastes.interest[k, provider])
    satiation = (drift.satiation_memory * tastes.satiation[k]).at[provider].add(1.0)
    return Tastes(
        interest=tastes.interest.at[k, provider].add(jnp.where(served, interest, 0.0)),
        satiation=tastes.satiation.at[k].set(jnp.where(served, satiation, tastes.satiation[k])),
    )


def _cumulative(weights: Sequence[float] | None, count: int, name: str) -> jax.Array:
    mix = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if mix.shape != (count,) or not ((mix >= 0) & np.isfinite(mix)).all() or mix.sum() <= 0:
        raise InputError(
            f"{name} is {mix.tolist()}: give {count} weights, none negative and not all 0"
        )
    share = (np.cumsum(mix) / mix.sum()).astype(np.float32)
    share[np.flatnonzero(mix)[-1] :] = 1.0  # rounding must not let a weight of 0 be drawn
    return jnp.asarray(share)
