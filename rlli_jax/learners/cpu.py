"""What makes programs fast on a CPU: options of the compiler, groups that fit a core's cache, and
operations written so that XLA's CPU code is good at them. On accelerators nothing here does harm.

How much each is worth is in docs/measured.md.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from rlli_jax.envs.contract import Key, PyTree

# On a CPU, compiling takes longer than a short training. LLVM's first level gives training the same
# speed as its last and compiles faster; what runs once need not be fast, but should compile soon.
TRAIN = {"xla_backend_optimization_level": 1}
EVALUATE = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
START = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}


def compiler_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that apply, for ``jax.jit``: on a CPU, what the installed XLA knows.

    What the user sets in ``XLA_FLAGS`` stays as it is.
    """
    if jax.default_backend() != "cpu":
        return {}
    flags = {flag.split("=")[0] for flag in os.environ.get("XLA_FLAGS", "").split()}
    return {k: v for k, v in options.items() if f"--{k}" not in flags and _known(k, v)}


@cache
def _known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


CACHE = 1 << 18  # bytes that a layer of one update may take in a CPU core's cache, over all runs


def fitting_group_size(rows: int, width: int) -> int:
    """For how many runs layers [rows, width] float32 of an update fit a CPU core's cache."""
    return max(1, CACHE // (4 * rows * width))


def vmap_in_groups(function: Callable, in_axes: Any, group_size: int) -> Callable:
    """``jax.vmap(function, in_axes)``; on a CPU by groups of at most ``group_size``, one by one.

    Groups are of one size, the largest that divides the number of runs. Where that would be less
    than half of what fits, as for a prime number of runs, the last run fills up the last group.
    Axes are 0 or None.
    """
    together = jax.vmap(function, in_axes)
    if jax.default_backend() != "cpu":
        return together

    mapped = jax.tree.map(lambda axis: axis is not None, in_axes, is_leaf=lambda x: x is None)

    def call(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)
        which = jax.tree.leaves(jax.tree.broadcast(mapped, args))
        split = {i: x for i, x in enumerate(leaves) if which[i]}
        runs = len(next(iter(split.values())))
        fits = min(group_size, runs)
        size = max(n for n in range(1, fits + 1) if runs % n == 0)
        if size == runs > 1:
            return together(*args)
        if 2 * size < fits:
            groups = -(-runs // fits)
            size = -(-runs // groups)
            filled = jnp.minimum(jnp.arange(groups * size), runs - 1)
            split = {i: x[filled] for i, x in split.items()}

        def group(part: dict[int, jax.Array]) -> PyTree:
            whole = [part.get(i, x) for i, x in enumerate(leaves)]
            return (together if size > 1 else function)(*jax.tree.unflatten(structure, whole))

        if size == 1:  # vmap over one is not free: indices become gathers and scatters
            return jax.lax.map(group, split)
        parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), split)
        result = jax.lax.map(group, parts)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:runs], result)

    return call


def permutations(key: Key, count: int, n: int) -> jax.Array:
    """Random orders of 0 .. n - 1, [count, n].

    The numbers ride in the low bits of random words, so that one plain sort does, which is faster
    than argsort. Too few random bits would be left for many.
    """
    bits = jax.random.bits(key, (count, n))
    if n > 1 << 16:
        return jnp.argsort(bits)
    low = jnp.uint32((1 << (n - 1).bit_length()) - 1)
    return jnp.sort((bits & ~low) | jnp.arange(n, dtype=jnp.uint32)) & low


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, in] @ [in, out], with a gradient of the kernel that XLA's CPU code computes fast."""
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # On a CPU x.T @ g runs at half speed or less if the transpose is folded into the product: the
    # barrier keeps it apart.
    transposed = jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T
    return gradient @ kernel.T, transposed @ gradient


_product.defvjp(_product_forward, _product_backward)


def dot_general(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """[..., in], [in, out] -> [..., out]: what ``nn.Dense`` multiplies with."""
    return _product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def orthogonal(gain: float = 1.0) -> Callable[..., jax.Array]:
    """``nn.initializers.orthogonal`` for kernels [in, out], by Gram-Schmidt instead of LAPACK.

    On a CPU, LAPACK's QR under ``vmap`` waits inside XLA's pool of threads for threads of the same
    pool: with as many devices as cores, programs wait for each other forever (jax 0.10). A larger
    pool (``PJRT_NPROC``) would help, but makes training up to half as fast.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        rows, columns = shape
        given = jax.random.normal(key, (max(shape), min(shape)), dtype)

        def without(basis: jax.Array, vector: jax.Array) -> jax.Array:
            dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
            return vector - dot(basis, dot(basis.T, vector))

        def column(i: jax.Array, basis: jax.Array) -> jax.Array:
            # Once more, for what rounding left (Giraud et al. 2005: twice is enough).
            vector = without(basis, without(basis, given[:, i]))
            return basis.at[:, i].set(vector / jnp.linalg.norm(vector))

        basis = jax.lax.fori_loop(0, min(shape), column, jnp.zeros_like(given))
        return float(gain) * (basis if rows >= columns else basis.T)

    return init


def inverse_root(matrix: jax.Array) -> jax.Array:
    """C^-1 [F, F] of a positive definite matrix C C' [F, F], C lower triangular, row by row.

    Cholesky's decomposition and forward substitution in one, without LAPACK: see
    :func:`orthogonal` for why.
    """
    dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)

    def row(i: jax.Array, inverse: jax.Array) -> jax.Array:
        # The rows of C^-1 from i on are still 0, so this is row i of C up to its diagonal.
        above = dot(inverse, matrix[:, i])
        diagonal = jnp.sqrt(matrix[i, i] - dot(above, above))
        return inverse.at[i].set((eye[i] - dot(above, inverse)) / diagonal)

    return jax.lax.fori_loop(0, len(matrix), row, jnp.zeros_like(matrix))
