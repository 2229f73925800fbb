"""Train runs of one learner side by side, in chunks that can be resumed bit for bit.

A run of ``rlli run`` is all seeds of a policy on one device; a wave of a sweep is one chunk of runs
on every device, by ``shard_map``. Each device runs exactly the program of its runs and nothing is
exchanged, so results do not depend on how many devices there are. Between chunks of iterations the
host shows progress and may keep a checkpoint, which holds the whole state and the metrics so far.
"""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.policy import Policy
from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.memory import require_memory
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import EVALUATE, START, TRAIN, compiler_options, vmap_in_groups
from rlli_jax.progress import LoggedProgress

AXIS = "runs"
RUNS, SAME = PartitionSpec(AXIS), PartitionSpec()

Metrics = dict[str, np.ndarray]  # each [runs, iterations] float32
Judge = Callable[[Policy, jax.Array, PyTree], dict[str, jax.Array]]  # policy, key, what is played


class NotNumbers(InputError):
    """Losses, returns or parameters of a run are no numbers any more."""


@dataclass(frozen=True)
class Inputs:
    """What goes into some runs; leaves [runs, ...] or, where all runs share them, [...]."""

    keys: Any  # [runs, ..., 2] uint32, of training
    hyperparams: PyTree
    train: PyTree  # parameters of the environment
    test_keys: Any = None
    test: PyTree = None  # what is played in evaluation


@dataclass(frozen=True)
class Shared:
    """Which inputs all runs have in common, as trees of bool."""

    train: PyTree
    test: PyTree = None


@dataclass(frozen=True)
class Trained:
    """What training leaves behind."""

    state: PyTree  # [runs, ...]
    metrics: Metrics
    compile_seconds: float
    train_seconds: float  # without compilation and checkpoints


class Program:
    """The compiled functions for runs of one learner on some devices; traced once."""

    def __init__(
        self,
        learner: Learner,
        iterations: int,
        shared: Shared,
        devices: Sequence[jax.Device],
        judge: Judge | None = None,
        options: Mapping[str, Any] = TRAIN,
    ) -> None:
        self.learner, self.iterations, self.devices = learner, iterations, devices
        self.shared = shared
        self._mesh = Mesh(np.asarray(devices), (AXIS,))
        step = jax.jit(learner.step)  # traced once, though its metrics are asked for before
        train, test = along_seeds(shared.train), along_seeds(shared.test)

        def init(keys: jax.Array, hyperparams: PyTree, params: PyTree) -> PyTree:
            def one(key: jax.Array, hyperparams: PyTree, params: PyTree) -> PyTree:
                state = learner.init(key, hyperparams, params)
                _, told = jax.eval_shape(step, state, params)
                return state, {name: jnp.full(iterations, jnp.nan, jnp.float32) for name in told}

            keys = jax.random.wrap_key_data(keys)
            return jax.vmap(one, (0, 0, train))(keys, hyperparams, params)

        def advance(progress: PyTree, params: PyTree, start: jax.Array, stop: jax.Array) -> PyTree:
            def one(progress: PyTree, params: PyTree) -> PyTree:
                def iteration(i: jax.Array, progress: PyTree) -> PyTree:
                    state, metrics = progress
                    state, new = step(state, params)
                    return state, {n: x.at[i].set(new[n]) for n, x in metrics.items()}

                return jax.lax.fori_loop(start, stop, iteration, progress)

            return vmap_in_groups(one, (0, train), learner.group_size)(progress, params)

        def evaluate(state: PyTree, keys: jax.Array, played: PyTree) -> PyTree:
            def one(state: PyTree, key: jax.Array, played: PyTree) -> PyTree:
                assert judge is not None
                return judge(learner.policy(state), key, played)

            return jax.vmap(one, (0, 0, test))(state, jax.random.wrap_key_data(keys), played)

        self.starting = self._shard(init, (RUNS, RUNS, self._specs(shared.train)), START)
        specs = RUNS, self._specs(shared.train), SAME, SAME
        self.training = self._shard(advance, specs, options, donate=True)
        self.evaluation = self._shard(evaluate, (RUNS, RUNS, self._specs(shared.test)), EVALUATE)
        self.compiled: Any = None  # training
        self.compile_seconds = 0.0
        self._compiling = Lock()  # or threads that share a program would each compile it

    def _specs(self, shared: PyTree) -> PyTree:
        return jax.tree.map(lambda same: SAME if same else RUNS, shared)

    def _shard(
        self, function: Callable, specs: tuple, options: Mapping[str, Any], donate: bool = False
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

    def place(self, tree: PyTree, shared: PyTree = False) -> PyTree:
        """Put host arrays on the devices: over the runs, or, if shared, on each."""

        def put(x: Any, same: bool) -> jax.Array:
            x = as_on_device(x)
            sharding = NamedSharding(self._mesh, SAME if same else RUNS)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        if isinstance(shared, bool):
            return jax.tree.map(lambda x: put(x, shared), tree)
        return jax.tree.map(put, tree, shared)

    def arguments(self, given: Inputs) -> tuple[PyTree, PyTree, PyTree]:
        """Keys, hyperparameters and parameters of training, on the devices."""
        params = self.place(given.train, self.shared.train)
        return self.place(given.keys), self.place(given.hyperparams), params

    def start(self, given: Inputs) -> PyTree:
        """Fresh states, and metrics [runs, iterations] that are NaN until they are known."""
        with self._compiling:
            return jax.block_until_ready(self.starting(*self.arguments(given)))

    def content(self, given: Inputs, done: int) -> dict[str, PyTree]:
        """Shapes of what a checkpoint holds after so many iterations."""
        state, metrics = jax.eval_shape(self.starting, *self.arguments(given))
        known = jax.ShapeDtypeStruct((len(given.keys), done), np.float32)
        seconds = jax.ShapeDtypeStruct((2,), np.float32)
        return {"state": state, "metrics": dict.fromkeys(metrics, known), "seconds": seconds}

    def go_on(self, kept: dict[str, PyTree]) -> PyTree:
        """States and metrics of a checkpoint."""

        def widened(known: Any) -> jax.Array:
            missing = self.iterations - known.shape[1]
            return self.place(np.pad(known, ((0, 0), (0, missing)), constant_values=np.nan))

        runs = NamedSharding(self._mesh, RUNS)
        state = jax.tree.map(lambda x: jax.device_put(x, runs), kept["state"])
        return state, {name: widened(known) for name, known in kept["metrics"].items()}

    def compile(self, progress: PyTree, params: PyTree) -> None:
        """Compile the training, unless it is compiled."""
        with self._compiling:
            start = time.perf_counter()
            if self.compiled is None:
                span = self._span(0, 1)
                self.compiled = self.training.lower(progress, params, *span).compile()
                self.compile_seconds += time.perf_counter() - start

    def compile_evaluation(self, state: PyTree, given: Inputs) -> None:
        """Compile the evaluation, so that its time is known before it is needed."""
        start = time.perf_counter()
        self.evaluation = self.evaluation.lower(state, *self._tests(given)).compile()
        self.compile_seconds += time.perf_counter() - start

    def _tests(self, given: Inputs) -> tuple[PyTree, PyTree]:
        return self.place(given.test_keys), self.place(given.test, self.shared.test)

    def _span(self, start: int, stop: int) -> tuple[jax.Array, jax.Array]:
        first, last = (self.place(np.int32(i), True) for i in (start, stop))
        return first, last

    def advance(self, progress: PyTree, params: PyTree, start: int, stop: int) -> PyTree:
        """Iterations ``start`` to ``stop`` of every run; ``progress`` is given up."""
        if self.compiled is None:
            self.compile(progress, params)
        return jax.block_until_ready(self.compiled(progress, params, *self._span(start, stop)))

    def evaluate(self, state: PyTree, given: Inputs) -> dict[str, np.ndarray]:
        """What ``judge`` finds of each run's policy, [runs, ...]."""
        found = self.evaluation(state, *self._tests(given))
        return {name: to_host(x) for name, x in found.items()}


def as_on_device(x: Any) -> np.ndarray:
    """A number or an array, with the type that the device gives it."""
    x = np.asarray(x)
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array, on every process."""
    if jax.process_count() > 1:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def key_words(keys: jax.Array) -> np.ndarray:
    """Typed keys as plain words."""
    return np.asarray(jax.random.key_data(keys))


def policy_keys(seed: int, name: str) -> tuple[jax.Array, jax.Array]:
    """Keys for training and for evaluation of a study's policy.

    They depend on its name, not on which others stand beside it.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()) & 0x7FFFFFFF)
    key_train, key_test = jax.random.split(key)
    return key_train, key_test


def training_progress(console: Console) -> Progress:
    """A line for each policy; its tasks have a field ``note``."""
    return LoggedProgress(
        TextColumn("{task.description}", markup=False),  # a name may hold brackets
        BarColumn(),
        TextColumn("{task.completed}/{task.total} iterations"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def train_runs(
    program: Program,
    given: Inputs,
    every: int,
    *,
    checkpoints: Checkpoints | None = None,
    due: Callable[[int], bool] = lambda done: True,
    check: bool = False,
    progress: Callable[[int, Metrics], None] = lambda iteration, metrics: None,
) -> Trained:
    """Train some runs, from their newest checkpoint if there is one.

    Args:
        program: what trains them.
        given: to the runs.
        every: iterations between two calls of ``progress``, the only places where a checkpoint can
            be kept. The result does not depend on it.
        checkpoints: where they are; none are kept if absent.
        due: whether one is to be kept after an iteration.
        check: whether to find out first if memory suffices, and to stop where losses are no
            numbers any more; with ``checkpoints``.
        progress: called with the iterations done and the metrics so far.

    Raises:
        InputError: memory does not suffice; a checkpoint cannot be read or written.
        NotNumbers: with ``check``; the checkpoint before stays.
    """
    done, seconds = 0, np.zeros(2)
    latest = checkpoints.latest() if checkpoints is not None else None
    if check and checkpoints is not None:
        require_memory(f"policy {checkpoints.name}", program.content(given, 0)["state"])
    if checkpoints is not None and latest is not None:
        kept = checkpoints.restore(latest, program.content(given, latest))
        now, done = program.go_on(kept), latest
        seconds += np.asarray(kept["seconds"], np.float64)
        progress(done, _known(now, done))
    else:
        now = program.start(given)
    params = program.place(given.train, program.shared.train)
    compiled = program.compile_seconds
    while done < program.iterations:
        stop = min(done + every, program.iterations)
        if program.compiled is None:
            program.compile(now, params)
        ready = time.perf_counter()
        now = program.advance(now, params, done, stop)
        seconds += [program.compile_seconds - compiled, time.perf_counter() - ready]
        compiled = program.compile_seconds
        known = _known(now, stop)
        if check:
            assert checkpoints is not None
            new = {name: x[:, done:] for name, x in known.items()}
            _require_numbers(checkpoints, done, now[0], new)
        done = stop
        if checkpoints is not None and due(done):
            state = jax.device_put(now[0], jax.local_devices()[0])
            metrics = {name: jnp.asarray(x) for name, x in known.items()}
            kept_seconds = jnp.asarray(seconds, jnp.float32)
            checkpoints.save(done, {"state": state, "metrics": metrics, "seconds": kept_seconds})
        progress(done, known)
    return Trained(now[0], _known(now, done), float(seconds[0]), float(seconds[1]))


def _known(progress: PyTree, done: int) -> Metrics:
    return {name: to_host(x)[:, :done] for name, x in progress[1].items()}


def of_seeds(
    keys: jax.Array,
    hyperparams: PyTree,
    env_params: PyTree,
    test_keys: jax.Array | None = None,
    test: PyTree = None,
) -> Inputs:
    """The inputs of runs that differ in nothing but their keys; typed keys [seeds]."""
    seeds = len(keys)
    repeated = jax.tree.map(lambda x: np.stack([as_number(x)] * seeds), hyperparams)
    testing = None if test_keys is None else key_words(test_keys)
    return Inputs(key_words(keys), repeated, env_params, testing, test)


def as_number(x: Any) -> np.ndarray:
    """Python numbers as the device has hyperparameters: float32 and int32."""
    if isinstance(x, float):
        return np.asarray(x, np.float32)
    return np.asarray(x, np.int32) if isinstance(x, int) else np.asarray(x)


def on_host(params: PyTree) -> PyTree:
    """Arrays for Python numbers, whose weak types would compile anew, and for those of a device."""
    return jax.tree.map(as_number, params)


def along_seeds(shared: PyTree) -> PyTree:
    """The axes of ``vmap`` over runs: none for what they have in common."""
    return jax.tree.map(lambda same: None if same else 0, shared)


def all_shared(tree: PyTree) -> PyTree:
    """That all leaves are shared."""
    return jax.tree.map(lambda _: True, tree)


def train(
    learner: Learner,
    hyperparams: PyTree,
    env_params: PyTree,
    keys: jax.Array,
    iterations: int,
    chunk: int,
    checkpoints: Checkpoints,
    progress: Callable[[int, Metrics], None] = lambda iteration, metrics: None,
) -> Trained:
    """Train on every key side by side, from the newest checkpoint if there is one.

    Args:
        keys: typed keys [seeds].
        iterations: of ``learner.step``, over all chunks.
        chunk: iterations between checkpoints. The result does not depend on it.
        progress: called after each chunk with the iterations done and the metrics so far.

    Raises:
        InputError: as :func:`train_runs`.
    """
    program = Program(learner, iterations, Shared(all_shared(env_params)), jax.devices()[:1])
    given = of_seeds(keys, hyperparams, env_params)
    return train_runs(program, given, chunk, checkpoints=checkpoints, check=True, progress=progress)


def sound_parameters(state: PyTree) -> jax.Array:
    """Which runs have parameters that are numbers, bool [runs]; ``state``: [runs, ...].

    A state without ``params`` is sound.
    """
    sound = jnp.ones(len(jax.tree.leaves(state)[0]), bool)
    for x in jax.tree.leaves(getattr(state, "params", ())):
        if jnp.issubdtype(x.dtype, jnp.floating):
            sound &= jnp.isfinite(x).all(tuple(range(1, x.ndim)))
    return sound


def _require_numbers(checkpoints: Checkpoints, done: int, state: PyTree, new: Metrics) -> None:
    """See that what a chunk gave are numbers.

    A mean return of iterations in which no episode ended is none and need not be.

    Args:
        done: iterations before the chunk.
        state: after it, [seeds, ...]; its ``params``, if it has any, must be numbers too.
        new: metrics [seeds, length] of the chunk.

    Raises:
        InputError: some are not; it names the first, and how many seeds have such.
    """
    wrong = {name: ~np.isfinite(x) for name, x in new.items()}
    if "episode_return" in wrong:
        wrong["episode_return"] &= np.asarray(new.get("episodes", 0)) > 0
    length = next(iter(new.values())).shape[1]
    sound = np.asarray(sound_parameters(state))
    ends = np.zeros((len(sound), length), bool)
    ends[:, -1] = ~sound
    wrong["parameters"] = ends
    bad = np.stack(list(wrong.values()))  # [metrics, seeds, length]
    if not bad.any():
        return
    first = int(bad.any((0, 1)).argmax())
    names = [name for name, at in wrong.items() if at[:, first].any()]
    seeds = np.flatnonzero(bad.any((0, 2)))
    kept = checkpoints.latest()
    raise NotNumbers(
        f"policy {checkpoints.name}: {', '.join(names)} are no numbers from iteration "
        f"{done + first + 1} on, in {len(seeds)} of {len(ends)} seeds (seed {seeds[0]} first): the "
        "environment gives rewards or observations that are no numbers, or a learning rate is too "
        "high; "
        + (
            "no checkpoint was kept."
            if kept is None
            else f"the checkpoint of iteration {kept}, which is sound, stays."
        )
    )
