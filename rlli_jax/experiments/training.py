"""Train one policy on all its seeds at once, in chunks that can be resumed bit for bit.

A chunk is a compiled scan over iterations, vmapped over seeds. Between chunks the host shows
progress and keeps a checkpoint, which holds the whole state and the metrics so far; what is lost
to a crash is at most one chunk.
"""

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlli_jax.envs.contract import Env, PyTree
from rlli_jax.envs.policy import Evaluation, evaluate
from rlli_jax.errors import InputError
from rlli_jax.experiments.memory import require_memory
from rlli_jax.experiments.versions import require_settings, settings
from rlli_jax.files import refused, write_text
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import EVALUATE, START, compiler_options
from rlli_jax.learners.training import train_program
from rlli_jax.progress import LoggedProgress

Metrics = dict[str, np.ndarray]  # each [seeds, iterations] float32


@dataclass(frozen=True)
class Trained:
    """What training leaves behind."""

    state: PyTree  # vmapped over seeds
    metrics: Metrics
    compile_seconds: float
    train_seconds: float  # without compilation and checkpoints


class Checkpoints:
    """The newest checkpoint of one training: state, metrics and time used so far.

    Beside it, ``settings.json`` holds the settings of JAX at the beginning.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._checkpointer = ocp.StandardCheckpointer()

    @property
    def name(self) -> str:
        """Of what is trained: that of the folder."""
        return self._folder.name

    def latest(self) -> int | None:
        """The iteration of the newest whole checkpoint, None if there is none."""
        done = [int(p.name) for p in self._folder.glob("*") if p.name.isdigit()]
        return max(done, default=None)

    def save(self, iteration: int, content: PyTree) -> None:
        """Keep a checkpoint, then drop the older ones. It is renamed into place when whole.

        Raises:
            InputError: the disk is full or read-only, say; the checkpoint before stays.
        """
        path = self._folder / str(iteration)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self._folder):  # orbax would try for five minutes
                pass
            self._clear()
            if not self._settings.exists():
                write_text(self._settings, json.dumps(settings(), indent=2) + "\n")
            # Not in the main thread: asyncio, which orbax runs on, takes Ctrl-C there and can lose
            # it.
            with _quiet(), ThreadPoolExecutor(1) as thread:
                thread.submit(self._write, path, content).result()
            for older in self._folder.glob("*"):
                if older.name.isdigit() and int(older.name) < iteration:
                    shutil.rmtree(older)
        except InputError:
            raise
        except Exception as error:
            self._checkpointer = ocp.StandardCheckpointer()  # it may hold on to what failed
            self._clear()
            if (cause := _disk_error(error)) is None:
                raise
            # Orbax's other tasks met the same; asyncio would print each when it is forgotten.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise refused(f"checkpoint {path}", cause) from error

    @property
    def _settings(self) -> Path:
        return self._folder / "settings.json"

    def _clear(self) -> None:
        """Remove what writers left that were killed or failed."""
        for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    def _write(self, path: Path, content: PyTree) -> None:
        self._checkpointer.save(path, _without_keys(content))
        self._checkpointer.wait_until_finished()

    def restore(self, iteration: int, like: PyTree) -> PyTree:
        """The checkpoint of an iteration, with the shapes and types of ``like``.

        Raises:
            InputError: the checkpoint is damaged or belongs to something else, or settings of JAX
                are others than at its beginning.
        """
        path = self._folder / str(iteration)
        begun: dict[str, str] = {}
        with suppress(OSError, ValueError):  # earlier versions wrote none
            begun = json.loads(self._settings.read_text())
        require_settings(f"checkpoint {path}", begun)
        wanted = jax.eval_shape(_without_keys, like)
        # Orbax knows a damaged checkpoint in many ways and by as many exception types.
        try:
            with _quiet():
                there = self._checkpointer.metadata(path).item_metadata.tree
                fits = _shapes(there) == _shapes(wanted)
                plain = self._checkpointer.restore(path, wanted) if fits else None
        except Exception as error:
            cause = _disk_error(error)
            if cause is not None and cause.errno != errno.ENOENT:
                raise InputError(f"checkpoint {path} cannot be read: {cause.strerror}.") from error
            raise InputError(
                f"checkpoint {path} is damaged ({type(error).__name__}); remove that folder to "
                "train this policy from its start."
            ) from error
        if not fits:
            raise InputError(
                f"checkpoint {path} is whole, but its arrays are not those of this training: it "
                "was begun with another config, another version of a library or other settings of "
                "JAX (JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL); go on with those of its beginning."
            )
        return _with_keys(plain, like)


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax also logs, with tracebacks of its threads, what it raises."""
    logger = logging.getLogger("absl")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _shapes(tree: PyTree) -> list[tuple[tuple[str, ...], tuple[int, ...], str]]:
    """Path, shape and type of every array, of what orbax calls by other names too."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: hasattr(x, "shape") and hasattr(x, "dtype")
    )
    return sorted(
        (
            tuple(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path),
            tuple(leaf.shape),
            str(np.dtype(leaf.dtype)),
        )
        for path, leaf in leaves
    )


def _disk_error(error: BaseException) -> OSError | None:
    """What the system refused, of an error of orbax; None if it was something else."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno is not None:
            return chain
        chain = chain.__cause__ or chain.__context__
    text = str(error)  # of TensorStore, whose own errors hold no number
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return None


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _with_keys(plain: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(
        lambda p, x: jax.random.wrap_key_data(p) if _is_key(x) else jnp.asarray(p), plain, like
    )


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


def checkpoint_content(
    learner: Learner, state: PyTree, env_params: PyTree, iterations: int
) -> dict[str, PyTree]:
    """Shapes of what a checkpoint of an iteration holds; ``state`` is vmapped over seeds."""
    metrics = jax.eval_shape(jax.vmap(learner.step, (0, None)), state, env_params)[1]
    return {
        "state": state,
        "metrics": jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*x.shape, iterations), np.float32), metrics
        ),
        "seconds": jax.ShapeDtypeStruct((2,), np.float32),
    }


def start_program(learner: Learner) -> Any:
    """keys [runs], hyperparams, env_params -> states [runs, ...], compiled when called."""
    options = compiler_options(START)
    return jax.jit(jax.vmap(learner.init, (0, None, None)), compiler_options=options)


def evaluate_program(env: Env, learner: Learner, episodes: int) -> Any:
    """states, keys [runs], env_params -> the Evaluation of each run's greedy policy."""

    def play(state: PyTree, key: jax.Array, env_params: PyTree) -> Evaluation:
        return evaluate(env, learner.policy(state), key, env_params, episodes)

    options = compiler_options(EVALUATE)
    return jax.jit(jax.vmap(play, (0, 0, None)), compiler_options=options)


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
        InputError: memory does not suffice; a checkpoint cannot be read or written; or losses or
            rewards are no numbers any more, in which case the checkpoint before stays.
    """
    init = start_program(learner)
    like = jax.eval_shape(init, keys, hyperparams, env_params)
    require_memory(f"policy {checkpoints.name}", like)
    done = checkpoints.latest()
    if done is None:
        state, metrics, seconds = init(keys, hyperparams, env_params), {}, np.zeros(2)
        done = 0
    else:
        restored = checkpoints.restore(done, checkpoint_content(learner, like, env_params, done))
        state, seconds = restored["state"], np.array(restored["seconds"], np.float64)
        metrics = {name: np.asarray(values) for name, values in restored["metrics"].items()}
        progress(done, metrics)

    jitted = train_program(learner)
    compiled: dict[int, Any] = {}
    while done < iterations:
        length = min(chunk, iterations - done)
        start = time.perf_counter()
        if length not in compiled:
            compiled[length] = jitted.lower(state, env_params, length=length).compile()
        ready = time.perf_counter()
        state, new = jax.block_until_ready(compiled[length](state, env_params))
        seconds += [ready - start, time.perf_counter() - ready]
        new = {name: np.asarray(x, np.float32) for name, x in new.items()}  # [seeds, length]
        _require_numbers(checkpoints, done, state, new)
        metrics = {n: np.concatenate([metrics[n], x], 1) if metrics else x for n, x in new.items()}
        done += length
        checkpoints.save(
            done,
            {
                "state": state,
                "metrics": {name: jnp.asarray(x) for name, x in metrics.items()},
                "seconds": jnp.asarray(seconds, jnp.float32),
            },
        )
        progress(done, metrics)
    return Trained(state, metrics, float(seconds[0]), float(seconds[1]))


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
    raise InputError(
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


def evaluate_seeds(
    env: Env, learner: Learner, state: PyTree, key: jax.Array, env_params: PyTree, episodes: int
) -> dict[str, np.ndarray]:
    """Play the greedy policy of every seed; returns [seeds, episodes] and summed statistics."""
    seeds = jax.tree.leaves(state)[0].shape[0]

    play = evaluate_program(env, learner, episodes)
    result = play(state, jax.random.split(key, seeds), env_params)
    return {"returns": np.asarray(result.returns)} | {
        name: np.asarray(x) for name, x in result.statistics.items()
    }
