"""The T5 encoder-decoder in flax.linen (Raffel et al. 2020; v1.1 and Flan-T5 included).

Modules carry the names of the Hugging Face checkpoint, so that loading is a renaming. The decoder
reads a *tree* of tokens instead of a sequence: candidate texts that begin alike share their common
prefix, and one pass scores all of them. A plain sequence is the tree without branches.

T5's peculiarities: RMS norm before each layer, no biases, no 1/sqrt(d) in attention, one table of
relative position biases per stack (held by its first block), dropout left out: scores must be
reproducible between rollout and update.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.language.products import (
    ComputeDtype,
    dense,
    matmul,
    normal,
    visible_bias,
)
from rlli_jax.learners.cpu import compiler_options


@dataclass(frozen=True)
class T5Config:
    """The shape of a T5; names and defaults as in Hugging Face's ``T5Config`` (t5-small)."""

    vocab_size: int = 32_128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2_048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    tie_head: bool = True  # the head is the transposed embedding
    scale_decoder_outputs: bool = True  # by d_model ** -0.5 before the head (T5 before v1.1)
    decoder_start_token_id: int = 0
    n_positions: int = 512  # longest prompt, in tokens
    compute_dtype: ComputeDtype = "float32"  # of matrix products; no key of Hugging Face's

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.d_model

    def module(self) -> "T5":
        """That computes what a model of this shape says."""
        return T5(self)

    def text_bytes(self, tokens: int, nodes: int) -> int:
        """Memory, roughly, of the gradient of one text's scores: a prompt of ``tokens`` tokens,
        ``nodes`` nodes of the candidates' tree."""
        one = 12 * self.d_model + 4 * self.d_ff + 6 * self.num_heads * self.d_kv
        attention = 3 * self.num_heads * (tokens + nodes)
        layers = self.num_layers * tokens + self.num_decoder_layers * nodes
        return 4 * (layers * (one + attention) + 3 * nodes * self.vocab_size)


@lru_cache
def _bucket_table(bidirectional: bool, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each distance 0..max_distance; half of them exact, the others logarithmic."""
    buckets = num_buckets // 2 if bidirectional else num_buckets
    exact = buckets // 2
    distance = np.arange(max_distance + 1, dtype=np.float32)
    ratio = np.log(np.maximum(distance, 1) / np.float32(exact)) / np.float32(
        np.log(max_distance / exact)
    )
    large = np.minimum(exact + (ratio * (buckets - exact)).astype(np.int32), buckets - 1)
    return np.where(distance < exact, distance.astype(np.int32), large)


def relative_buckets(
    query: jax.Array, key: jax.Array, *, bidirectional: bool, config: T5Config
) -> jax.Array:
    """Buckets of the relative positions, int32 [Q, K], for positions [Q] and [K]."""
    buckets, reach = config.relative_attention_num_buckets, config.relative_attention_max_distance
    offset = key[None, :] - query[:, None]
    distance = jnp.abs(offset) if bidirectional else jnp.maximum(-offset, 0)
    table = jnp.asarray(_bucket_table(bidirectional, buckets, reach))
    bucket = table[jnp.minimum(distance, reach)]
    return bucket + (offset > 0) * (buckets // 2) if bidirectional else bucket


class Attention(nn.Module):
    config: T5Config
    has_position_bias: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, memory: jax.Array, bias: jax.Array, buckets: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """x [..., Q, D], memory [..., K, D], bias [..., H or 1, Q, K] -> [..., Q, D], bias.

        The block that holds the position biases adds them to the bias for all later blocks.
        """
        c = self.config
        inner = c.num_heads * c.d_kv

        def heads(name: str, std: float, y: jax.Array) -> jax.Array:
            y = dense(c.compute_dtype, inner, std, name)(y)
            return y.reshape(*y.shape[:-1], c.num_heads, c.d_kv).swapaxes(-3, -2)  # [..., H, L, d]

        query = heads("q", (c.d_model * c.d_kv) ** -0.5, x)
        key = heads("k", c.d_model**-0.5, memory)
        value = heads("v", c.d_model**-0.5, memory)
        if self.has_position_bias:
            position = nn.Embed(
                c.relative_attention_num_buckets,
                c.num_heads,
                embedding_init=normal(c.d_model**-0.5),
                name="relative_attention_bias",
            )(buckets)
            bias = bias + position.transpose(2, 0, 1)
        fit = matmul(c.compute_dtype, query, key.swapaxes(-2, -1))
        weights = jax.nn.softmax(fit + bias)  # [..., H, Q, K]
        mixed = matmul(c.compute_dtype, weights, value).swapaxes(-3, -2)
        out = dense(c.compute_dtype, c.d_model, inner**-0.5, "o")
        return out(mixed.reshape(*mixed.shape[:-2], inner)), bias


class AttentionLayer(nn.Module):
    config: T5Config
    attention: Literal["SelfAttention", "EncDecAttention"]
    has_position_bias: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        memory: jax.Array | None = None,
        buckets: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        normed = nn.RMSNorm(self.config.layer_norm_epsilon, name="layer_norm")(x)
        attend = Attention(self.config, self.has_position_bias, name=self.attention)
        out, bias = attend(normed, normed if memory is None else memory, bias, buckets)
        return x + out, bias


class FeedForward(nn.Module):
    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config

        def layer(name: str, width: int, std: float, y: jax.Array) -> jax.Array:
            return dense(c.compute_dtype, width, std, name)(y)

        if c.feed_forward_proj == "relu":
            x = jax.nn.relu(layer("wi", c.d_ff, c.d_model**-0.5, x))
        else:
            gate = jax.nn.gelu(layer("wi_0", c.d_ff, c.d_model**-0.5, x), approximate=True)
            x = gate * layer("wi_1", c.d_ff, c.d_model**-0.5, x)
        return layer("wo", c.d_model, c.d_ff**-0.5, x)


class FeedForwardLayer(nn.Module):
    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normed = nn.RMSNorm(self.config.layer_norm_epsilon, name="layer_norm")(x)
        return x + FeedForward(self.config, name="DenseReluDense")(normed)


class Block(nn.Module):
    config: T5Config
    has_position_bias: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        buckets: jax.Array,
        memory: jax.Array | None = None,
        memory_bias: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        first = AttentionLayer(c, "SelfAttention", self.has_position_bias, name="layer_0")
        x, bias = first(x, bias, buckets=buckets)
        if memory is None:
            return FeedForwardLayer(c, name="layer_1")(x), bias
        x, _ = AttentionLayer(c, "EncDecAttention", name="layer_1")(x, memory_bias, memory)
        return FeedForwardLayer(c, name="layer_2")(x), bias


class Stack(nn.Module):
    config: T5Config
    num_layers: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        buckets: jax.Array,
        memory: jax.Array | None = None,
        memory_bias: jax.Array | None = None,
    ) -> jax.Array:
        for i in range(self.num_layers):
            block = Block(self.config, has_position_bias=i == 0, name=f"block_{i}")
            x, bias = block(x, bias, buckets, memory, memory_bias)
        return nn.RMSNorm(self.config.layer_norm_epsilon, name="final_layer_norm")(x)


class T5(nn.Module):
    """Encoder, decoder and head. Shapes: C contexts, S prompt tokens, N tree nodes, D, V."""

    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.shared = nn.Embed(c.vocab_size, c.d_model, embedding_init=normal(1.0))
        self.encoder = Stack(c, c.num_layers)
        self.decoder = Stack(c, c.num_decoder_layers)
        if not c.tie_head:
            # As in T5X; Hugging Face draws a new head sqrt(d_model) times larger.
            self.lm_head = dense(c.compute_dtype, c.vocab_size, c.d_model**-0.5)

    def encode(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """ids int32 [C, S], mask bool [C, S] (False: padding) -> [C, S, D]."""
        position = jnp.arange(ids.shape[1])
        buckets = relative_buckets(position, position, bidirectional=True, config=self.config)
        return self.encoder(self.shared(ids), visible_bias(mask[:, None, None, :]), buckets)

    def decode(
        self,
        tokens: jax.Array,
        depth: jax.Array,
        visible: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
    ) -> jax.Array:
        """Decode one tree of tokens for every context.

        tokens int32 [N], depth int32 [N] (position of a node), visible bool [N, N] (row attends to
        column: its ancestors and itself), memory [C, S, D], mask bool [C, S] -> [C, N, D], after
        the final norm.
        """
        buckets = relative_buckets(depth, depth, bidirectional=False, config=self.config)
        x = self.shared(tokens)[None]  # one copy until the contexts come in by cross-attention
        memory_bias = visible_bias(mask[:, None, None, :])
        return self.decoder(x, visible_bias(visible[None, None]), buckets, memory, memory_bias)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., V]."""
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.config.d_model**-0.5
        if self.config.tie_head:
            return matmul(self.config.compute_dtype, hidden, self.shared.embedding.T)
        return self.lm_head(hidden)

    def __call__(
        self,
        ids: jax.Array,
        mask: jax.Array,
        tokens: jax.Array,
        depth: jax.Array,
        visible: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden states [C, N, D] and next-token logits [C, N, V] at every node of the tree."""
        hidden = self.decode(tokens, depth, visible, self.encode(ids, mask), mask)
        return hidden, self.logits(hidden)


def init_params(key: jax.Array, config: T5Config) -> dict:
    """Random parameters as T5 draws them: a nested dict of float32 arrays."""
    one = jnp.zeros(1, jnp.int32)
    return T5(config).init(
        key, one[None], jnp.ones((1, 1), bool), one, one, jnp.ones((1, 1), bool)
    )["params"]


def draw_params(key: jax.Array, config: T5Config) -> dict:
    """``init_params``, compiled."""
    return _draw()(key, config)


@cache
def _draw() -> Any:
    # What runs once is hardly worth optimising.
    options = compiler_options({"xla_backend_optimization_level": 0})
    return jax.jit(init_params, static_argnames="config", compiler_options=options)
