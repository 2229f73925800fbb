"""What a run directory holds of each policy: how it was made, how it learned, what it does."""

from typing import Self

from pydantic import model_validator

from rlli_jax.run_files import Arrays, Record, dims


class Summary(Record):
    """``policies/<name>/summary.json``, the last file of a policy: it says that it is finished."""

    name: str
    learner: str
    seeds: int = 0
    iterations: int | None = None
    """None, like all that follows, for a policy that does not learn."""
    env_steps: int | None = None
    """Of one seed."""
    compile_seconds: float | None = None
    """0 where an equal policy had been compiled before, by the same process."""
    train_seconds: float | None = None
    """Of all seeds together, without compilation and checkpoints."""
    steps_per_second: float | None = None


class Curve(Arrays):
    """``policies/<name>/curve.npz``: every metric of training, [seeds, iterations] float32."""

    env_steps: dims("iterations")  # type: ignore[valid-type]
    """Of one seed."""
    episode_return: dims("seeds iterations")  # type: ignore[valid-type]
    """Mean over the episodes that ended; NaN where none did."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not len(self.env_steps):
            raise ValueError("episode_return is not [seeds, iterations]")
        return self


class Evaluation(Arrays):
    """``policies/<name>/evaluation.npz``: what a policy does when it is judged, and more sums."""

    returns: dims("seeds episodes")  # type: ignore[valid-type]
