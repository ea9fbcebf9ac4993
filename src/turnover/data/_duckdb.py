"""CSV, JSON and Parquet through DuckDB, whose reject tables tell where a line is broken.

Nothing of a file name or of a file is ever executed: names are parameters of the queries, columns
are quoted, and DuckDB may neither fetch nor load extensions.
"""

import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turnover.data._recode import content_of
from turnover.data._table import READERS, BadRow, NoUsableRows, Table, chosen, shortened
from turnover.errors import DataError, MissingExtra

__all__ = ["read_csv", "read_json", "read_parquet"]

DELIMITERS = (",", "\t", ";", "|")
LOCKED: Any = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
BROKEN = {
    "INVALID ENCODING": ("broken encoding", "not UTF-8"),
    "TOO MANY COLUMNS": ("broken line", "too many columns"),
    "MISSING COLUMNS": ("broken line", "too few columns"),
    "UNQUOTED VALUE": ("broken line", "a quote that is not closed, or text after it"),
    "LINE SIZE OVER MAXIMUM": ("broken line", "too long"),
}
CSV = """
    SELECT {columns} FROM read_csv(?, auto_detect=false, header=true, delim=?, quote='"',
    escape='"', nullstr='', columns={types}, store_rejects=true, hive_partitioning=false)
"""
REJECTS = """
    SELECT line, line_byte_position, error_type, csv_line FROM reject_errors
    ORDER BY line_byte_position
"""
JSON = """
    SELECT {columns}, json_type(json) IS NOT DISTINCT FROM 'OBJECT' FROM read_json_objects(
    ?, format=?, ignore_errors=?, hive_partitioning=false)
"""
PARQUET = "SELECT {columns} FROM read_parquet(?, hive_partitioning=false)"


@contextmanager
def _database(path: Path) -> Iterator[Any]:
    """A connection of its own; errors of DuckDB become a DataError about the file."""
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "data", f"Reading {path}") from None
    connection = duckdb.connect(":memory:", config=LOCKED)
    try:
        yield connection
    except (duckdb.Error, OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()


def _literal(path: Path) -> str:
    """The absolute path, in which no letter is a wildcard and no beginning an address."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path.absolute()))


def _quoted(name: str, mark: str = '"') -> str:
    return mark + name.replace(mark, 2 * mark) + mark


def read_csv(path: Path, roles: Mapping[str, str]) -> Table:
    """Comma-, tab-, semicolon- or bar-separated values with a header, in UTF-8."""
    content = content_of(path)
    _refuse_empty(path, content)
    _refuse_other_text(path, content)
    names, delimiter = _header(path, content, roles)
    types = ", ".join(f"{_quoted(name, chr(39))}: 'VARCHAR'" for name in names)
    columns = ", ".join(_quoted(name) for name in roles.values())
    with _database(path) as base:
        query = CSV.format(columns=columns, types="{" + types + "}")
        found = base.execute(query, [_literal(path), delimiter]).fetchall()
        rejects = base.execute(REJECTS).fetchall()
    bad = _rejected(path, content, rejects)
    numbers, lines = _places(content, delimiter, len(found), list(bad))
    return Table(path, _by_role(roles, found), numbers, lines, tuple(bad.values()))


def _refuse_empty(path: Path, content: bytes) -> None:
    """Say of a file without anything that it is empty, not that it lacks a column."""
    if not content.strip():
        raise NoUsableRows(f"{path} is empty: it holds neither columns nor rows.")


def _refuse_other_text(path: Path, content: bytes) -> None:
    """Refuse text that the readers would take for something else.

    Raises:
        DataError: for UTF-16 without its mark, and for lines that end with a carriage return alone.
    """
    if b"\x00" in content[:4]:
        raise DataError(
            f"{path} is text in UTF-16 or UTF-32, and does not say which. Name its encoding, such "
            "as encoding='utf-16-le'."
        )
    first = content[: 1 << 16]
    if b"\r" in first.replace(b"\r\n", b"").partition(b"\n")[0] and b'"' not in first:
        raise DataError(
            f"The lines of {path} end with a carriage return alone, as on very old systems. Save "
            "it with the line ends of this system."
        )


def _header(path: Path, content: bytes, roles: Mapping[str, str]) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter: the first that yields all columns asked for."""
    text = io.StringIO(content[: 1 << 16].decode("utf-8-sig", errors="replace"))
    first = next((line for line in text if line.strip()), "")
    try:
        headers = {mark: next(csv.reader([first], delimiter=mark), []) for mark in DELIMITERS}
    except csv.Error as error:
        raise DataError(f"Cannot read the header of {path}: {error}.") from error
    for mark, names in headers.items():
        if set(roles.values()) <= set(names):
            if len({name.lower() for name in names}) < len(names):
                raise DataError(
                    f"{path} has two columns of one name (capitals count as small letters), so "
                    f"that it is unclear which is meant: {', '.join(map(repr, names))}."
                )
            chosen(path, roles, names)
            return names, mark
    chosen(path, roles, max(headers.values(), key=len))
    raise AssertionError


def _rejected(path: Path, content: bytes, rejects: list[Any]) -> dict[int, BadRow]:
    """Broken lines by their number, one entry for each however many errors it has."""
    found: dict[int, BadRow] = {}
    for _, byte, error, text in rejects:
        start = byte or 0
        blank = len(content[start:]) - len(content[start:].lstrip(b"\r\n"))
        line = content.count(b"\n", 0, start + blank) + 1
        problem, why = BROKEN.get(error, ("broken line", error.lower()))
        found.setdefault(
            line, BadRow(str(path), f"line {line}", problem, f"{why}: {shortened(text or '')}")
        )
    return found


def _places(
    content: bytes, delimiter: str, count: int, bad: list[int]
) -> tuple[list[int], list[int] | None]:
    """Numbers and first lines of the accepted rows: those of all rows without the broken ones.

    A stray quote can make Python's reader see other rows than DuckDB. There are no lines then, and
    rows are counted as they were accepted.
    """
    text = io.StringIO(content.decode("utf-8-sig", errors="replace"), newline="")
    reader = csv.reader(text, delimiter=delimiter)
    starts, line = [], 1
    try:
        for row in reader:
            if row:
                starts.append(line)
            line = reader.line_num + 1
    except csv.Error:
        return list(range(count)), None
    broken = set(bad)
    kept = [(number, start) for number, start in enumerate(starts[1:]) if start not in broken]
    if len(kept) != count:
        return list(range(count)), None
    return [number for number, _ in kept], [start for _, start in kept]


def read_json(path: Path, roles: Mapping[str, str]) -> Table:
    """One JSON object per line (``.jsonl``, ``.ndjson``), or one array of objects (``.json``)."""
    content = content_of(path)
    _refuse_empty(path, content)
    by_lines = not path.name.lower().removesuffix(".gz").endswith(".json")
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in roles.values()]
    columns = ", ".join(["json_extract_string(json, ?)"] * len(pointers))
    shape = "newline_delimited" if by_lines else "auto"
    with _database(path) as base:
        query = JSON.format(columns=columns)
        given = [*pointers, _literal(path), shape, by_lines]
        found = base.execute(query, given).fetchall()
        keys = base.execute(
            "SELECT DISTINCT unnest(json_keys(json)) FROM read_json_objects(?, format=?, "
            "ignore_errors=?, hive_partitioning=false) WHERE json_type(json) = 'OBJECT'",
            [_literal(path), shape, by_lines],
        ).fetchall()
    chosen(path, roles, sorted(key for (key,) in keys))
    lines = _filled_lines(content, len(found)) if by_lines else None
    good = [row for row, record in enumerate(found) if record[-1]]
    bad = tuple(
        _no_object(path, row, None if lines is None else lines[row])
        for row, record in enumerate(found)
        if not record[-1]
    )
    kept_lines = None if lines is None else [lines[row][0] for row in good]
    return Table(path, _by_role(roles, [found[row] for row in good]), good, kept_lines, bad)


def _filled_lines(content: bytes, count: int) -> list[tuple[int, bytes]] | None:
    """Number and contents of every line that is not blank."""
    lines = [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    return lines if len(lines) == count else None


def _no_object(path: Path, row: int, line: tuple[int, bytes] | None) -> BadRow:
    if line is None:
        return BadRow(str(path), f"row {row}", "broken line", "no JSON object")
    number, content = line
    text = content.decode("utf-8", errors="replace")
    broken = text.encode() != content
    problem = ("broken encoding", "not UTF-8") if broken else ("broken line", "no JSON object")
    return BadRow(str(path), f"line {number}", problem[0], f"{problem[1]}: {shortened(text)}")


def read_parquet(path: Path, roles: Mapping[str, str]) -> Table:
    """A Parquet file; names of classes are taken from its metadata."""
    columns = ", ".join(_quoted(name) for name in roles.values())
    with _database(path) as base:
        described = base.execute(
            "SELECT name FROM (DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning=false)) "
            "AS columns(name)",
            [_literal(path)],
        ).fetchall()
        chosen(path, roles, [name for (name,) in described])
        found = base.execute(PARQUET.format(columns=columns), [_literal(path)]).fetchall()
        metadata = dict(
            base.execute(
                "SELECT key, value FROM parquet_kv_metadata(?)", [_literal(path)]
            ).fetchall()
        )
    names = _label_names(metadata, roles.get("label", ""))
    return Table(path, _by_role(roles, found), range(len(found)), label_names=names)


def _label_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...]:
    """Class names, as a list under ``label_names`` or as a feature of Hugging Face's format."""
    try:
        plain = json.loads(metadata.get(b"label_names", b"[]"))
        whole = json.loads(metadata.get(b"huggingface", b"{}"))
        names = plain or whole["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _by_role(roles: Mapping[str, str], rows: list[Any]) -> dict[str, list[Any]]:
    return {role: [row[i] for row in rows] for i, role in enumerate(roles)}


READERS |= {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".parquet": read_parquet,
}
