"""Scores of candidate texts, the way Lamorel and GLAM make a policy out of a language model.

The prompt is read once. The candidates are laid out as a prefix tree, so that what reads them runs
once per distinct prefix, not once per candidate and token: the six actions of GoToRedBall share the
first step, and "turn left" and "turn right" the second.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.errors import InputError

Scoring = Literal["log_probability", "logit"]


class Prompts(NamedTuple):
    """C prompts, padded on the right to the longest, S tokens."""

    ids: jax.Array  # int32 [C, S]
    mask: jax.Array  # bool [C, S], False where padded

    def take(self, index: jax.Array) -> "Prompts":
        """The prompts of these indices, e.g. the distinct texts of a minibatch."""
        return Prompts(self.ids[index], self.mask[index])


class Candidates(NamedTuple):
    """K candidate texts as a prefix tree with N inner nodes and E edges.

    Node 0 is the root: the start token of an encoder-decoder, a decoder's end of the prompt. An
    edge is a token that some candidate has after the prefix of a node; a candidate is the set of
    edges on its path.
    """

    tokens: jax.Array  # int32 [N], what is read at each node
    depth: jax.Array  # int32 [N], how many tokens of a candidate are read there
    visible: jax.Array  # bool [N, N], whether the node of the column is on the way to the row's
    edge_node: jax.Array  # int32 [E]
    edge_token: jax.Array  # int32 [E]
    member: jax.Array  # float32 [K, E], 1 where the edge is on the candidate's path


class Scores(NamedTuple):
    candidates: jax.Array  # float32 [C, K]
    hidden: jax.Array  # float32 [C, D], state at the root, for the value head


def encode_prompts(
    texts: Sequence[str], rows: Sequence[Sequence[int]], most_tokens: int
) -> Prompts:
    """Pad the prompts' tokens to the longest.

    Raises:
        InputError: no prompts; one that has no tokens, or more than the model takes.
    """
    if not texts:
        raise InputError("There are no prompts; give at least one.")
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if not row:
            raise InputError(f"Prompt {i} ({text!r}) has no tokens; give it some text.")
        if len(row) > most_tokens:
            raise InputError(
                f"Prompt {i} ({text[:40]!r}...) has {len(row)} tokens but the model takes at "
                f"most {most_tokens}; shorten it."
            )
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return Prompts(jnp.asarray(ids), jnp.asarray(mask))


def encode_candidates(
    texts: Sequence[str],
    rows: Sequence[Sequence[int]],
    *,
    start: int = 0,
    unknown: int | None = None,
) -> Candidates:
    """Build the prefix tree of the candidates' tokens.

    Args:
        texts: the candidates; for messages only.
        rows: their tokens, without an end-of-sequence token.
        start: what is read at the root.
        unknown: the token of words that the tokenizer does not know.

    Raises:
        InputError: no candidates; one that has no tokens, or an unknown one; two with the same
            tokens.
    """
    if not texts:
        raise InputError("There are no candidates; give at least one.")
    rows = [tuple(row) for row in rows]
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if not row:
            raise InputError(f"Candidate {i} ({text!r}) has no tokens; give it some text.")
        if (first := rows.index(row)) != i:
            raise InputError(
                f"Candidates {first} ({texts[first]!r}) and {i} ({text!r}) have the same "
                "tokens; make them differ in words that the tokenizer knows."
            )
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if unknown in row:
            raise InputError(
                f"Candidate {i} ({text!r}) has a word that the tokenizer does not know; use words "
                "that it has, or the tokenizer that belongs to the model."
            )

    edges = dict.fromkeys(row[: i + 1] for row in rows for i in range(len(row)))
    nodes = {prefix: i for i, prefix in enumerate(dict.fromkeys(edge[:-1] for edge in edges))}
    return Candidates(
        tokens=jnp.array([node[-1] if node else start for node in nodes], jnp.int32),
        depth=jnp.array([len(node) for node in nodes], jnp.int32),
        visible=jnp.array([[row[: len(col)] == col for col in nodes] for row in nodes]),
        edge_node=jnp.array([nodes[edge[:-1]] for edge in edges], jnp.int32),
        edge_token=jnp.array([edge[-1] for edge in edges], jnp.int32),
        member=jnp.array([[row[: len(e)] == e for e in edges] for row in rows], jnp.float32),
    )


def sum_along(logits: jax.Array, candidates: Candidates, scoring: Scoring) -> jax.Array:
    """Scores of the candidates [C, K] from next-token logits [C, N, V] at the tree's nodes.

    Softmax over the candidates is Lamorel's policy. ``log_probability``: sum of the candidate's
    token log-probabilities; no length normalisation, no end-of-sequence term. ``logit``: what
    Lamorel computed before August 2025: the sum of raw logits, plus 1.0 for each token by which the
    candidate is shorter than the longest one (its padding counted as 1.0).
    """
    edge = logits[:, candidates.edge_node, candidates.edge_token]  # [C, E]
    # Log-probabilities are summed with all their digits, whatever the products of the model are.
    along = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    if scoring == "log_probability":
        edge = edge - jax.nn.logsumexp(logits, axis=-1)[:, candidates.edge_node]
        return along(edge, candidates.member.T)
    length = candidates.member.sum(axis=1)
    return along(edge, candidates.member.T) + (length.max() - length)
