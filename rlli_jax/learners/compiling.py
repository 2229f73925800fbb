"""Options of the compiler for one program: XLA's defaults suit programs that run for hours."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax


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
