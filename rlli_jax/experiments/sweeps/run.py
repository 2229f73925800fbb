"""A sweep from its file to its directory: plan, chunks, dataset, report.

::

    runs/<name>/
      config.yaml      the study, resolved         sweep.yaml     the block sweep
      versions.json    as of a run                 plan.json      groups, their runs and chunks
      chunks/<group>-<chunk>.npz                   results of each finished chunk
      checkpoints/     of the wave at work         sweep.nc       the labelled dataset
      figures/*.svg, *.pdf                         report.html
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import jax
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rlli_jax.errors import InputError
from rlli_jax.experiments.run_directory import Existing, open_run
from rlli_jax.experiments.study import TrainedStudy
from rlli_jax.experiments.sweeps import engine
from rlli_jax.experiments.sweeps.config import Sweep
from rlli_jax.experiments.sweeps.plan import Plan, make_plan
from rlli_jax.experiments.sweeps.results import collect, write_dataset
from rlli_jax.progress import LoggedProgress
from rlli_jax.run_files.sweep import PlannedGroup, SweepPlan

Engine = Literal["local", "ray"]


def run_sweep(
    sweep: Sweep,
    path: Path,
    existing: Existing,
    console: Console,
    where: Engine = "local",
    checkpoint_seconds: float = engine.CHECKPOINT_SECONDS,
) -> Path:
    """Carry out a sweep, or the rest of it; returns the path of ``sweep.nc``.

    It must be over a study that the engine trains.

    With several processes (``jax.distributed``) all call it with the same arguments and see the
    same directory; the first writes.

    Raises:
        InputError: the directory holds something else, an input is wrong, or memory is short.
    """
    if not isinstance(sweep.kind.part("study"), TrainedStudy):
        raise InputError(
            "sweep: the policies of such a study are not trained by the engine of sweeps, so that "
            "its keys cannot be swept; run it once for each value."
        )
    with _directory(path, sweep, existing) as path:
        with console.status("asking the judge"):
            plan = make_plan(sweep)
        _restore_chunks(plan, path)
        console.print(
            f"points x policies x seeds: {len(sweep.points)} x {len(sweep.policies)} x "
            f"{sweep.study.seeds}; runs that differ: {len(plan)}; groups, each compiled once: "
            f"{len(plan.groups)}",
            highlight=False,
        )
        ready = _prepare(plan, path, console)
        _first_process(lambda: describe(plan).write(path / "plan.json"))
        with _progress(plan, path, console) as done:
            if where == "ray":
                from rlli_jax.experiments.sweeps.ray_engine import run_on_ray

                run_on_ray(plan, path, done)
            else:
                for index, group in ready.items():
                    every = sweep.study.checkpoint_every
                    engine.run_group(path, index, group, every, done, checkpoint_seconds)
        _barrier("chunks")
        dataset = collect(plan, path)
        _first_process(lambda: write_dataset(dataset, path / "sweep.nc"))
        _first_process(lambda: shutil.rmtree(path / "checkpoints", ignore_errors=True))
        _barrier("dataset")
    return path / "sweep.nc"


@contextmanager
def _directory(path: Path, sweep: Sweep, existing: Existing) -> Iterator[Path]:
    """The directory, held by the first process; it must hold this sweep if it holds one."""
    first = jax.process_index() == 0
    # All look before the first writes, or they would find what it has just made.
    block = sweep.block.model_dump(mode="json", exclude_none=True)
    held = (
        open_run(path, sweep.study, existing, sweep=block) if first else nullcontext(path.resolve())
    )
    with held as opened:
        _barrier("directory")
        yield opened


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _first_process(write: Any) -> None:
    if jax.process_index() == 0:
        write()


def describe(plan: Plan) -> SweepPlan:
    """What ran beside what, and in which chunk its result is."""
    return SweepPlan(
        runs=len(plan),
        groups=[
            PlannedGroup(
                learner=group.name,
                varies=plan.varies(group),
                chunk=group.chunk,
                runs=[(run.point, run.policy, run.seed) for run in group.runs],
            )
            for group in plan.groups
        ],
    )


def _restore_chunks(plan: Plan, path: Path) -> None:
    """Cut groups into chunks as an earlier start did: files and last bits depend on it."""
    if not (path / "plan.json").exists():
        return
    try:
        earlier = SweepPlan.read(path / "plan.json").groups
    except InputError:
        raise InputError(
            f"{path / 'plan.json'} cannot be read (it is damaged); start afresh with --overwrite."
        ) from None
    now = describe(plan).groups
    if [group.runs for group in earlier] != [group.runs for group in now]:
        raise InputError(
            f"{path} holds a sweep whose runs were other ones: a file that the study reads has "
            "changed; start afresh with --overwrite, or give another directory with --output."
        )
    for group, before in zip(plan.groups, earlier, strict=True):
        group.chunk = before.chunk


def _prepare(plan: Plan, path: Path, console: Console) -> dict[int, engine.Prepared]:
    """Compile and measure every group that has work left, and print the plan."""
    bound = engine.memory_bound(plan.sweep.block.memory_gb)
    devices = jax.devices()
    rows = Table("group", "runs", "left", "side by side", "memory", "compiled in", "will take")
    ready, total, compilations = {}, 0.0, 0
    for index, group in enumerate(plan.groups):
        if group.chunk and not engine.pending(path, index, group):
            continue
        label = f"compiling group {index + 1} of {len(plan.groups)}"
        with console.status(label):
            ready[index] = engine.prepare(group, devices, plan.sweep.block.chunk, bound)
        prepared = ready[index]
        left = engine.pending(path, index, group)
        waves = -(-len(left) // len(devices))
        seconds = prepared.seconds * group.iterations * waves
        total += seconds
        compilations += prepared.compilations
        names = ", ".join(f"{key} = {value}" for key, value in plan.varies(group).items())
        rows.add_row(
            f"{index + 1}: {group.name}" + (f", {names}" if names else ""),
            str(len(group)),
            str(sum(len(group.chunks()[c]) for c in left)),
            f"{group.chunk} x {len(devices)} devices",
            f"{prepared.bytes / 1e6:.1f} MB",
            f"{prepared.program.compile_seconds:.1f} s",
            f"{seconds:.1f} s",
        )
    if ready:
        console.print(rows, highlight=False)
    console.print(
        f"{compilations} compilations; memory bound {bound / 1e9:.2f} GB; training will take about "
        f"{total:.0f} s on {len(devices)} {devices[0].platform} devices, by the first "
        "iterations of each group",
        highlight=False,
    )
    return ready


@contextmanager
def _progress(plan: Plan, path: Path, console: Console) -> Iterator[Any]:
    """A bar over iterations of single runs."""
    left = sum(
        len(group.chunks()[c]) * group.iterations
        for index, group in enumerate(plan.groups)
        for c in engine.pending(path, index, group)
    )
    with LoggedProgress(
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("training", total=left)
        started = time.monotonic()
        yield lambda runs, iterations: progress.advance(task, runs * iterations)
    if left:
        console.print(f"trained in {time.monotonic() - started:.1f} s", highlight=False)
