"""Matrix products of the language models, and in which type they are computed.

Products are those of ``ComputeDtype``, summed in float32: in "float32" with all their digits on
every backend (a GPU would round to TF32, a TPU to bfloat16, if it were not told), so that scores
agree with those of torch; "bfloat16" is what accelerators are fast at. Weights, norms, the residual
stream, softmax and scores are float32 in both.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

ComputeDtype = Literal["float32", "bfloat16"]

MASKED = -1e9  # softmax turns it into an exact 0 in float32

_EXACT: Any = {
    "precision": jax.lax.Precision.HIGHEST,
    "preferred_element_type": jnp.float32,
}


def normal(std: float) -> nn.initializers.Initializer:
    """Random weights of this standard deviation."""
    return nn.initializers.normal(std)


def dense(
    dtype: ComputeDtype, width: int, std: float, name: str | None = None, *, bias: bool = False
) -> nn.Dense:
    """A layer: products in ``dtype``, sums and result in float32."""
    return nn.Dense(
        width,
        use_bias=bias,
        kernel_init=normal(std),
        dtype=dtype,
        dot_general=lambda x, y, dimensions, **_: jax.lax.dot_general(x, y, dimensions, **_EXACT),
        name=name,
    )


def matmul(dtype: ComputeDtype, x: jax.Array, y: jax.Array) -> jax.Array:
    """As ``dense``, of two arrays."""
    return jnp.matmul(x.astype(dtype), y.astype(dtype), **_EXACT)


def visible_bias(visible: jax.Array) -> jax.Array:
    """What is added to attention before its softmax: 0 where visible."""
    return jnp.where(visible, 0.0, MASKED)
