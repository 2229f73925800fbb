"""Scores of candidate texts, the way Lamorel and GLAM make a policy out of a language model.

The encoder runs once per prompt. The candidates are laid out as a prefix tree, so the decoder and
the head run once per distinct prefix, not once per candidate and token: the six actions of
GoToRedBall share the first step, and "turn left" and "turn right" the second.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.language.t5.model import T5, T5Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

    Node 0 is the root: the start token, position 0. An edge is a token that some candidate has
    after the prefix of a node; a candidate is the set of edges on its path.
    """

    tokens: jax.Array  # int32 [N], the decoder's input at each node
    depth: jax.Array  # int32 [N], its position
    visible: jax.Array  # bool [N, N], whether the node of the column is on the way to the row's
    edge_node: jax.Array  # int32 [E]
    edge_token: jax.Array  # int32 [E]
    member: jax.Array  # float32 [K, E], 1 where the edge is on the candidate's path


class Scores(NamedTuple):
    candidates: jax.Array  # float32 [C, K]
    hidden: jax.Array  # float32 [C, D], decoder state at position 0, for the value head


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase", config: T5Config, prompts: Sequence[str]
) -> Prompts:
    """Tokenise prompts, without an end-of-sequence token, as Lamorel does.

    Raises:
        InputError: no prompts; one that has no tokens, or more than the model takes.
    """
    if not prompts:
        raise InputError("There are no prompts; give at least one.")
    limit = min(config.n_positions, tokenizer.model_max_length)
    rows = _tokenise(tokenizer, prompts)
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        if not row:
            raise InputError(f"Prompt {i} ({prompt!r}) has no tokens; give it some text.")
        if len(row) > limit:
            raise InputError(
                f"Prompt {i} ({prompt[:40]!r}...) has {len(row)} tokens but the model takes at "
                f"most {limit}; shorten it."
            )
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return Prompts(jnp.asarray(ids), jnp.asarray(mask))


def encode_candidates(
    tokenizer: "PreTrainedTokenizerBase", config: T5Config, candidates: Sequence[str]
) -> Candidates:
    """Tokenise candidates, without an end-of-sequence token, and build their prefix tree.

    Raises:
        InputError: no candidates; one that has no tokens; two with the same tokens.
    """
    if not candidates:
        raise InputError("There are no candidates; give at least one.")
    rows = [tuple(row) for row in _tokenise(tokenizer, candidates)]
    for i, (candidate, row) in enumerate(zip(candidates, rows, strict=True)):
        if not row:
            raise InputError(f"Candidate {i} ({candidate!r}) has no tokens; give it some text.")
        if (first := rows.index(row)) != i:
            raise InputError(
                f"Candidates {first} ({candidates[first]!r}) and {i} ({candidate!r}) have the same "
                "tokens; make them differ in words that the tokenizer knows."
            )

    edges = dict.fromkeys(row[: i + 1] for row in rows for i in range(len(row)))
    nodes = {prefix: i for i, prefix in enumerate(dict.fromkeys(edge[:-1] for edge in edges))}
    start = config.decoder_start_token_id
    return Candidates(
        tokens=jnp.array([node[-1] if node else start for node in nodes], jnp.int32),
        depth=jnp.array([len(node) for node in nodes], jnp.int32),
        visible=jnp.array([[row[: len(col)] == col for col in nodes] for row in nodes]),
        edge_node=jnp.array([nodes[edge[:-1]] for edge in edges], jnp.int32),
        edge_token=jnp.array([edge[-1] for edge in edges], jnp.int32),
        member=jnp.array([[row[: len(e)] == e for e in edges] for row in rows], jnp.float32),
    )


def _tokenise(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


@partial(jax.jit, static_argnames=("config", "scoring"))
def score(
    config: T5Config,
    params: Any,
    prompts: Prompts,
    candidates: Candidates,
    scoring: Scoring = "log_probability",
) -> Scores:
    """Score every candidate after every prompt; softmax over the candidates is Lamorel's policy.

    ``log_probability``: sum of the candidate's token log-probabilities; no length normalisation,
    no end-of-sequence term. ``logit``: what Lamorel computed before August 2025: the sum of raw
    logits, plus 1.0 for each token by which the candidate is shorter than the longest one (its
    padding counted as 1.0).

    Jitted, differentiable in ``params``; ``config`` and ``scoring`` are static.
    """
    hidden, logits = T5(config).apply(
        {"params": params},
        prompts.ids,
        prompts.mask,
        candidates.tokens,
        candidates.depth,
        candidates.visible,
    )
    edge = logits[:, candidates.edge_node, candidates.edge_token]  # [C, E]
    # Log-probabilities are summed with all their digits, whatever the products of the model are.
    along = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    if scoring == "log_probability":
        edge = edge - jax.nn.logsumexp(logits, axis=-1)[:, candidates.edge_node]
        total = along(edge, candidates.member.T)
    else:
        length = candidates.member.sum(axis=1)
        total = along(edge, candidates.member.T) + (length.max() - length)
    return Scores(total, hidden[:, 0])
