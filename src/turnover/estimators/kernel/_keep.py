"""Where parts of a kernel are kept while it is made: in memory, or as files that are mapped.

A part is made once. In a folder it is a safetensors file with the name of the work that it belongs
to; an interrupted fit goes on behind the last finished file. Files are opened by memory map, so
that what is not read takes no memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from turnover import _store
from turnover._rows import contents_of
from turnover.data import Rows
from turnover.errors import RunError

__all__ = [
    "Folder",
    "Keeper",
    "Memory",
    "Part",
    "PartRows",
    "Stored",
    "count_of",
    "digits",
    "mapped",
    "near",
    "rows_fingerprint",
]

Make = Callable[[], Mapping[str, Tensor]]
SHARD_ROWS = 16_384
PROBE = "probe"


@final
@dataclass(frozen=True)
class Part:
    """Consecutive rows of the training set, whose features are one file.

    Attributes:
        name: of its files: digits that follow from the rows, so that other rows have others.
        size: number of rows.
        rows: the rows; None where their features are on disk and nothing else is needed.
        print: their fingerprint; empty in memory.
    """

    name: str
    size: int
    rows: Rows | None
    print: str = ""

    def known(self) -> Rows:
        """The rows.

        Raises:
            RunError: when they were not given, and a file of theirs is missing.
        """
        if self.rows is None:
            raise RunError(
                f"The index lacks a file of its part {self.name} of {self.size} rows, and these "
                "rows are not at hand. Call fit with all rows: it makes the file again."
            )
        return self.rows


PartRows = list[Part]


@final
@dataclass(frozen=True)
class Memory:
    """Keeps nothing beside what the caller keeps."""

    def tensors(
        self, name: str, work: str, make: Make, probe: Callable[[], Tensor] | None = None
    ) -> Mapping[str, Tensor]:
        """What ``make`` makes."""
        return make()

    def parts(self, rows: Rows) -> PartRows:
        """All rows as one part."""
        return [Part("0", len(rows), rows)]


@final
@dataclass(frozen=True)
class Folder:
    """Keeps every part as a file of a folder.

    Attributes:
        path: the folder.
        known: name, number of rows and fingerprint of parts that are there already.
        finished: whether an index is there, whose landmarks stay.
    """

    path: Path
    known: tuple[tuple[str, int, str], ...] = ()
    finished: bool = False

    def tensors(
        self, name: str, work: str, make: Make, probe: Callable[[], Tensor] | None = None
    ) -> Mapping[str, Tensor]:
        """The tensors of a part, mapped; made and written when there is no file of that name.

        No ``work`` takes what is there. A fingerprint cannot tell a loss, which is a function:
        ``probe`` gives losses of a few rows, which must be near those that stand in the file.

        Raises:
            RunError: for a file of other work, or one that cannot be read or written.
        """
        path = self.path / f"{name}.safetensors"
        few = {} if probe is None else {PROBE: probe()}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _store.save(path, {**make(), **few}, work)
        found = mapped(path, work or None)
        said = found.pop(PROBE, None)
        if few and (said is None or not near(said, few[PROBE])):
            raise _other_work(path)
        return found

    def parts(self, rows: Rows) -> PartRows:
        """Parts that are there already, and the rows behind them in parts of their own."""
        found, start = PartRows(), 0
        for _, size, _ in self.known:
            found.append(_part(rows, start, start + size))
            start += size
        for first in range(start, len(rows), SHARD_ROWS):
            found.append(_part(rows, first, min(len(rows), first + SHARD_ROWS)))
        return found


Keeper = Memory | Folder


def _part(rows: Rows, start: int, stop: int) -> Part:
    own = rows.select(slice(start, stop))
    print = rows_fingerprint(own)
    return Part(digits(print), stop - start, own, print)


def digits(print: str) -> str:
    """A number for the name of a file, from a fingerprint."""
    return f"{int(print[:12], 16):015d}"


def near(losses: Tensor, others: Tensor) -> bool:
    """Whether these are the losses of one loss, worked out twice."""
    return losses.shape == others.shape and torch.allclose(
        losses,
        others,
        rtol=1e-3,
        atol=1e-5,  # other batches and processors round otherwise
        equal_nan=True,  # what is not finite is told where losses are used
    )


def rows_fingerprint(rows: Rows) -> str:
    """128 bits that change with ids, groups and tensors of the rows."""
    groups = () if rows.groups is None else (rows.groups,)
    return _store.fingerprint(rows.ids, *groups, *contents_of(rows.batch))


@final
class Stored(Sequence[Tensor]):
    """One tensor of the file of every part, mapped anew whenever it is read.

    A tensor that is no longer used gives its pages back, so that a pass over all parts holds one.

    Args:
        paths: of the files.
        name: of the tensor.
        rows: of all parts together.
    """

    def __init__(self, paths: Sequence[Path], name: str, rows: int) -> None:
        self.paths, self.name, self.rows = list(paths), name, rows

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> list[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | list[Tensor]:
        if isinstance(place, slice):
            return [mapped(path)[self.name] for path in self.paths[place]]
        return mapped(self.paths[place])[self.name]


def count_of(parts: Sequence[Tensor]) -> int:
    """Rows of all parts together."""
    return parts.rows if isinstance(parts, Stored) else sum(len(part) for part in parts)


def mapped(path: Path, work: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, read when they are used; their contents are not compared.

    Args:
        path: a file of :func:`turnover._store.save`.
        work: the work that it must belong to; None for any.

    Raises:
        RunError: for a file that cannot be read, is no regular file, or belongs to other work.
    """
    _store.refuse_special(path)
    try:
        with safe_open(path, "pt") as file:
            header = _store.header_of(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read: {error}. Delete it and call fit again: it makes the file anew."
        ) from error
    seal = header.pop(_store.SEAL, None)
    if seal != _store.fingerprint(dict(sorted(header.items()))):
        raise RunError(f"The header of {path} is damaged. Delete it and call fit again.")
    if work is not None and header.get("work") != work:
        raise _other_work(path)
    return tensors


def _other_work(path: Path) -> RunError:
    return RunError(
        f"{path} belongs to other work: rows, weights, buffers, loss or settings are not those "
        "that it was made of, so that scores would mix two things. Give another folder, or "
        "delete this one."
    )
