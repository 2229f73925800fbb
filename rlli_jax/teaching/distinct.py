"""Read each distinct text of a batch once, however many samples are about it.

A language model's gradient is what an update costs. Of a large batch of samples it need run over
the distinct texts only, whose number is known only while the program runs; so texts are read in
groups of a fixed size, as many groups as there is need for.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from rlli_jax.envs.contract import PyTree


def group_size(text_bytes: int = 1, most: int | None = None) -> int:
    """Texts that are read together, ``most`` of them, by what the gradient of one takes (roughly).

    What a tiny model computes for 64 fits a CPU core's cache; an accelerator is idle with so few
    (512 is a choice, not a measurement). Of large models, as many as fit an eighth of the memory
    that is there in all: what is free would change from run to run, and the rounding with it.
    """
    most = most or (64 if jax.default_backend() == "cpu" else 512)
    return max(1, min(most, int(_memory() / 8) // max(text_bytes, 1)))


@cache
def _memory() -> float:
    """Bytes of the first device; of a CPU, of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not told on this system
        return 8e9


Read = Callable[..., PyTree]


def over_distinct(read: Read, num_texts: int, group: int | None = None) -> Read:
    """What ``read`` gives for every sample, though it is asked about each distinct text once.

    ``read`` and the result: (params, numbers of texts int32 [B], *fixed) -> leaves [B, ...].
    Differentiable in ``params``, not in what is ``fixed``, such as the weights that a LoRA adapts;
    with more than one group, the backward pass computes the forward one anew, so that its memory is
    that of one group. ``group``: its texts, ``group_size`` if absent.
    """

    def call(params: PyTree, text: jax.Array, *fixed: PyTree) -> PyTree:
        most = min(text.size, num_texts)
        size = min(group or group_size(), most)
        groups = -(-most // size)
        # Those in use come first.
        distinct, row = jnp.unique(text, size=groups * size, fill_value=0, return_inverse=True)
        if groups == 1:
            table = read(params, distinct, *fixed)
        else:
            used = row.max() // size + 1
            table = _read_groups(read, params, fixed, distinct.reshape(groups, size), used)
        return jax.tree.map(lambda x: x[row], table)

    return call


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read_groups(
    read: Read, params: PyTree, fixed: tuple, groups: jax.Array, used: jax.Array
) -> PyTree:
    """``read`` for groups of texts [G, size], ``used`` of them -> leaves [G * size, ...]."""
    like = jax.eval_shape(read, params, groups[0], *fixed)
    table = jax.tree.map(lambda x: jnp.zeros((len(groups), *x.shape), x.dtype), like)

    def one(i: jax.Array, table: PyTree) -> PyTree:
        new = read(params, groups[i], *fixed)
        return jax.tree.map(lambda x, y: x.at[i].set(y), table, new)

    table = jax.lax.fori_loop(0, used, one, table)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), table)


def _forward(
    read: Read, params: PyTree, fixed: tuple, groups: jax.Array, used: jax.Array
) -> tuple[PyTree, Any]:
    return _read_groups(read, params, fixed, groups, used), (params, fixed, groups, used)


def _backward(read: Read, kept: Any, cotangent: PyTree) -> tuple[PyTree, None, None, None]:
    params, fixed, groups, used = kept
    cotangent = jax.tree.map(lambda x: x.reshape(*groups.shape, *x.shape[1:]), cotangent)

    def one(i: jax.Array, total: PyTree) -> PyTree:
        _, pull = jax.vjp(lambda params: read(params, groups[i], *fixed), params)
        (gradient,) = pull(jax.tree.map(lambda x: x[i], cotangent))
        return jax.tree.map(jnp.add, total, gradient)

    total = jax.lax.fori_loop(0, used, one, jax.tree.map(jnp.zeros_like, params))
    return total, None, None, None


_read_groups.defvjp(_forward, _backward)
