"""Names that configs choose among, apart from the environments that give them meaning, so that
reading a config imports neither JAX's environments nor what those import."""

from typing import Literal

Assignment = Literal["shared", "sequential", "joint"]
ObservationPart = Literal["action", "reward", "user", "persona", "request"]
MarketObservationPart = Literal[
    "providers",
    "task",
    "room",
    "utility",
    "latency",
    "forecast",
    "remaining",
    "persona",
    "request",
    "tastes",
]

# What a table does with questions that have no answer.
OnMissing = Literal["raise", "mask", "impute"]
