"""How a study of teaching uses the machine: what is best differs between backends."""

import os
from collections.abc import Callable
from typing import Any

import jax

from rlli_jax.learners.cpu import compiler_options

# Half the time to compile and as fast to run: the time of these programs goes to few operations.
# YNNPACK's fusions make the gradient of a tiny T5 a quarter slower than XLA's own loops.
QUICK = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_experimental_ynn_fusion_type": "",
}


def over_seeds(function: Callable, *, own: bool, tiny: bool) -> Callable:
    """``function(params, x)`` over the seeds of x [seeds, ...], and of params if they are ``own``.

    Params that all seeds share are not copied. On a CPU one seed after the other, since its caches
    hold one model, not all; elsewhere ``tiny`` models at once, and large ones, which fill an
    accelerator by themselves, one by one.
    """
    at_once = tiny and jax.default_backend() != "cpu"

    def call(params: Any, x: Any) -> Any:
        over = (params, x) if own else x

        def one(part: Any) -> Any:
            return function(*part) if own else function(params, part)

        return jax.vmap(one)(over) if at_once else jax.lax.map(one, over)

    return call


def one_by_one(function: Callable, *, tiny: bool) -> Callable:
    """``function``, which ``vmap`` carries out as :func:`over_seeds` does; what is not mapped, such
    as params that all runs share, is not copied."""
    at_once = tiny and jax.default_backend() != "cpu"
    return function if at_once else jax.custom_batching.sequential_vmap(function)


def jobs_at_once() -> int:
    """Methods that are trained side by side.

    XLA uses one core of a CPU for work this small. An accelerator runs one program after the other,
    and each that waits would hold its memory.
    """
    return (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


def quick_jit(function: Callable, **options: Any) -> Any:
    """``jax.jit``; on a CPU with the compiler options that make a study of teaching fastest."""
    return jax.jit(function, compiler_options=compiler_options(QUICK), **options)
