"""A language model as the policy of a session: the last turns are told to it in words.

It is asked once for each of the finitely many histories and requests; what it names is a table, and
the policy that follows it is compiled as any other.
"""

from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.teaching.planner import Situations

GRADES = ("disliked it", "found it fair", "liked it")
LIMIT = 5_000  # situations, more than which nobody wants to ask


def grade_bounds(mean: ArrayLike) -> np.ndarray:
    """Where :data:`GRADES` part: the terciles of the mean QoE [K, R, L], [2] float32."""
    return np.quantile(np.asarray(mean, np.float64), (1 / 3, 2 / 3)).astype(np.float32)


def histories(providers: int, turns: int) -> Iterator[tuple[int, ...]]:
    """The last turns of a session, the latest first: 1 + provider * 3 + grade, and 0 before it
    began; ``turns`` numbers each."""
    for known in range(turns + 1):
        for seen in product(range(1, 1 + providers * len(GRADES)), repeat=known):
            yield (*seen, *(0,) * (turns - known))


def session_situations(table: QoETable, turns: int) -> Situations:
    """What is asked: each history of the last ``turns`` turns with each request, in words.

    Args:
        table: whose providers and requests are named.
        turns: how many of the last turns are told.

    Raises:
        InputError: these are more than :data:`LIMIT` situations.
    """
    providers, requests = table.providers, table.requests
    each = len(providers) * len(GRADES)
    count = sum(each**known for known in range(turns + 1)) * len(requests)
    if count > LIMIT:
        raise InputError(
            f"remembered: the last {turns} turns of {len(providers)} providers, with "
            f"{len(requests)} requests, are {count:,} situations to ask about, more than "
            f"{LIMIT:,}; remember fewer turns."
        )
    return Situations(
        tuple(
            f"{_told(history, providers)}\nNow the person asks for: {request}."
            for history in histories(len(providers), turns)
            for request in requests
        ),
        tuple(providers),
        cue="The person will most like what is made by",
        question="Whose picture will the person like most now?",
    )


def _told(history: tuple[int, ...], providers: tuple[str, ...]) -> str:
    seen = [divmod(token - 1, len(GRADES)) for token in reversed(history) if token]
    if not seen:
        return "Nothing was shown to the person yet."
    return " ".join(
        f"The person was shown a picture by {providers[provider]} and {GRADES[grade]}."
        for provider, grade in seen
    )


def by_plan(plan: np.ndarray, bounds: np.ndarray, turns: int) -> Policy:
    """The policy that follows what was named for each of :func:`session_situations`.

    Args:
        plan: [situations, L], probabilities of providers.
        bounds: [2], where what was felt changes its grade.
        turns: how many of the last turns are told.

    Returns:
        A policy of :class:`~rlli_jax.envs.session.Session`; its memory is the history, [turns].
    """
    providers = plan.shape[1]
    base = 1 + providers * len(GRADES)
    places = base ** np.arange(turns)
    known = np.array(list(histories(providers, turns)))
    requests = len(plan) // len(known)
    row = np.zeros(base**turns, np.int32)
    row[known @ places] = np.arange(len(known))
    rows, logits, edges = jnp.asarray(row), jnp.log(jnp.asarray(plan)), jnp.asarray(bounds)

    def act(key: Key, seen: PolicyInput, history: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = seen.state
        latest = 1 + state.recent[0] * len(GRADES) + (state.reward > edges).sum()
        longer = jnp.concatenate([latest[None].astype(jnp.int32), history[:-1]])
        history = jnp.where(state.time > 0, longer, history)
        situation = rows[history @ jnp.asarray(places, jnp.int32)] * requests + state.request
        return jax.random.categorical(key, logits[situation]), history

    return Policy(jnp.zeros(turns, jnp.int32), act)
