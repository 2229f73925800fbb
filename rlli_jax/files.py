"""Writing files: whole or not at all, and one sentence where the disk does not take them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlli_jax.errors import InputError

# "disk quota exceeded" is unknown to some systems' C libraries.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_CAUSES = {
    errno.EROFS: "the file system is read-only; make it writable",
    errno.EACCES: "permission is denied; allow it",
    errno.EPERM: "permission is denied; allow it",
    errno.ENOENT: "a folder of its path does not exist; make it",
    errno.ENOTDIR: "a part of its path is a file, not a folder; remove that",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a file is in the place of a folder; remove that",
}


def refused(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The sentence for a path that the system does not let us write."""
    if error.errno in _FULL:
        cause = "the disk or the quota is full; make space (a run then goes on with --resume)"
    else:
        cause = _CAUSES.get(error.errno or 0, str(error.strerror or error))
    return InputError(f"{path} cannot be written: {cause}, or choose another place.")


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file that appears whole or not at all, even to readers and after a crash.

    Yields the path of a file beside ``path``, with the same ending, for the body to write. After
    the body it takes the place of ``path``, whose folder is made if it is not there; if the body
    fails it is removed, and what was at ``path`` before stays.

    Raises:
        InputError: the system refuses (a full or read-only disk, no permission).
    """
    path = Path(path)
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
        except OSError as error:
            raise refused(path, error) from error
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file by :func:`whole`."""
    with whole(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a file of UTF-8 text, its line ends as they are, by :func:`whole`."""
    write_bytes(path, content.encode())


def clear_partial(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; nobody may be writing there."""
    for partial in folder.rglob("partial-*"):
        if partial.is_file():
            partial.unlink()
