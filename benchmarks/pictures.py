"""What a generated picture takes: made, kept in the store, found there again; and shared steps.

    python benchmarks/pictures.py

Tiny pipelines of random weights (stand-ins), eight steps, 64 x 64 pixels, groups of three prompts.
Times are of one picture, medians over repeats with the least and the most; CPU time counts this
process alone, whatever else the machine does. The models are loaded before.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import measure

from rlli_jax.generation import PictureStore, make_pictures
from rlli_jax.generation.diffusers import DiffusersProvider
from rlli_jax.generation.grouping import Group
from rlli_jax.generation.sampling import Sampling, Weights
from rlli_jax.generation.tiny_pipelines import TINY

FILE = Path(__file__).parent / "results" / "pictures.csv"
GROUP = Group("a harbour", ("a quiet harbour at dawn", "a stormy harbour", "a harbour in snow"))
STEPS, REPEATS = 8, 7
seeds = itertools.count()  # another one each time, so that nothing is remembered


def provider(model: str, shared: int) -> DiffusersProvider:
    """With noise of its own."""
    sampling = Sampling(STEPS, guidance=5.0, seed=next(seeds), width=64, height=64)
    return DiffusersProvider("d", Weights(model), sampling, shared_steps=shared, groups=[GROUP])


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of CPU and of the wall, of one of the group's pictures."""
    cpu, wall = time.process_time(), time.monotonic()
    call()
    count = len(GROUP.members)
    return (time.process_time() - cpu) / count, (time.monotonic() - wall) / count


def main() -> None:
    """Run, print and keep."""
    print(measure.versions("torch", "diffusers"))
    rows = []
    with tempfile.TemporaryDirectory() as folder, closing(PictureStore(folder)) as store:
        for model in TINY:
            times: dict[str, list[tuple[float, float]]] = {}
            provider(model, 0).denoise("a cat", 1)
            for _ in range(REPEATS):
                for shared in (0, 4, 7):
                    made = provider(model, shared)
                    name = f"denoised, {shared} of {STEPS} steps shared"
                    times.setdefault(name, []).append(
                        timed(lambda p=made: list(p.make(GROUP.members)))
                    )
                kept = provider(model, 0)
                for name in ("denoised and kept", "from the store"):
                    ask = lambda p=kept: make_pictures([p], GROUP.members, store)  # noqa: E731
                    times.setdefault(name, []).append(timed(ask))
            for name, found in times.items():
                row: dict[str, Any] = {"model": model, "what": name}
                for key, values in zip(("cpu", "wall"), zip(*found, strict=True), strict=True):
                    row[f"{key}_ms"] = round(1e3 * statistics.median(values), 2)
                    row[f"{key}_least"] = round(1e3 * min(values), 2)
                    row[f"{key}_most"] = round(1e3 * max(values), 2)
                rows.append(row)
    print(measure.table(rows))
    measure.keep(rows, FILE)


if __name__ == "__main__":
    main()
