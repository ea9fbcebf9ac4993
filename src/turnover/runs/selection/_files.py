"""From files to a stream of rows as a run's model takes them, and back to what people read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, final

from turnover.data import Rows, read_table
from turnover.errors import DataError, RunError
from turnover.estimators import FittedKernel, Selection, select
from turnover.runs._registry import open_run
from turnover.runs.results import Section

__all__ = ["SelectedRows", "select_rows"]

AT_ONCE = 256
Progress = Callable[[str, int], None]
Bad = Literal["stop", "skip"]


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
        sources: ``source``, ``rows``, ``total``, ``stderr`` and ``mean`` of each, largest first.
    """

    target: int
    rows: int
    left_out: int
    agreement: float | None
    best: tuple[dict[str, Any], ...]
    sources: tuple[dict[str, Any], ...]


class _Reader(Protocol):
    """What a kind of run knows of files."""

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> "_File": ...

    def fitted(self) -> FittedKernel: ...


@dataclass(frozen=True)
class _File:
    """The usable rows of a file.

    Attributes:
        path: the file.
        numbers: of its usable rows, from 0.
        left_out: how many rows are not usable.
        rows: from a slice to rows as the model takes them.
        shown: from the place of a row to what it says.
    """

    path: Path
    numbers: Sequence[int]
    left_out: int
    rows: Callable[[slice], Rows]
    shown: Callable[[int], dict[str, Any]]

    def parts(self) -> Iterator[tuple[slice, Rows]]:
        for start in range(0, len(self.numbers), AT_ONCE):
            place = slice(start, start + AT_ONCE)
            yield place, self.rows(place)


def select_rows(
    folder: str | Path,
    corpus: Sequence[str | Path],
    target: str | Path,
    k: int,
    *,
    source: str | None = None,
    on_bad_rows: Bad = "stop",
    encoding: str | None = None,
    progress: Progress = lambda what, steps: None,
) -> SelectedRows:
    """Score the rows of files against a target, by the kernel of a run.

    Args:
        folder: of a run of texts or of a language model.
        corpus: files with columns of the same names as the run's data; read one after the other.
        target: a file of the same form.
        k: how many rows to name.
        source: column whose values are summed over; None sums over files, where there are several.
        on_bad_rows: ``"stop"`` at rows that cannot be used, or ``"skip"`` them.
        encoding: of all files.
        progress: called with what is going on and the number of rows just finished.

    Raises:
        DataError: for files that cannot be read, and runs of another kind.
        RunError: for a run that cannot be opened.
        ScoreError: for k below 1.
    """
    reader = _reader(folder)
    aim = reader.read(Path(target), on_bad_rows, encoding)
    whole = aim.rows(slice(0, None))
    progress("Reading gradients of the training rows", 0)
    fitted = reader.fitted()
    counts: dict[Path, int] = {}
    left_out = 0

    def stream() -> Iterator[tuple[Rows, Sequence[Any]]]:
        nonlocal left_out
        for path in map(Path, corpus):
            file = reader.read(path, on_bad_rows, encoding)
            counts[path], left_out = len(file.numbers), left_out + file.left_out
            names = _sources(file, source, encoding, several=len(corpus) > 1)
            for place, rows in file.parts():
                yield rows, names[place] if names else ()
                progress(f"Scoring {path.name}", len(rows))

    found = select(fitted, whole, stream(), k, rows_at_once=AT_ONCE)
    again = partial(reader.read, on_bad_rows=on_bad_rows, encoding=encoding)
    return SelectedRows(
        target=len(whole),
        rows=found.rows,
        left_out=left_out,
        agreement=found.agreement,
        best=tuple(_best(found, counts, again)),
        sources=tuple(
            {"source": str(one.source), "rows": one.rows, "total": one.total}
            | {"stderr": one.stderr, "mean": one.mean}
            for one in found.sources
        ),
    )


def _best(
    found: Selection, counts: Mapping[Path, int], read: Callable[[Path], _File]
) -> list[dict[str, Any]]:
    """What the best rows say; a file with some of them is read again, one file at a time."""
    best: dict[int, dict[str, Any]] = {}
    start = 0
    for path, count in counts.items():
        own = (found.positions >= start) & (found.positions < start + count)
        file = read(path) if own.any() else None
        for rank in own.nonzero().flatten().tolist():
            assert file is not None
            row = int(found.positions[rank]) - start
            error = None if found.stderr is None else float(found.stderr[rank])
            told = {"rank": rank + 1, "file": str(path), "row": file.numbers[row]}
            scored = {"score": float(found.scores[rank]), "stderr": error}
            best[rank] = {**told, **scored, **file.shown(row)}
        start += count
    return [best[rank] for rank in sorted(best)]


def _sources(
    file: _File, column: str | None, encoding: str | None, *, several: bool
) -> Sequence[str]:
    if column is None:
        return [str(file.path)] * len(file.numbers) if several else ()
    table = read_table(file.path, {"source": column}, encoding=encoding)
    named = dict(zip(table.numbers, table.columns["source"], strict=True))
    return [str(named.get(number, "")) for number in file.numbers]


def _reader(folder: str | Path) -> _Reader:
    from turnover.runs.language import is_language, open_language

    if is_language(folder):
        return _Talks(open_language(folder))
    classifier = open_run(folder)
    if classifier.row_word != "text" or classifier.scale is not None:
        raise DataError(
            f"{folder} is no run of texts with classes, nor one of a language model. Rows are "
            "selected for these."
        )
    return _Texts(classifier)


@dataclass(frozen=True)
class _Texts:
    """Files of texts with labels."""

    classifier: Any

    def fitted(self) -> FittedKernel:
        found: FittedKernel = self.classifier.kernel().fit(self.classifier.train)
        return found

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> _File:
        from turnover.data.texts import Columns, read_target
        from turnover.runs._verify import classes_of
        from turnover.runs.text._adapted import trim
        from turnover.runs.text._classifier import encoder_for

        run = self.classifier.run
        columns = _columns(run.manifest, ("text", "label"))
        wanted = Columns(columns["text"], columns["label"])
        found = read_target(path, wanted, classes_of(run), on_bad_rows, encoding)
        encoder = encoder_for(run.arguments)

        def rows(place: slice) -> Rows:
            batch = {**trim(encoder.encode(found.values[place])), "label": found.labels[place]}
            return Rows(batch, found.ids[place])

        def shown(row: int) -> dict[str, Any]:
            label = found.classes.names[int(found.labels[row])]
            return {"text": found.values[row], "label": label}

        return _File(path, [int(n) for n in found.names], len(found.bad), rows, shown)


@dataclass(frozen=True)
class _Talks:
    """Files of prompts and responses, chats or plain texts."""

    opened: Any

    def fitted(self) -> FittedKernel:
        found: FittedKernel = self.opened.kernel().fit(self.opened.train)
        return found

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> _File:
        from turnover.runs.language._data import Columns, talks_of
        from turnover.runs.language._tokens import rows_of

        kept = {k: v for k, v in self.opened.run.manifest["columns"].items() if k != "id"}
        talks, ids, bad = talks_of(path, Columns(**kept), on_bad_rows, encoding)

        def rows(place: slice) -> Rows:
            encoded = [self.opened.tokenizer(talk) for talk in talks[place]]
            return rows_of(encoded, ids[place], 0)

        def shown(row: int) -> dict[str, Any]:
            return {"prompt": talks[row].prompt, "response": talks[row].response}

        return _File(path, ids.tolist(), len(bad), rows, shown)


def _columns(manifest: Mapping[str, Any], roles: Sequence[str]) -> dict[str, str]:
    try:
        return {role: str(manifest["columns"][role]) for role in roles}
    except (KeyError, TypeError) as error:
        raise RunError(f"The manifest of this run is damaged: {error!r}.") from error
