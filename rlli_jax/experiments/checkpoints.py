"""The newest checkpoint of a training, written whole, read with its reasons when it cannot be."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rlli_jax.envs.contract import PyTree
from rlli_jax.errors import InputError
from rlli_jax.experiments.versions import require_settings, settings
from rlli_jax.files import refused, write_text


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
