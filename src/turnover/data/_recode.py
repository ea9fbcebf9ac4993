"""Files that a reader understands only after a copy of them is written another way."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from turnover.errors import DataError

__all__ = ["content_of", "readable"]

TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
PEEKED = 4096
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What stands first in a file that names its own encoding; the longer marks first."""


@contextmanager
def readable(path: Path, suffix: str, encoding: str | None) -> Iterator[Path]:
    """The file itself, or a copy of it that is UTF-8 and has one row for each record.

    A copy is made of packed text, of text in another encoding, of an array in a ``.jsonl``, and of
    a JSON object that holds its rows under one key, such as ``{"data": [...]}``.

    Args:
        path: the file.
        suffix: its format, such as ``.csv``.
        encoding: of its text, such as ``latin-1``; None is UTF-8, or what its first bytes say.

    Raises:
        DataError: for a file that cannot be read, and text that is not in that encoding.
    """
    if suffix not in TEXTS:
        yield path
        return
    if not _has_to_change(path, suffix, encoding):
        yield path
        return
    content = content_of(path)
    text = _decoded(path, content, encoding)
    rows = _rows_inside(text or content, suffix)
    packed = path.suffix.lower() == ".gz"  # readers pass over the missing end of such a file
    if text is None and rows is None and not packed:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / f"rows{suffix if rows is None else '.json'}"
        copy.write_bytes(rows or text or content)
        try:
            yield copy
        except DataError as error:
            raise type(error)(str(error).replace(str(copy), str(path))) from error


def _has_to_change(path: Path, suffix: str, encoding: str | None) -> bool:
    """Whether a copy may be due, by the first bytes: most files are read once, by their reader."""
    try:
        with path.open("rb") as file:
            head = file.read(PEEKED)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}") from error
    marked = any(head.startswith(mark) for mark in MARKS)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    nested = suffix not in (".csv", ".tsv") and start in {".json": (b"{", b"")}.get(
        suffix, (b"[", b"")
    )
    return path.suffix.lower() == ".gz" or encoding is not None or marked or nested


def content_of(path: Path) -> bytes:
    """The bytes of a file, unpacked."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}") from error


def _decoded(path: Path, content: bytes, encoding: str | None) -> bytes | None:
    """The text in UTF-8, or None where it is so already."""
    marked = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    found = encoding or marked
    if found is None:
        return None
    try:
        if codecs.lookup(found).name == "utf-8":
            return None
        return content.decode(found).encode()
    except LookupError:
        raise DataError(
            f"Python knows no encoding {found!r}. Usual ones are utf-8, utf-16, latin-1, cp1252, "
            "shift-jis and gb18030."
        ) from None
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {found}: {error}.") from error


def _rows_inside(content: bytes, suffix: str) -> bytes | None:
    """The rows as a JSON array, where they stand in an array or under one key; else None."""
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if (suffix == ".json" and start != b"{") or suffix in (".csv", ".tsv"):
        return None
    if suffix != ".json":
        return content if start == b"[" else None
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return None
    lists = [value for value in whole.values() if isinstance(value, list)]
    rows = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
    return json.dumps(rows[0]).encode() if len(rows) == 1 else None
