"""What the commands that carry out a study share."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlli_jax.errors import InputError

if TYPE_CHECKING:
    from rlli_jax.studies import Study

# What a command takes, of the kinds of studies and of sweeps; what is not named takes all.
JUDGED = ("selection", "market", "session", "tuning", "preferences")
PLANNED = dict.fromkeys(
    ("judge --dry-run", "judge --export-batch", "judge --import-batch"),
    (*JUDGED, "teaching", "environment"),
)
TAKES = PLANNED | {
    "judge": JUDGED,
    "generate": JUDGED,
    "measure-providers": JUDGED,
    "examine": JUDGED,
    "train": JUDGED,
    "teach": ("teaching",),
}


def carry_out(
    command: str,
    config: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    overwrite: bool,
    *,
    train: bool = True,
    reported: bool = True,
    engine: Literal["local", "ray"] = "local",
    track: Literal["tensorboard", "wandb"] | None = None,
) -> None:
    """Carry out what a file holds, with or without training and report."""
    from rlli_jax import studies
    from rlli_jax.experiments.sweeps import tracking
    from rlli_jax.experiments.sweeps.config import Sweep
    from rlli_jax.experiments.sweeps.devices import use_host_devices

    existing = _existing(resume, overwrite)
    # Or hours of training would come before the bad news.
    if track is not None:
        tracking.prepare(track)
    if engine == "ray":
        from rlli_jax.experiments.sweeps import ray_engine

        ray_engine.package()
    study = load(command, config, overrides)
    if isinstance(study, Sweep):
        use_host_devices()
    path = output if output is not None else studies.directory_of(study)
    cache_compilations()

    from rich.console import Console

    options = ["--engine", engine] if engine != "local" else []
    options += ["--track", track] if track is not None else []
    with _resumable(command, config, overrides, path, *options):
        studies.carry_out(study, path, existing, Console(), train=train, engine=engine)
        if track is not None:
            print(tracking.track(track, path / "sweep.nc"))
        if reported:
            print(f"report: {studies.render(path)}")
        else:
            print(f"run directory: {path}")


def load(command: str, config: Path, overrides: Sequence[str]) -> "Study":
    """What a file holds. InputError if it is of a kind that a command does not carry out."""
    from rlli_jax import studies
    from rlli_jax.experiments.sweeps.config import Sweep

    study = studies.load_study(config, overrides)
    swept, kind = isinstance(study, Sweep), studies.kind_name(study)
    if command == "sweep" and not swept:
        raise InputError(
            f"{config}: the block sweep is missing; it names the keys to vary, see "
            "configs/sweep.yaml."
        )
    if command in TAKES and (swept or kind not in TAKES[command]):
        words = "with a sweep" if swept else studies.study_kind(kind).words
        raise InputError(
            f"{config} is a study {words}, which rlli {command} does not take; carry it out with: "
            f"{shlex.join(['rlli', 'run', str(config), *overrides])}."
        )
    return study


@contextmanager
def _resumable(
    command: str, config: Path, overrides: Sequence[str], path: Path, *options: str
) -> Iterator[None]:
    """After Ctrl-C, and where memory does not suffice, name the command that goes on."""
    resume = [] if command == "train" else ["--resume"]  # it always goes on
    words = [str(config), *overrides]
    if not config.is_file():  # a pipe, which cannot be read again
        words = [str(path / "config.yaml")]
    words = ["rlli", command, *words, "--output", str(path), *options, *resume]
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{path} keeps everything up to the last checkpoint; go on with:\n  {shlex.join(words)}"
        ) from None
    except (MemoryError, RuntimeError) as error:
        wanted = wanted_memory(error)
        if wanted is None:
            raise
        raise InputError(
            f"memory does not suffice ({wanted}): make buffers smaller, or take fewer seeds, "
            "environments, users or samples; what is finished is kept, and what needs no change "
            f"goes on with: {shlex.join(words)}"
        ) from None


def wanted_memory(error: Exception) -> str | None:
    """What was wanted where memory did not suffice, by NumPy or by XLA; None of other errors."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return None
    return str(error).partition("\n")[0] or "an allocation failed"


def _existing(resume: bool, overwrite: bool) -> Literal["refuse", "resume", "overwrite"]:
    """What to do with a directory that holds an earlier run."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one of them.")
    return "overwrite" if overwrite else "resume" if resume else "refuse"


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder: the next run starts at once."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlli_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # JAX keeps only what took a second; together the small programs of a study take three.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is missing
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()).rstrip(".") or "its plugin is not installed"
        raise InputError(
            f"JAX cannot use the devices that JAX_PLATFORMS={asked} asks for ({reason}): unset "
            "JAX_PLATFORMS to take what is there, or install jax with their plugin, such as "
            "jax[cuda12]."
        ) from None
