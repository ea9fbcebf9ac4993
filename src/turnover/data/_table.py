"""Columns of a data file, each row with its place in the file, and the rows that cannot be used."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

from turnover.data._recode import readable
from turnover.errors import DataError

__all__ = [
    "READERS",
    "BadRow",
    "DataWarning",
    "NoUsableRows",
    "Table",
    "listing",
    "read_table",
]

SHOWN = 8


class DataWarning(UserWarning):
    """Something about the rows that is used, and may not be meant."""


class NoUsableRows(DataError):
    """A file that can be read, and none of whose rows can be used.

    Attributes:
        left_out: how many rows it has.
    """

    def __init__(self, message: str, left_out: int = 0) -> None:
        super().__init__(message)
        self.left_out = left_out


@final
@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        file: the file.
        place: where in it: ``"line 7"`` of a text file (the first line is 1), ``"row 6"`` (the
            first row is 0), or the name of a file in a folder.
        problem: what kind of problem, such as ``"missing label"``.
        detail: what was found there.
    """

    file: str
    place: str
    problem: str
    detail: str = ""

    def __str__(self) -> str:
        found = f": {self.detail}" if self.detail else ""
        return f"{self.file}, {self.place}: {self.problem}{found}"


@final
@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a data file that were asked for.

    Attributes:
        path: the file or folder.
        columns: for each role the values, one per usable row; None is a missing value.
        numbers: number of each usable row among all rows of the file, from 0.
        lines: line of each usable row in a text file, from 1; None where there are no lines.
        bad: rows that could not be read.
        label_names: names of the classes 0, 1, …, where the file holds them.
        files: the file of each usable row in a folder; None where ``path`` is a file.
        nothing_is_a_class: whether words such as ``none`` are classes, not missing labels.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int]
    lines: Sequence[int] | None = None
    bad: tuple[BadRow, ...] = ()
    label_names: tuple[str, ...] = field(default=())
    files: Sequence[str] | None = None
    nothing_is_a_class: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, row: int) -> str:
        """Where a usable row stands in the file or folder, as people look for it."""
        if self.files is not None:
            return self.files[row]
        return f"row {self.numbers[row]}" if self.lines is None else f"line {self.lines[row]}"


Reader = Callable[[Path, Mapping[str, str]], Table]
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
SPLITS = {"split", "subset", "fold", "partition"}
"""Names of columns that say which rows are for training and which for tests."""
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
READERS: dict[str, Reader] = {}
"""Readers by file-name suffix; that of folders is the empty string."""


def read_table(path: str | Path, roles: Mapping[str, str], *, encoding: str | None = None) -> Table:
    """The columns of a CSV, TSV, JSON, JSONL or Parquet file, or of a ``datasets`` folder.

    Args:
        path: the file or folder; a name is never taken for a pattern or an address.
        roles: for each role, such as ``"text"`` or ``"label"``, the name of its column.
        encoding: of a text file, such as ``latin-1``; None is UTF-8, or what its first bytes say.

    Raises:
        DataError: for a file that is missing, of an unknown format, damaged or empty, or lacks a
            column.
        MissingExtra: when DuckDB, or for a folder the package ``datasets``, is not installed.
    """
    address = str(path)
    path = Path(path)
    _refuse_other_places(address, path)
    suffix = "" if path.is_dir() else suffix_of(path)
    if suffix not in READERS:
        known = ", ".join(s for s in READERS if s)
        save = " Save the sheet as CSV UTF-8." if suffix in SHEETS else ""
        raise DataError(
            f"Cannot read {path}: its name ends with {suffix or 'no suffix'!r}.{save} Readers are "
            f"for {known} (text files also with .gz), and for folders that datasets.save_to_disk "
            "wrote."
        )
    with readable(path, suffix, encoding) as file:
        table = READERS[suffix](file, roles)
    if file != path:
        bad = tuple(replace(row, file=str(path)) for row in table.bad)
        table = replace(table, path=path, bad=bad)
    if not len(table) and not table.bad:
        raise NoUsableRows(f"{path} holds no rows.")
    return table


def _refuse_other_places(address: str, path: Path) -> None:
    """Refuse what is no file or folder of this machine."""
    if scheme := ADDRESS.match(address):
        address = re.sub(r":/+", "://", address, count=1)  # a path keeps one of two slashes
        raise DataError(
            f"{address} is an address ({scheme[1]}), and data are read from this machine only. "
            "Download the file, and give its name."
        )
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {address[:80]!r}: {getattr(error, 'strerror', error)}."
        ) from None
    if not exists:
        pattern = " Names are not patterns: give one file." if set(address) & set("*?[") else ""
        raise DataError(f"There is no file {path}. Check the name and the folder.{pattern}")
    if not path.is_file() and not path.is_dir():
        raise DataError(
            f"{path} is a pipe or a device, and a file is read more than once. Write the rows to a "
            "file first, whose name ends with .csv or .jsonl."
        )


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, without the suffix of a compression."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def chosen(path: Path, roles: Mapping[str, str], found: Sequence[str]) -> None:
    """Refuse a column that the file does not have, and one that was not named."""
    columns = f"Its columns are: {', '.join(map(repr, found)) or 'none'}."
    for role, name in roles.items():
        if not name:
            raise DataError(f"Which column of {path} holds the {role}? {columns}")
        if name not in found:
            near = get_close_matches(_key(name), [_key(column) for column in found], 1, 0.7)
            meant = next((column for column in found if near and _key(column) == near[0]), None)
            ask = "" if meant is None else f" Did you mean {meant!r}?"
            raise DataError(
                f"{path} has no column {name!r} for {role}='NAME'.{ask} {columns}"
                f"{'' if ask else _no_header(path, found)}"
            )
    for name in found:
        if _key(name) in SPLITS and name not in roles.values():
            warnings.warn(
                f"{path} has a column {name!r}, which is not looked at: rows of every value of it "
                "are used alike. Write the test rows to a file of their own, and give it as "
                "evaluation=FILE.",
                DataWarning,
                stacklevel=2,
            )


def _no_header(path: Path, found: Sequence[str]) -> str:
    """A hint, where the names of the columns look like a row."""
    if suffix_of(path) not in (".csv", ".tsv") or not any(" " in name.strip() for name in found):
        return ""
    return " If this is the first row, put a line with the names of the columns above it."


def _key(name: str) -> str:
    return name.strip().casefold()


def listing(bad: Sequence[BadRow]) -> str:
    """The bad rows in a few lines: how many of each kind, and where the first ones are."""
    kinds: dict[str, int] = {}
    for row in bad:
        kinds[row.problem] = kinds.get(row.problem, 0) + 1
    counts = ", ".join(f"{count:,} × {problem}" for problem, count in kinds.items())
    lines = [str(row) for row in bad[:SHOWN]]
    rest = [f"… and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []
    return "\n  ".join([counts, *lines, *rest])


def shortened(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line and in quotes."""
    line = " ".join(text.split())
    return repr(line if len(line) <= most else line[: most - 1] + "…")
