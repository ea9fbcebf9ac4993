"""From files to a stream of rows as a run's model takes them, and back to what people read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from turnover.data import NoUsableRows, Rows, read_table
from turnover.errors import DataError
from turnover.estimators import Selection, select
from turnover.runs._cleaned import write_table
from turnover.runs.results import Section
from turnover.runs.selection._places import refuse_nameless, refuse_out, refuse_repeated
from turnover.runs.selection._readers import AT_ONCE, Bad, File, Reader, reader_of

__all__ = ["SelectedRows", "select_rows"]

Progress = Callable[[str, int], None]
Told = list[dict[str, Any]]


@final
@dataclass(frozen=True, kw_only=True)
class SelectedRows(Section):
    """The rows of a corpus that would help a target most.

    Attributes:
        target: how many rows the target has.
        rows: how many rows of the corpus were scored.
        left_out: how many could not be used.
        agreement: how well scores predict differences within the run's pairs; None without pairs.
        best: ``rank``, ``file``, ``row`` from 0, ``score`` and ``stderr`` in nats, and what the
            row says.
        sources: ``source``, ``rows``, ``total``, ``stderr`` and ``mean`` of each, largest first;
            the source of rows without one is None.
    """

    target: int
    rows: int
    left_out: int
    agreement: float | None
    best: tuple[dict[str, Any], ...]
    sources: tuple[dict[str, Any], ...]


def select_rows(
    folder: str | Path,
    corpus: Sequence[str | Path],
    target: str | Path,
    k: int,
    *,
    out: str | Path | None = None,
    source: str | None = None,
    on_bad_rows: Bad = "stop",
    encoding: str | None = None,
    progress: Progress = lambda what, steps: None,
) -> SelectedRows:
    """Score the rows of files against a target, by the kernel of a run.

    All files are looked through before the first row is scored.

    Args:
        folder: of a run of texts or of a language model.
        corpus: files with columns of the same names as the run's data; read one after the other.
        target: a file of the same form.
        k: how many rows to name.
        out: file for the chosen rows, ``.csv``, ``.parquet`` or ``.jsonl``, with the columns that
            the files have for the run, that of the sources, and rank, file, row, score and stderr.
        source: column whose values are summed over; None sums over files, where there are several.
        on_bad_rows: ``"stop"`` at rows that cannot be used, or ``"skip"`` them.
        encoding: of all files.
        progress: called with what is going on and the number of rows just finished.

    Raises:
        DataError: for files that cannot be read, that repeat, or that ``out`` would overwrite, and
            for runs of another kind.
        RunError: for a run that cannot be opened, and chosen rows that cannot be written.
        ScoreError: for k below 1.
    """
    paths = [Path(path) for path in corpus]
    refuse_repeated(paths)
    refuse_nameless(Path(target), "target")
    if out is not None:
        refuse_out(Path(out), Path(folder), [*paths, Path(target)])
    reader = reader_of(folder)
    aim = reader.read(Path(target), on_bad_rows, encoding)
    files = _Corpus(reader, paths, source, on_bad_rows, encoding)
    counts = files.counted(progress)
    whole = aim.rows(slice(0, None))
    progress("Reading gradients of the training rows", 0)
    found = select(reader.fitted(), whole, files.stream(progress), k, rows_at_once=AT_ONCE)
    best, written = files.best(found, [count for count, _ in counts])
    if out is not None:
        write_table(written, Path(out), as_data=True)
    return SelectedRows(
        target=len(whole),
        rows=found.rows,
        left_out=sum(left_out for _, left_out in counts),
        agreement=found.agreement,
        best=tuple(best),
        sources=tuple(
            {"source": one.source, "rows": one.rows, "total": one.total}
            | {"stderr": one.stderr, "mean": one.mean}
            for one in found.sources
        ),
    )


@dataclass(frozen=True)
class _Corpus:
    """Files that are read one after the other; no more than one is in memory."""

    reader: Reader
    paths: Sequence[Path]
    source: str | None
    on_bad_rows: Bad
    encoding: str | None

    def counted(self, progress: Progress) -> list[tuple[int, int]]:
        """Usable and other rows of each file, so that what is wrong is found before the scoring."""
        found = []
        for path in self.paths:
            progress(f"Looking through {path.name}", 0)
            try:
                file = self._read(path)
            except NoUsableRows as error:
                if self.on_bad_rows == "stop":
                    raise
                found.append((0, error.left_out))
                continue
            self._sources(file)
            found.append((len(file.numbers), file.left_out))
        if not any(count for count, _ in found):
            raise DataError("The corpus has no rows to select from: none can be used.")
        return found

    def stream(self, progress: Progress) -> Iterator[tuple[Rows, Sequence[Any]]]:
        """Some rows at a time, with their sources."""
        for path in self.paths:
            try:
                file = self._read(path)
            except NoUsableRows:
                continue
            names = self._sources(file)
            for place, rows in file.parts():
                yield rows, names[place] if names else ()
                progress(f"Scoring {path.name}", len(rows))

    def best(self, found: Selection, counts: Sequence[int]) -> tuple[Told, Told]:
        """What the best rows say, and the same for a file with the names of the data's columns.

        A file with some of them is read again.
        """
        told: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        start = 0
        for path, count in zip(self.paths, counts, strict=True):
            own = (found.positions >= start) & (found.positions < start + count)
            ranks = own.nonzero().flatten().tolist()
            file = self._read(path) if ranks else None
            names = () if file is None or self.source is None else self._sources(file)
            for rank in ranks:
                assert file is not None
                row = int(found.positions[rank]) - start
                error = None if found.stderr is None else float(found.stderr[rank])
                score = {"score": float(found.scores[rank]), "stderr": error}
                place = {"rank": rank + 1, "file": str(path), "row": file.numbers[row], **score}
                data = file.written(row) | ({str(self.source): names[row]} if names else {})
                told[rank] = {**place, **file.shown(row)}, _beside(place, data)
            start += count
        ordered = [told[rank] for rank in sorted(told)]
        return [shown for shown, _ in ordered], [written for _, written in ordered]

    def _read(self, path: Path) -> File:
        return self.reader.read(path, self.on_bad_rows, self.encoding)

    def _sources(self, file: File) -> Sequence[str | None]:
        if self.source is None:
            return [str(file.path)] * len(file.numbers) if len(self.paths) > 1 else ()
        table = read_table(file.path, {"source": self.source}, encoding=self.encoding)
        named = dict(zip(table.numbers, table.columns["source"], strict=True))
        found = [named.get(number) for number in file.numbers]
        return [None if name in (None, "") else str(name) for name in found]


def _beside(place: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Both in one row; where the data have a column of that name, it is the data's."""
    taken = {name.lower() for name in data}
    ours = {f"turnover_{key}" if key in taken else key: value for key, value in place.items()}
    return {**ours, **data}
