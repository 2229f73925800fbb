"""Every registered learner at a size that compiles in seconds."""

from dataclasses import fields
from typing import Any

from rlli_jax.learners import Kind

SIZES = {
    "num_envs": 2, "num_steps": 4, "hidden": (4,), "num_minibatches": 2, "num_epochs": 1,
    "batch_size": 4, "buffer_size": 8, "warm_up": 4, "lookahead": 1, "denoising_steps": 2,
    "branches": 2, "length": 2, "updates": 1, "max_start_steps": 2,
}  # fmt: skip


def known(part: type, values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a dataclass."""
    return {f.name: values[f.name] for f in fields(part) if f.name in values}


def small_config(kind: Kind, **changes: Any) -> Any:
    """A learner's config with :data:`SIZES` and ``changes``, as far as it has such fields."""
    return kind.config(**known(kind.config, SIZES | changes))
