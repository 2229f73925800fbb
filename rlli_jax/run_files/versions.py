"""What a result depends on beside its config."""

from pydantic import ConfigDict

from rlli_jax.run_files import Record


class Versions(Record):
    """``versions.json``: versions, the device and settings of JAX, each as text.

    Beside these fields it has one for each package (``jax``, ``numpy``, ...) and one for each
    setting (``jax_enable_x64``, ...). What an earlier version did not write is empty or absent.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]

    rlli_jax: str = ""
    python: str = ""
    device: str = ""
    """Its kind, how many there are, and JAX's name of their platform."""
    platform: str = ""
    """Operating system, processor and number of cores."""
    command: str = ""
    """By which the run was begun."""
    resumed_with: str = ""
    """Versions that were others when the run was resumed, a line for each time."""

    def by_name(self) -> dict[str, str]:
        """All that is known but the command."""
        return {name: text for name, text in self if text and name != "command"}
