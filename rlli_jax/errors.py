"""The one error that a user is meant to read."""

import errno
import json
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one clear sentence: what is wrong, where (file and line, or the key's path),
    and what to do. The command line prints it without a traceback and exits with status 2.
    """


_PLAIN = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.EACCES: "permission is denied",
}


def why(error: BaseException) -> str:
    """What an exception says, on one line and in plain words, for a sentence of our own."""
    if isinstance(error, OSError) and error.errno in _PLAIN:
        return _PLAIN[error.errno]
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    return " ".join(str(said).split()).rstrip(".") or type(error).__name__


def shown(value: Any) -> str:
    """A value as a message shows it: as JSON has it (true, null, "text"), not as Python does."""
    return json.dumps(value, ensure_ascii=False, default=str)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
