"""Compilation that suits programs which run for seconds only."""

from collections.abc import Callable
from typing import Any

import jax

from rlli_jax.learners.compiling import compiler_options

# Half the time to compile and as fast to run: the time of these programs goes to few operations.
# YNNPACK's fusions make the gradient of a tiny T5 a quarter slower than XLA's own loops.
_QUICK = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_experimental_ynn_fusion_type": "",
}


def quick_jit(function: Callable, **options: Any) -> Any:
    """``jax.jit``; on a CPU with the compiler options that make a study of teaching fastest."""
    return jax.jit(function, compiler_options=compiler_options(_QUICK), **options)
