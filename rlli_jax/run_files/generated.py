"""How the pictures of a run were generated."""

from typing import Any

from rlli_jax.run_files import Record

FILE = "generated.json"


class GeneratedPicture(Record):
    """How a picture was made, or why there is none."""

    request: int
    """0 to R-1."""
    provider: int
    """0 to L-1."""
    settings: dict[str, Any]
    """All that can change it."""
    reason: str = ""
    """Why there is none."""
    seconds: float | None = None
    """What it took; a shared part is divided among the pictures that share it."""
    joules: float | None = None
    """Energy of the whole processor meanwhile; null where no counter could be read."""
    watts: float | None = None
    """Power of its provider, where the config states it."""
    cost: float | None = None
    steps: int | None = None
    """Denoising steps that were run for it alone."""
    shared_steps: int = 0
    """Denoising steps that were run once for its group."""
    seconds_per_step: float | None = None
    """Of the denoising steps alone, without encoding and decoding."""

    @property
    def group(self) -> tuple[int, str]:
        """Whose steps it shares, if it does: those of one provider and common prompt."""
        return self.provider, str(self.settings.get("common"))

    @property
    def all_steps(self) -> int:
        """Denoising steps that it went through, its own and those of its group."""
        return self.shared_steps + (self.steps or 0)


class GeneratedPictures(Record):
    """``generated.json``, of a run whose pictures were generated."""

    pictures: list[GeneratedPicture]
