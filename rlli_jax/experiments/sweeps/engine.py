"""Carry out a plan on the devices of this program: many runs side by side, chunk by chunk.

A chunk is as many runs as one device takes at once, vmapped; a wave is one chunk on every device,
by ``shard_map``. Each device runs exactly the program of one chunk and nothing is exchanged, so
results do not depend on how many devices there are. A finished chunk is a file, written whole; the
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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.policy import evaluate
from rlli_jax.envs.provider_selection import EnvParams
from rlli_jax.errors import InputError
from rlli_jax.experiments.memory import free_bytes, tree_bytes
from rlli_jax.experiments.run_directory import write_npz
from rlli_jax.experiments.selection.study import expected_score
from rlli_jax.experiments.sweeps.plan import Group, shared_leaves, stack
from rlli_jax.experiments.training import Checkpoints, sound_parameters
from rlli_jax.learners.cpu import EVALUATE, START, TRAIN, compiler_options, vmap_in_groups

AXIS = "runs"
CHECKPOINT_SECONDS = 60.0
MEASURED_SECONDS = 0.2  # of training, to tell how long the rest will take
CPU_CHUNK = 32  # more runs at once on one core gain nothing and leave its cache
SPREAD = 8  # chunks that a group is split into on a CPU, so that many devices have work
RUNS, SAME = PartitionSpec(AXIS), PartitionSpec()

Results = dict[str, np.ndarray]  # of one chunk, each [runs, ...]


@dataclass(frozen=True)
class Shared:
    """Which inputs all runs of a group have in common, as trees of bool."""

    train: EnvParams
    test: EnvParams


@dataclass(frozen=True)
class Inputs:
    """What goes into one wave, on the host; leaves [runs, ...] or, where shared, [...]."""

    keys: np.ndarray  # [runs, 2] uint32
    test_keys: np.ndarray
    hyperparams: PyTree
    train: EnvParams
    test: EnvParams


def shared(group: Group) -> Shared:
    """What the runs of a group have in common."""
    return Shared(shared_leaves(group.train), shared_leaves(group.test))


def inputs(group: Group, runs: Sequence[int], common: Shared) -> Inputs:
    """The inputs of some runs of a group, in that order."""
    hyperparams = [group.hyperparams[i] for i in runs]
    return Inputs(
        np.stack([group.keys[i] for i in runs]),
        np.stack([group.test_keys[i] for i in runs]),
        stack(hyperparams, jax.tree.map(lambda _: False, hyperparams[0])),
        stack([group.train[i] for i in runs], common.train),
        stack([group.test[i] for i in runs], common.test),
    )


class Program:
    """The compiled functions of one group on some devices; traced once, whatever the runs."""

    def __init__(self, group: Group, common: Shared, devices: Sequence[jax.Device]) -> None:
        self.learner = group.learner()
        self.iterations = group.block.iterations
        self.devices = devices
        self._common = common
        self._mesh = Mesh(np.asarray(devices), (AXIS,))
        train, test = (
            jax.tree.map(lambda same: None if same else 0, tree)
            for tree in (common.train, common.test)
        )

        def init(keys: jax.Array, hyperparams: PyTree, params: EnvParams) -> PyTree:
            keys = jax.random.wrap_key_data(keys)
            state = jax.vmap(self.learner.init, (0, 0, train))(keys, hyperparams, params)
            return state, jnp.full((len(keys), self.iterations), jnp.nan)

        def advance(
            progress: PyTree, params: EnvParams, start: jax.Array, stop: jax.Array
        ) -> PyTree:
            def one(progress: PyTree, params: EnvParams) -> PyTree:
                def iteration(i: jax.Array, progress: PyTree) -> PyTree:
                    state, curve = progress
                    state, metrics = self.learner.step(state, params)
                    return state, curve.at[i].set(metrics["episode_return"])

                return jax.lax.fori_loop(start, stop, iteration, progress)

            return vmap_in_groups(one, (0, train), self.learner.group_size)(progress, params)

        def judge(state: PyTree, keys: jax.Array, params: EnvParams) -> PyTree:
            def one(state: PyTree, key: jax.Array, params: EnvParams) -> PyTree:
                policy = self.learner.policy(state)
                result = evaluate(group.env, policy, key, params, group.episodes)
                return result.returns, result.statistics["choices"]

            return jax.vmap(one, (0, 0, test))(state, jax.random.wrap_key_data(keys), params)

        specs = (self._specs(common.train), self._specs(common.test))
        self._init = self._shard(init, (RUNS, RUNS, specs[0]), START)
        self._advance = self._shard(advance, (RUNS, specs[0], SAME, SAME), TRAIN, donate=True)
        self._judge = self._shard(judge, (RUNS, RUNS, specs[1]), EVALUATE)
        self.compile_seconds = self.bytes = 0.0

    def _specs(self, common: PyTree) -> PyTree:
        return jax.tree.map(lambda same: SAME if same else RUNS, common)

    def _shard(
        self, function: Callable, specs: tuple, options: dict[str, Any], donate: bool = False
    ) -> Any:
        # Nothing is exchanged between devices, so there is no replication to check.
        sharded = jax.shard_map(
            function, mesh=self._mesh, in_specs=specs, out_specs=RUNS, check_vma=False
        )
        return jax.jit(
            sharded,
            donate_argnums=0 if donate else (),
            compiler_options=compiler_options(options),
        )

    def place(self, tree: PyTree, common: PyTree = False) -> PyTree:
        """Put host arrays on the devices: over the runs, or, if common, on each."""

        def put(x: Any, same: bool) -> jax.Array:
            x = np.asarray(x)
            sharding = NamedSharding(self._mesh, SAME if same else RUNS)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        if isinstance(common, bool):
            return jax.tree.map(lambda x: put(x, common), tree)
        return jax.tree.map(put, tree, common)

    def start(self, wave: Inputs) -> tuple[PyTree, EnvParams]:
        """Fresh states and curves, and the parameters of training, on the devices."""
        params = self.place(wave.train, self._common.train)
        keys, hyperparams = self.place(wave.keys), self.place(wave.hyperparams)
        return jax.block_until_ready(self._init(keys, hyperparams, params)), params

    def compile(self, wave: Inputs) -> float:
        """Compile all; the memory of training is then known. Returns seconds an iteration."""
        start = time.perf_counter()
        progress, params = self.start(wave)
        span = self._span(0, 1)
        self._judge = self._judge.lower(progress[0], *self._tests(wave)).compile()
        self._advance = self._advance.lower(progress, params, *span).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self._advance.memory_analysis()
        if memory is not None:  # some backends have none
            fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
            one = memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh
            self.bytes = one * len(self.devices)

        def train(iterations: int) -> None:
            nonlocal progress
            progress = self.advance(progress, params, 0, iterations)

        return seconds_an_iteration(train, self.iterations)

    def _tests(self, wave: Inputs) -> tuple[jax.Array, EnvParams]:
        return self.place(wave.test_keys), self.place(wave.test, self._common.test)

    def _span(self, start: int, stop: int) -> tuple[jax.Array, jax.Array]:
        first, last = (self.place(np.int32(i), True) for i in (start, stop))
        return first, last

    def advance(self, progress: PyTree, params: EnvParams, start: int, stop: int) -> PyTree:
        """Iterations ``start`` to ``stop`` of every run; ``progress`` is given up."""
        return jax.block_until_ready(self._advance(progress, params, *self._span(start, stop)))

    def finish(self, progress: PyTree, wave: Inputs) -> Results:
        """Evaluate the trained runs; arrays [runs, ...] on the host."""
        state, curve = progress
        returns, choices = (to_host(x) for x in self._judge(state, *self._tests(wave)))
        qoe = expected_score(choices, np.asarray(wave.test.mean))  # [runs, K]
        return {
            "curve": to_host(curve),
            "returns": returns,
            "qoe": qoe.astype(np.float32),
            "objective": qoe.sum(-1).astype(np.float32),
            "diverged": ~to_host(sound_parameters(state)),
        }


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


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array, on every process."""
    if jax.process_count() > 1:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


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
    learner, hyperparams = group.learner(), group.hyperparams[0]
    state = jax.eval_shape(
        learner.init, jax.random.key(0), hyperparams, jax.tree.map(jnp.asarray, group.train[0])
    )
    own = tree_bytes(state)
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
    common: Shared
    program: Program
    seconds: float  # one iteration of one wave
    compilations: int


def prepare(
    group: Group, devices: Sequence[jax.Device], chunk: int | None, bound: float
) -> Prepared:
    """Compile a group at the chunk that its measured memory allows; sets ``group.chunk``.

    Raises:
        InputError: a single run needs more than the bound.
    """
    common = shared(group)
    compilations = 0
    group.chunk = group.chunk or first_chunk(group, chunk, bound)
    while True:
        program = Program(group, common, devices)
        seconds = program.compile(wave_inputs(group, [0], len(devices), common))
        compilations += 1
        if program.bytes <= bound:
            return Prepared(group, common, program, seconds, compilations)
        if group.chunk == 1:
            raise _short(len(devices), program.bytes, bound)
        # Parts that the runs share do not shrink with their number: never more than a share.
        group.chunk = max(1, min(group.chunk - 1, int(group.chunk * bound / program.bytes)))


def _short(devices: int, needed: float, bound: float) -> InputError:
    return InputError(
        f"one run on each of {devices} devices needs {needed / 1e9:.2f} GB, but the sweep may use "
        f"{bound / 1e9:.2f} GB; raise sweep.memory_gb, or make the runs smaller."
    )


def wave_inputs(group: Group, chunks: Sequence[int], devices: int, common: Shared) -> Inputs:
    """One chunk for each device; missing runs are copies of the last, their results unused."""
    spans = group.chunks()
    full = []
    for i in range(devices):
        runs = list(spans[chunks[min(i, len(chunks) - 1)]])
        full += runs + [runs[-1]] * (group.chunk - len(runs))
    return inputs(group, full, common)


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
        wave = wave_inputs(group, chunks, devices, ready.common)
        runs = sum(len(group.chunks()[c]) for c in chunks)
        folder = path / "checkpoints" / "-".join(map(str, (index, *chunks)))

        def done(iterations: int, runs: int = runs) -> None:
            report(runs, iterations)

        results = run_wave(ready.program, wave, every, done, folder, checkpoint_seconds)
        for place, chunk in enumerate(chunks):
            first, size = place * group.chunk, len(group.chunks()[chunk])
            part = {name: x[first : first + size] for name, x in results.items()}
            if jax.process_index() == 0:
                write_npz(chunk_path(path, index, chunk), part)
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)


def run_wave(
    program: Program,
    wave: Inputs,
    every: int,
    report: Callable[[int], None] = lambda iterations: None,
    folder: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Results:
    """Train and evaluate one wave, from its checkpoint in ``folder`` if there is one."""
    progress, params = program.start(wave)
    done, saved = 0, time.monotonic()
    # With several processes a wave starts anew: no process holds all of its state.
    checkpoints = Checkpoints(folder) if folder and jax.process_count() == 1 else None
    if checkpoints is not None and (latest := checkpoints.latest()) is not None:
        like = jax.eval_shape(lambda x: x, progress)
        whole = checkpoints.restore(latest, like)
        progress = jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), whole, progress)
        done = latest
        report(done)
    while done < program.iterations:
        stop = min(done + every, program.iterations)
        progress = program.advance(progress, params, done, stop)
        report(stop - done)
        done = stop
        due = time.monotonic() - saved >= checkpoint_seconds
        if checkpoints is not None and due and done < program.iterations:
            checkpoints.save(done, jax.device_put(progress, jax.local_devices()[0]))
            saved = time.monotonic()
    return program.finish(progress, wave)


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
            f"{file} cannot be read ({error}); remove it and go on with --resume."
        ) from None
