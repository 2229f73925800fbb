"""LoRA (Hu et al. 2022): low-rank updates of some kernels, as a pytree of their own.

Train the small tree and merge it inside the loss; the model itself stays as it was loaded:

    loss = lambda lora: ... model.score(merge_lora(params, lora, alpha), ...)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from rlli_jax.errors import InputError

# Queries and values, as T5 and as Llama name them.
_ATTENTION = ("q", "v", "q_proj", "v_proj")


def init_lora(
    key: jax.Array, params: Any, *, rank: int = 16, targets: Sequence[str] | None = None
) -> dict:
    """``a`` [..., in, rank] uniform in +-1/sqrt(in), ``b`` [..., rank, out] zero, for each targeted
    kernel [..., in, out]; leading axes are those of layers.

    Zero ``b`` means that the merged model begins as the loaded one. Defaults: Lamorel's, the
    queries and values of the attention.

    Raises:
        InputError: a target names no layer of the model.
    """
    kernels = {
        path[:-1]: leaf for path, leaf in flatten_dict(params).items() if path[-1] == "kernel"
    }
    names = sorted({path[-1] for path in kernels})
    for target in targets or ():
        if target not in names:
            raise InputError(f"LoRA target {target!r} is no layer of the model; it has {names}.")
    targets = targets or _ATTENTION
    chosen = {path: kernel for path, kernel in kernels.items() if path[-1] in targets}
    lora = {}
    for (path, kernel), k in zip(chosen.items(), jax.random.split(key, len(chosen)), strict=True):
        *layers, rows, columns = kernel.shape
        bound = rows**-0.5
        shape = (*layers, rows, rank)
        lora[(*path, "a")] = jax.random.uniform(k, shape, minval=-bound, maxval=bound)
        lora[(*path, "b")] = jnp.zeros((*layers, rank, columns))
    return unflatten_dict(lora)


def merge_lora(params: Any, lora: Any, alpha: float | jax.Array = 32.0) -> dict:
    """Parameters with each targeted kernel replaced by kernel + alpha / rank * a b."""
    flat, updates = dict(flatten_dict(params)), flatten_dict(lora)
    for path, a in updates.items():
        if path[-1] == "a":
            layer = path[:-1]
            product = jnp.matmul(a, updates[(*layer, "b")], precision=jax.lax.Precision.HIGHEST)
            update = alpha / a.shape[-1] * product
            flat[(*layer, "kernel")] = flat[(*layer, "kernel")] + update
    return unflatten_dict(flat)
