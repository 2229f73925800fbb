"""Names that configs choose among, apart from the environments that give them meaning, so that
reading a config imports neither JAX's environments nor what those import."""

from collections.abc import Iterable
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


def owner(key: str, policies: Iterable[str]) -> str | None:
    """The policy that a key of a study, such as ``policies.PPO.iterations``, belongs to.

    The name of a policy may hold dots: the longest that fits is meant. None for any other key.
    """
    fitting = [name for name in policies if f"{key}.".startswith(f"policies.{name}.")]
    return max(fitting, key=len, default=None)
