"""One reader for every table that people hand in: CSV, TSV, Parquet and Excel.

All cells stay text until a column is asked for as numbers, so that a provider may be called NA
and an identifier 007. pandas comes with this module: import it where a file is read.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from rlli_jax.errors import InputError, why

KINDS = "CSV or TSV in UTF-8, Parquet, or Excel (.xlsx)"
SEPARATORS = (",", ";", "\t", "|")
BLANK = frozenset({"", "na", "n/a", "nan", "null"})  # how programs write "no value"

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


@dataclass(frozen=True)
class Table:
    """The cells of a file as text without blanks around them; "" where there is nothing.

    ``frame`` has distinct column names, and the number of the row below the header as its index.
    """

    path: Path
    frame: pd.DataFrame

    @property
    def columns(self) -> list[str]:
        """The names of the columns, as the file writes them."""
        return list(self.frame.columns)

    def fail(self, problem: str, row: int | None = None) -> NoReturn:
        """Raise the :class:`InputError`; ``row`` is a position in ``frame``, from 0."""
        where = "" if row is None else f", row {self.frame.index[row]} below the header"
        raise InputError(f"{self.path}{where}: {problem}{'' if problem.endswith('?') else '.'}")

    def find(self, *names: str) -> str | None:
        """The column of the first of these names that is there; capitals count only for a tie.

        Raises InputError if several columns differ in capitals alone and none is exact.
        """
        for name in names:
            if name in self.frame:
                return name
            found = [c for c in self.columns if c.casefold() == name.casefold()]
            if len(found) > 1:
                self.fail(f"the columns {' and '.join(map(repr, found))} mean the same; keep one")
            if found:
                return found[0]
        return None

    def require(self, *names: str, advice: str) -> str:
        """As :meth:`find`, but raises InputError with the columns of the file if there is none."""
        found = self.find(*names)
        if found is None:
            self.fail(
                f"there is no column {names[0]!r}; the file has {', '.join(self.columns)}: {advice}"
            )
        return found

    def names(self, column: str) -> list[str]:
        """The cells of a column. Raises InputError if one is empty."""
        cells: list[str] = self.frame[column].tolist()
        if "" in cells:
            self.fail(f"column {column!r} is empty; fill it in", cells.index(""))
        return cells

    def numbers(self, column: str) -> np.ndarray:
        """The column as float64 [rows], NaN where it is blank. 3,5 is three and a half.

        Raises InputError for a cell that is neither blank nor a finite number.
        """
        cells = self.frame[column].tolist()
        numbers = np.array([number(cell) for cell in cells], np.float64)
        for row in np.flatnonzero(~np.isfinite(numbers)):
            if cells[row].casefold() not in BLANK:
                self.fail(
                    f"column {column!r} holds {cells[row]!r}, which is not a finite number",
                    int(row),
                )
        return numbers


def number(cell: str) -> float:
    """A cell as a number, with a decimal point or comma; NaN if it is none."""
    try:
        return float(cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell)
    except ValueError:
        return np.nan


def read_table(path: str | PathLike[str], what: str) -> Table:
    """Read a table with a header; ``what`` says what a row is, for messages.

    The file's ending tells Parquet and Excel (.xlsx, of which the first sheet counts); all else is
    text, in UTF-8 or in UTF-16 with its mark. There the separator (comma, semicolon, tab or bar)
    is that which splits the header into most names.
    Empty rows and columns without a name are left out.

    Raises:
        InputError: the file is missing, empty or cannot be parsed; a row has more
            cells than the header; two columns have one name.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path}: there is no such file; give a table, {what} a row.")
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
            header, cells = [str(name) for name in frame.columns], frame
        else:
            rows = (
                pd.read_excel(path, header=None, dtype=object)
                if kind == ".xlsx"
                else _read_text(path)
            )
            header, cells = [_text(name) for name in rows.iloc[0]], rows.iloc[1:]
    except (pd.errors.EmptyDataError, IndexError):
        raise InputError(f"{path}: the file is empty; give {what} a row below a header.") from None
    except ImportError:
        raise InputError(
            f"{path}: reading Excel needs the package openpyxl (pip install openpyxl); "
            "or save the sheet as CSV."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: the file is not in UTF-8 (byte {error.object[error.start]:#x} at place "
            f"{error.start:,}); save it anew as CSV UTF-8, or as Excel (.xlsx)."
        ) from None
    except Exception as error:  # Excel and Parquet readers raise almost anything on damaged files
        raise InputError(
            f"{path}: the file cannot be parsed ({why(error)}); give {KINDS}."
        ) from None
    header = [name.strip().lstrip("\ufeff") for name in header]
    name, count = Counter(filter(None, header)).most_common(1)[0] if any(header) else ("", 0)
    if count > 1:
        raise InputError(f"{path}: {count} columns are named {name!r}; keep one, or rename them.")
    frame = pd.DataFrame(
        {
            name: pd.Series([_text(cell) for cell in cells.iloc[:, place]], dtype=object)
            for place, name in enumerate(header)
            if name
        }
    )
    frame.index = pd.RangeIndex(1, len(cells) + 1)
    frame = frame[(frame != "").any(axis=1)]
    if frame.empty:
        raise InputError(f"{path}: the file has no rows; give {what} a row below the header.")
    return Table(path, frame)


def as_table(source: str, frame: pd.DataFrame) -> Table:
    """A table that did not come from a file, as :func:`read_table` would have read it."""
    cells = pd.DataFrame({name: frame[name].map(_text).astype(object) for name in frame.columns})
    cells.index = pd.RangeIndex(1, len(cells) + 1)
    return Table(Path(source), cells)


def _read_text(path: Path) -> pd.DataFrame:
    data = path.read_bytes()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    text = text.lstrip("\r\n")
    separator = _separator(text)
    return pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        skipinitialspace=separator != "\t",
    ).fillna("")


def _separator(text: str) -> str:
    """What splits the header into most names; the comma if nothing does."""
    header = text.split("\n", 1)[0]

    def names(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator), ()))

    return max(SEPARATORS, key=names)


def _text(cell: object) -> str:
    """A cell of any reader as text: whole numbers without ".0", nothing as ""."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return ""
    if isinstance(cell, float | np.floating):
        if np.isnan(cell):
            return ""
        return str(int(cell)) if float(cell).is_integer() else repr(float(cell))
    return str(cell).strip()


def column_names(table: Table, names: Sequence[str]) -> dict[str, str]:
    """The names that are columns of the table, capitals aside: name -> column."""
    found = ((name, table.find(name)) for name in names)
    return {name: column for name, column in found if column is not None}
