"""The chunks of a sweep as tasks on a Ray cluster (extra ``ray``).

A task is one chunk on one device of a worker, the program that ``engine`` gives every device, so
results are those of the local engine. The driver alone writes files: a worker that dies loses its
task, which Ray gives to another one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from rlli_jax.errors import InputError
from rlli_jax.experiments.sweeps import engine
from rlli_jax.experiments.sweeps.plan import Group, Plan
from rlli_jax.experiments.training import Program
from rlli_jax.run_files import write_npz

ANY_NUMBER = -1  # of retries
_programs: dict[str, Program] = {}  # of this worker


def package() -> Any:
    """Ray. Raises InputError if it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError(
            "--engine ray needs Ray, which is not installed; pip install 'rlli_jax[ray]', or use "
            "--engine local."
        ) from None
    return ray


def run_on_ray(plan: Plan, path: Path, report: Callable[[int, int], None]) -> None:
    """Carry out the unfinished chunks on the cluster that is connected, or a local one.

    Args:
        path: the sweep's directory, which only this process needs to see.
        report: called with the runs of a finished chunk and their iterations.

    Raises:
        InputError: Ray is not installed.
    """
    ray = package()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    gpus = int(jax.default_backend() == "gpu")
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ANY_NUMBER)(run_chunk)
    cache = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    tasks = {}
    for index, group in enumerate(plan.groups):
        waiting = engine.pending(path, index, group)
        if waiting:
            shipped = ray.put(group)
            for chunk in waiting:
                tasks[task.remote(shipped, f"{path}-{index}", chunk, cache)] = (index, chunk)
    while tasks:
        (finished,), _ = ray.wait(list(tasks))
        index, chunk = tasks.pop(finished)
        group = plan.groups[index]
        write_npz(engine.chunk_path(path, index, chunk), ray.get(finished))
        report(len(group.chunks()[chunk]), group.iterations)


def run_chunk(group: Group, name: str, chunk: int, cache: str | None) -> engine.Results:
    """Train and evaluate one chunk on this worker's first device.

    Args:
        name: of the group, under which the worker keeps its compiled program.
        cache: folder of compiled programs, which workers on one machine share.
    """
    jax.config.update("jax_compilation_cache_dir", cache)
    if name not in _programs:
        _programs[name] = engine.make_program(group, jax.devices()[:1])
    program = _programs[name]
    wave = engine.wave_inputs(group, [chunk], 1, program.shared)
    results: dict[str, Any] = engine.run_wave(group, program, wave, group.iterations)
    return {key: x[: len(group.chunks()[chunk])] for key, x in results.items()}
