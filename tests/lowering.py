"""What a program asks of a backend that this machine may not have."""

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
from jax import export

PLATFORMS = ("cpu", "cuda", "tpu")
# What XLA itself knows everywhere; all other targets are code of one backend or of Python.
KNOWN = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


def foreign_calls(function: Callable, *arguments: Any) -> dict[str, set[str]]:
    """Targets of custom calls in the program of each platform: none if it runs anywhere.

    The function is traced as on the platform, so that a choice by ``jax.default_backend`` is made
    as it would be there (but for jitted functions inside, whose earlier traces are used again).

    Raises:
        NotImplementedError: the program calls back into Python.
    """
    found = {}
    for platform in PLATFORMS:
        backend = {"cuda": "gpu"}.get(platform, platform)
        with mock.patch.object(jax, "default_backend", lambda backend=backend: backend):
            jitted = jax.jit(lambda *x: function(*x))
            module = export.export(jitted, platforms=[platform])(*arguments).mlir_module()
        found[platform] = set(re.findall(r"custom_call @([\w.]+)", module)) - KNOWN
    return found


NONE: dict[str, set[str]] = {platform: set() for platform in PLATFORMS}
