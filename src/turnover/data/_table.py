"""Columns of a data file, each row with its place in the file, and the rows that cannot be used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

from turnover.errors import DataError

__all__ = ["READERS", "BadRow", "Table", "listing", "read_table"]

SHOWN = 8


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
READERS: dict[str, Reader] = {}
"""Readers by file-name suffix; that of folders is the empty string."""


def read_table(path: str | Path, roles: Mapping[str, str]) -> Table:
    """The columns of a CSV, TSV, JSON, JSONL or Parquet file, or of a ``datasets`` folder.

    Args:
        path: the file or folder; a name is never taken for a pattern or an address.
        roles: for each role, such as ``"text"`` or ``"label"``, the name of its column.

    Raises:
        DataError: for a file that is missing, of an unknown format, damaged or empty, or lacks a
            column.
        MissingExtra: when DuckDB, or for a folder the package ``datasets``, is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no file {path}. Check the name and the folder.")
    suffix = "" if path.is_dir() else suffix_of(path)
    if suffix not in READERS:
        known = ", ".join(s for s in READERS if s)
        raise DataError(
            f"Cannot read {path}: its name ends with {suffix or 'no suffix'!r}. Readers are for "
            f"{known} (text files also with .gz), and for folders that datasets.save_to_disk wrote."
        )
    table = READERS[suffix](path, roles)
    if not len(table) and not table.bad:
        raise DataError(f"{path} holds no rows.")
    return table


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, that of compression left out."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def chosen(path: Path, roles: Mapping[str, str], found: Sequence[str]) -> None:
    """Refuse a column that the file does not have."""
    for role, name in roles.items():
        if name not in found:
            near = get_close_matches(_key(name), [_key(column) for column in found], 1, 0.7)
            meant = next((column for column in found if near and _key(column) == near[0]), None)
            ask = "" if meant is None else f" Did you mean {meant!r}?"
            raise DataError(
                f"{path} has no column {name!r} for the {role}.{ask} Its columns are: "
                f"{', '.join(map(repr, found)) or 'none'}."
            )


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
