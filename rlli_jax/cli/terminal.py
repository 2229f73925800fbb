"""What a terminal shows of characters and warnings."""

import codecs
import os
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

_ASCII = {"–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "…": "...", "→": "->", "•": "*"}
_ASCII |= {"“": '"', "”": '"', "‘": "'", "’": "'"}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """For a terminal without Unicode: the nearest ASCII, or a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    plain = (_ASCII.get(c) or _unaccented(c) or "?" for c in found)
    return "".join(plain), error.end


def _unaccented(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()


def fit_terminal() -> None:
    """Let no character that the terminal cannot show end the program, or come out as garbage."""
    codecs.register_error("rlli.spell", _spell)
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG")
    # In the C locale Python writes UTF-8 all the same, unless it is told an encoding.
    plain = locale in ("C", "POSIX") and not os.environ.keys() & {"PYTHONIOENCODING", "PYTHONUTF8"}
    for stream in (sys.stdout, sys.stderr):
        settings: dict[str, Any] = {"encoding": "ascii"} if plain else {}
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="rlli.spell", **settings)


_WARNING_TEXT = warnings.formatwarning


def warning_text(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of this package as people read it; all others as ``warnings`` writes them."""
    if Path(__file__).parents[1] in Path(filename).parents:
        return f"rlli: warning: {message}\n"
    return _WARNING_TEXT(message, category, filename, lineno, line)
