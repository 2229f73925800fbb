"""Decoder-only models of Llama's architecture in flax.linen: Llama (Touvron et al. 2023), SmolLM2,
Mistral, Qwen2.

RMS norm before each layer, rotary positions (Su et al. 2021), queries that share keys and values in
groups (Ainslie et al. 2023), a SwiGLU MLP (Shazeer 2020); Qwen2 adds biases to queries, keys and
values. All layers are one ``scan``: a deep model compiles as fast as a shallow one, and each of its
parameters has an axis of layers in front.

After each prompt the model reads a *tree* of tokens instead of a sequence: candidate texts that
begin alike share their common prefix, and one pass scores all of them. The tree's root is the last
token of the prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.language.products import ComputeDtype, dense, matmul, normal, visible_bias
from rlli_jax.learners.cpu import compiler_options


@dataclass(frozen=True)
class LongContext:
    """How Llama 3.1 stretches slow rotations beyond the context it was first trained on."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a model; names as in Hugging Face's ``LlamaConfig``."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    long_context: LongContext | None = None
    tie_word_embeddings: bool = False  # the head is the transposed embedding
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int = 0  # how many tokens each sees, itself included; 0 for all
    max_position_embeddings: int = 2_048  # longest prompt, in tokens
    compute_dtype: ComputeDtype = "float32"  # of matrix products; no key of Hugging Face's

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.hidden_size

    def module(self) -> "Llama":
        """That computes what a model of this shape says."""
        return Llama(self)

    def text_bytes(self, tokens: int, nodes: int) -> int:
        """Memory, roughly, of the gradient of one text's scores: a prompt of ``tokens`` tokens,
        ``nodes`` nodes of the candidates' tree."""
        length = tokens + nodes - 1
        heads = self.num_attention_heads + self.num_key_value_heads
        one = 8 * self.hidden_size + 5 * self.intermediate_size + 4 * heads * self.head_dim
        attention = 3 * self.num_attention_heads * length
        layers = self.num_hidden_layers * length * (one + attention)
        return 4 * (layers + 3 * nodes * self.vocab_size)


def rotation_speeds(config: LlamaConfig) -> np.ndarray:
    """Angle of each rotary pair for one position, [head_dim / 2] float32."""
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float32)
    speed = 1.0 / config.rope_theta ** (pairs / config.head_dim)
    far = config.long_context
    if far is None:
        return np.asarray(speed, np.float32)
    turns = far.original_max_position_embeddings * speed / (2 * np.pi)
    fast = (turns - far.low_freq_factor) / (far.high_freq_factor - far.low_freq_factor)
    fast = np.clip(fast, 0, 1)
    return np.asarray(fast * speed + (1 - fast) * speed / far.factor, np.float32)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turn the pairs (i, i + d / 2) of x [C, L, H, d] by angles [C, L, d / 2]."""
    a, b = jnp.split(x, 2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: tuple[jax.Array, jax.Array], bias: jax.Array
    ) -> jax.Array:
        """x [C, L, D], angles' cosine and sine [C, L, d / 2], bias [C, L, L] -> [C, L, D]."""
        c = self.config
        shared = c.num_attention_heads // c.num_key_value_heads

        def heads(name: str, count: int) -> jax.Array:
            std = c.hidden_size**-0.5
            layer = dense(c.compute_dtype, count * c.head_dim, std, name, bias=c.qkv_bias)
            return layer(x).reshape(*x.shape[:-1], count, c.head_dim)

        query = rotate(heads("q_proj", c.num_attention_heads), *angles)
        key = rotate(heads("k_proj", c.num_key_value_heads), *angles)
        value = heads("v_proj", c.num_key_value_heads)
        # The queries of a group stand side by side: [C, Hkv, G, L, d] against [C, Hkv, 1, L, d].
        query = query.reshape(*x.shape[:-1], c.num_key_value_heads, shared, c.head_dim)
        query = query.transpose(0, 2, 3, 1, 4)
        key, value = (y.transpose(0, 2, 1, 3)[:, :, None] for y in (key, value))
        fit = matmul(c.compute_dtype, query * c.head_dim**-0.5, key.swapaxes(-2, -1))
        weights = jax.nn.softmax(fit + bias[:, None, None])  # [C, Hkv, G, L, L]
        mixed = matmul(c.compute_dtype, weights, value).transpose(0, 3, 1, 2, 4)
        std = (c.num_attention_heads * c.head_dim) ** -0.5
        out = dense(c.compute_dtype, c.hidden_size, std, "o_proj", bias=c.output_bias)
        return out(mixed.reshape(*x.shape[:-1], -1))


class MLP(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config

        def layer(name: str, width: int, y: jax.Array) -> jax.Array:
            std = y.shape[-1] ** -0.5
            return dense(c.compute_dtype, width, std, name, bias=c.mlp_bias)(y)

        gate = jax.nn.silu(layer("gate_proj", c.intermediate_size, x))
        return layer("down_proj", c.hidden_size, gate * layer("up_proj", c.intermediate_size, x))


class Layer(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: tuple[jax.Array, jax.Array], bias: jax.Array
    ) -> tuple[jax.Array, None]:
        c = self.config
        normed = nn.RMSNorm(c.rms_norm_eps, name="input_layernorm")(x)
        x = x + Attention(c, name="self_attn")(normed, angles, bias)
        normed = nn.RMSNorm(c.rms_norm_eps, name="post_attention_layernorm")(x)
        return x + MLP(c, name="mlp")(normed), None


class Llama(nn.Module):
    """Embedding, layers and head. Shapes: C contexts, S prompt tokens, N tree nodes, D, V."""

    config: LlamaConfig

    def setup(self) -> None:
        c = self.config
        std = c.hidden_size**-0.5
        self.embed_tokens = nn.Embed(c.vocab_size, c.hidden_size, embedding_init=normal(std))
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.num_hidden_layers,
        )
        self.layers = layers(c)
        self.norm = nn.RMSNorm(c.rms_norm_eps)
        if not c.tie_word_embeddings:
            self.lm_head = dense(c.compute_dtype, c.vocab_size, std)

    def read(self, ids: jax.Array, position: jax.Array, visible: jax.Array) -> jax.Array:
        """Read tokens ids [C, L] at positions [C, L], each of which sees visible [C, L, L] bool
        -> hidden states [C, L, D], after the final norm."""
        angle = position[..., None] * jnp.asarray(rotation_speeds(self.config))
        angles = jnp.cos(angle), jnp.sin(angle)
        x, _ = self.layers(self.embed_tokens(ids), angles, visible_bias(visible))
        return self.norm(x)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., V]."""
        if self.config.tie_word_embeddings:
            return matmul(self.config.compute_dtype, hidden, self.embed_tokens.embedding.T)
        return self.lm_head(hidden)

    def __call__(
        self,
        ids: jax.Array,
        mask: jax.Array,
        tokens: jax.Array,
        depth: jax.Array,
        visible: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden states [C, N, D] and next-token logits [C, N, V] at every node of the tree.

        ids int32 [C, S], mask bool [C, S] (False: padding, on the right); tokens int32 [N], depth
        int32 [N], visible bool [N, N] (row sees column). Node 0, the root, is the prompt's last
        token, whatever ``tokens`` says.
        """
        contexts, width = ids.shape
        length = mask.sum(1)
        branches = len(tokens) - 1
        all_ids = jnp.concatenate([ids, jnp.tile(tokens[1:], (contexts, 1))], 1)
        place = jnp.tile(jnp.arange(width), (contexts, 1))
        position = jnp.concatenate([place, length[:, None] + depth[1:] - 1], 1)
        earlier = jnp.tri(width, dtype=bool) & mask[:, None]  # [C, S, S]
        prompt_sees = jnp.pad(earlier, ((0, 0), (0, 0), (0, branches)))
        among = jnp.tile(visible[1:, 1:], (contexts, 1, 1))
        whole_prompt = jnp.tile(mask[:, None], (1, branches, 1))
        node_sees = jnp.concatenate([whole_prompt, among], 2)
        sees = jnp.concatenate([prompt_sees, node_sees], 1)
        if self.config.sliding_window:
            distance = position[:, :, None] - position[:, None]
            sees &= distance < self.config.sliding_window
        hidden = self.read(all_ids, position, sees)
        root = jnp.take_along_axis(hidden, (length - 1)[:, None, None], 1)
        hidden = jnp.concatenate([root, hidden[:, width:]], 1)
        return hidden, self.logits(hidden)


def init_params(key: jax.Array, config: LlamaConfig) -> dict:
    """Random parameters: a nested dict of float32 arrays. Their size is one over the root of what
    a layer reads, so that a narrow model hears its input too."""
    one = jnp.zeros(1, jnp.int32)
    params: Mapping[str, Any] = Llama(config).init(
        key, one[None], jnp.ones((1, 1), bool), one, one, jnp.ones((1, 1), bool)
    )["params"]
    return dict(params)


def draw_params(key: jax.Array, config: LlamaConfig) -> dict:
    """``init_params``, compiled."""
    drawn: dict = _draw()(key, config)
    return drawn


@cache
def _draw() -> Any:
    # What runs once is hardly worth optimising.
    options = compiler_options({"xla_backend_optimization_level": 0})
    return jax.jit(init_params, static_argnames="config", compiler_options=options)
