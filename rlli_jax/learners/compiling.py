"""Options of the compiler for one program: XLA's defaults suit programs that run for hours."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax

# On a CPU, compiling takes longer than a short training. LLVM's first level gives training the same
# speed as its last, in 3/4 of the time; what runs once need not be fast: to start the paper's PPO
# takes 0.4 s instead of 3.9 s to compile and 12 ms instead of 4 ms to run, to evaluate it 0.8 s
# instead of 2.0 s and 4 ms instead of 3 ms.
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
