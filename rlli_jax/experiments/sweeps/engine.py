"""Carry out a plan on the devices of this program: many runs side by side, chunk by chunk.

A chunk is as many runs as one device takes at once; a wave is one chunk on every device, trained by
:func:`rlli_jax.experiments.training.train_runs`. A finished chunk is a file, written whole; the
wave at work keeps a checkpoint. Both survive a kill, and what is resumed ends bit for bit where it
would have ended.

Several processes (``jax.distributed``) work as one: each holds its devices' part of a wave, and
the first writes what all have done.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from rlli_jax.errors import InputError, why
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.memory import free_bytes, tree_bytes
from rlli_jax.experiments.sweeps.plan import Group, shared_leaves, stack
from rlli_jax.experiments.training import (
    Inputs,
    Program,
    Shared,
    sound_parameters,
    to_host,
    train_runs,
)
from rlli_jax.run_files import write_npz

CHECKPOINT_SECONDS = 60.0
MEASURED_SECONDS = 0.2  # of training, to tell how long the rest will take
CPU_CHUNK = 32  # more runs at once on one core gain nothing and leave its cache
SPREAD = 8  # chunks that a group is split into on a CPU, so that many devices have work
KEPT = ("returns", "qoe", "objective")  # of an evaluation

Results = dict[str, np.ndarray]  # of one chunk, each [runs, ...]


def shared(group: Group) -> Shared:
    """What the runs of a group have in common."""
    return Shared(shared_leaves(group.train), shared_leaves(group.test))


def inputs(group: Group, runs: Sequence[int], shared: Shared) -> Inputs:
    """The inputs of some runs of a group, in that order."""
    hyperparams = [group.hyperparams[i] for i in runs]
    return Inputs(
        keys=np.stack([group.keys[i] for i in runs]),
        hyperparams=stack(hyperparams, jax.tree.map(lambda _: False, hyperparams[0])),
        train=stack([group.train[i] for i in runs], shared.train),
        test_keys=np.stack([group.test_keys[i] for i in runs]),
        test=stack([group.test[i] for i in runs], shared.test),
    )


def make_program(group: Group, devices: Sequence[jax.Device]) -> Program:
    """The compiled functions of a group on some devices."""
    learner, judge = group.learner(), group.judge
    return Program(learner, group.iterations, shared(group), devices, judge, group.options)


def seconds_an_iteration(train: Callable[[int], None], iterations: int) -> float:
    """How long ``train`` takes for one iteration in a long run of at most ``iterations``.

    The first call of a program takes many times as long as a later one, and every call takes time
    of its own: the length grows until a call takes long enough to be measured.
    """
    train(1)
    length = 1
    while True:
        start = time.perf_counter()
        train(length)
        seconds = time.perf_counter() - start
        if seconds >= MEASURED_SECONDS or length == iterations:
            return seconds / length
        length = min(4 * length, iterations)


def memory_bound(memory_gb: float | None) -> float:
    """Bytes that a sweep may use on all devices: as given, or half of what there is."""
    if memory_gb is not None:
        return memory_gb * 1e9
    free = free_bytes()
    if free is None:
        raise InputError("sweep.memory_gb: the memory of this device is unknown; set this key.")
    return 0.5 * free * (1 if jax.default_backend() == "cpu" else jax.device_count())


def first_chunk(group: Group, chunk: int | None, bound: float) -> int:
    """How many runs to put on one device, before their memory is measured.

    On a CPU it does not depend on the number of devices, so results do not either.

    Raises:
        InputError: the state of a single run needs more than the bound.
    """
    params = jax.tree.map(jnp.asarray, group.train[0])
    init = group.learner().init
    key = jax.random.wrap_key_data(jnp.asarray(group.keys[0]))
    own = tree_bytes(jax.eval_shape(init, key, group.hyperparams[0], params))
    if own > bound:
        raise _short(1, own, bound)
    most = max(1, int(bound / jax.device_count() / max(own, 1)))
    if chunk is not None:
        wanted = chunk
    elif jax.default_backend() == "cpu":
        wanted = min(CPU_CHUNK, -(-len(group) // SPREAD))
    else:
        wanted = -(-len(group) // jax.device_count())
    return min(wanted, most, len(group))


@dataclass(frozen=True)
class Prepared:
    """A group ready to run, and what was measured of it."""

    group: Group
    program: Program
    bytes: float  # that training takes
    seconds: float  # one iteration of one wave
    compilations: int


def prepare(
    group: Group, devices: Sequence[jax.Device], chunk: int | None, bound: float
) -> Prepared:
    """Compile a group at the chunk that its measured memory allows; sets ``group.chunk``.

    Raises:
        InputError: a single run needs more than the bound.
    """
    compilations = 0
    group.chunk = group.chunk or first_chunk(group, chunk, bound)
    while True:
        program = make_program(group, devices)
        wave = wave_inputs(group, [0], len(devices), program.shared)
        needed, seconds = _compile(program, wave)
        compilations += 1
        if needed <= bound:
            return Prepared(group, program, needed, seconds, compilations)
        if group.chunk == 1:
            raise _short(len(devices), needed, bound)
        # Parts that the runs share do not shrink with their number: never more than a share.
        group.chunk = max(1, min(group.chunk - 1, int(group.chunk * bound / needed)))


def _compile(program: Program, wave: Inputs) -> tuple[float, float]:
    """Compile all of a program; bytes that training takes, and seconds an iteration."""
    progress, params = program.start(wave), program.place(wave.train, program.shared.train)
    program.compile_evaluation(progress[0], wave)
    program.compile(progress, params)
    memory, needed = program.compiled.memory_analysis(), 0.0
    if memory is not None:  # some backends have none
        fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
        one = memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh
        needed = one * len(program.devices)

    def train(iterations: int) -> None:
        nonlocal progress
        progress = program.advance(progress, params, 0, iterations)

    return needed, seconds_an_iteration(train, program.iterations)


def _short(devices: int, needed: float, bound: float) -> InputError:
    return InputError(
        f"one run on each of {devices} devices needs {needed / 1e9:.2f} GB, but the sweep may use "
        f"{bound / 1e9:.2f} GB; raise sweep.memory_gb, or make the runs smaller."
    )


def wave_inputs(group: Group, chunks: Sequence[int], devices: int, shared: Shared) -> Inputs:
    """One chunk for each device; missing runs are copies of the last, their results unused."""
    spans = group.chunks()
    full = []
    for i in range(devices):
        runs = list(spans[chunks[min(i, len(chunks) - 1)]])
        full += runs + [runs[-1]] * (group.chunk - len(runs))
    return inputs(group, full, shared)


def chunk_path(path: Path, group: int, chunk: int) -> Path:
    """The file of a finished chunk."""
    return path / "chunks" / f"{group}-{chunk}.npz"


def pending(path: Path, index: int, group: Group) -> list[int]:
    """Chunks of a group that are not finished."""
    chunks = range(len(group.chunks()))
    return [c for c in chunks if not chunk_path(path, index, c).exists()]


def run_group(
    path: Path,
    index: int,
    ready: Prepared,
    every: int,
    report: Callable[[int, int], None] = lambda runs, iterations: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Carry out the unfinished chunks of a group, a wave at a time.

    Args:
        path: the sweep's directory.
        index: of the group in the plan.
        every: iterations between two calls of ``report``, the only places where a checkpoint
            can be kept.
        report: called with the runs at work and the iterations just done.
        checkpoint_seconds: time between two checkpoints.
    """
    group, devices = ready.group, len(ready.program.devices)
    waiting = pending(path, index, group)
    if jax.process_count() > 1:
        # No file may appear before every process has looked.
        multihost_utils.sync_global_devices(f"pending {index}")
    for i in range(0, len(waiting), devices):
        chunks = waiting[i : i + devices]
        wave = wave_inputs(group, chunks, devices, ready.program.shared)
        runs = sum(len(group.chunks()[c]) for c in chunks)
        # Earlier versions kept others, under a name without "wave".
        folder = path / "checkpoints" / "-".join(map(str, ("wave", index, *chunks)))

        def done(iterations: int, runs: int = runs) -> None:
            report(runs, iterations)

        results = run_wave(group, ready.program, wave, every, done, folder, checkpoint_seconds)
        for place, chunk in enumerate(chunks):
            first, size = place * group.chunk, len(group.chunks()[chunk])
            part = {name: x[first : first + size] for name, x in results.items()}
            if jax.process_index() == 0:
                write_npz(chunk_path(path, index, chunk), part)
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)


def run_wave(
    group: Group,
    program: Program,
    wave: Inputs,
    every: int,
    report: Callable[[int], None] = lambda iterations: None,
    folder: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Results:
    """Train and evaluate one wave, from its checkpoint in ``folder`` if there is one."""
    told, saved = 0, time.monotonic()
    # With several processes a wave starts anew: no process holds all of its state.
    checkpoints = Checkpoints(folder) if folder and jax.process_count() == 1 else None

    def due(done: int) -> bool:
        nonlocal saved
        now = time.monotonic()
        if done == program.iterations or now - saved < checkpoint_seconds:
            return False
        saved = now
        return True

    def progress(done: int, metrics: Results) -> None:
        nonlocal told
        report(done - told)
        told = done

    trained = train_runs(program, wave, every, checkpoints=checkpoints, due=due, progress=progress)
    found = program.evaluate(trained.state, wave)
    found |= group.measure(trained.metrics | found, wave.test)
    return {
        "curve": trained.metrics["episode_return"],
        **{name: found[name] for name in KEPT if name in found},
        "diverged": ~to_host(sound_parameters(trained.state)),
    }


def read_chunk(path: Path, index: int, chunk: int) -> Results:
    """The results of a finished chunk.

    Raises:
        InputError: the file is missing or damaged.
    """
    file = chunk_path(path, index, chunk)
    try:
        with np.load(file) as content:
            return dict(content)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file} cannot be read ({why(error)}); remove it and go on with --resume."
        ) from None
