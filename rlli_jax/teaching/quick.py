"""Compilation that suits programs which run for seconds only."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

# Half the time to compile and as fast to run: the time of these programs goes to few operations.
# YNNPACK's fusions make the gradient of a tiny T5 a quarter slower than XLA's own loops.
_QUICK = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_experimental_ynn_fusion_type": "",
}


def quick_jit(function: Callable, **options: Any) -> Any:
    """``jax.jit``; on a CPU with the compiler options that make a study of teaching fastest."""
    return jax.jit(function, compiler_options=_options(jax.default_backend()), **options)


@cache
def _options(backend: str) -> dict[str, Any]:
    """Those that the installed XLA knows; what XLA_FLAGS sets stays as it is."""
    known = {}
    for name, value in _QUICK.items() if backend == "cpu" else ():
        if name in os.environ.get("XLA_FLAGS", ""):
            continue
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known
