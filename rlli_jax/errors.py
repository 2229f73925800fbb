"""The one error that a user is meant to read."""

import json
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one clear sentence: what is wrong, where (file and line, or the key's path),
    and what to do. The command line prints it without a traceback and exits with status 2.
    """


def shown(value: Any) -> str:
    """A value as a message shows it: as JSON has it (true, null, "text"), not as Python does."""
    return json.dumps(value, ensure_ascii=False, default=str)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
