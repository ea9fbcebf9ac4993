"""What kinds of runs know of files: rows as the model takes them, and as people wrote them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.estimators import FittedKernel
from turnover.runs._registry import is_language, open_run

__all__ = ["AT_ONCE", "Bad", "File", "Reader", "reader_of"]

AT_ONCE = 256
Bad = Literal["stop", "skip"]


class Reader(Protocol):
    """What a kind of run knows of files."""

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> "File": ...

    def fitted(self) -> FittedKernel: ...


@dataclass(frozen=True)
class File:
    """The usable rows of a file.

    Attributes:
        path: the file.
        numbers: of its usable rows, from 0.
        left_out: how many rows are not usable.
        rows: from a slice to rows as the model takes them.
        shown: from the place of a row to what it says.
        written: from the place of a row to its values by the names of the file's own columns.
    """

    path: Path
    numbers: Sequence[int]
    left_out: int
    rows: Callable[[slice], Rows]
    shown: Callable[[int], dict[str, Any]]
    written: Callable[[int], dict[str, Any]]

    def parts(self) -> Iterator[tuple[slice, Rows]]:
        for start in range(0, len(self.numbers), AT_ONCE):
            place = slice(start, start + AT_ONCE)
            yield place, self.rows(place)


def reader_of(folder: str | Path) -> Reader:
    """What reads files for a run.

    Raises:
        DataError: for a run of another kind than texts with classes, or of a language model.
        RunError: for a run that cannot be opened.
    """
    from turnover.runs.language import open_language

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

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> File:
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

        def written(row: int) -> dict[str, Any]:
            return {columns[role]: value for role, value in shown(row).items()}

        numbers = [int(name) for name in found.names]
        return File(path, numbers, len(found.bad), rows, shown, written)


@dataclass(frozen=True)
class _Talks:
    """Files of prompts and responses, chats or plain texts."""

    opened: Any

    def fitted(self) -> FittedKernel:
        found: FittedKernel = self.opened.kernel().fit(self.opened.train)
        return found

    def read(self, path: Path, on_bad_rows: Bad, encoding: str | None) -> File:
        from turnover.runs.language._data import RESPONDS, Columns, talks_of
        from turnover.runs.language._tokens import rows_of

        kept = {k: v for k, v in self.opened.run.manifest["columns"].items() if k != "id"}
        talks, ids, bad = talks_of(path, Columns(**kept), on_bad_rows, encoding)

        def rows(place: slice) -> Rows:
            encoded = [self.opened.tokenizer(talk) for talk in talks[place]]
            return rows_of(encoded, ids[place], 0)

        def shown(row: int) -> dict[str, Any]:
            return {"prompt": talks[row].prompt, "response": talks[row].response}

        def written(row: int) -> dict[str, Any]:
            talk = talks[row]
            turns = [*talk.turns, (RESPONDS, talk.response)]
            chat = [{"role": role, "content": content} for role, content in turns]
            values = {"messages": chat, "text": talk.response, **shown(row)}
            return {column: values[role] for role, column in kept.items() if column}

        return File(path, ids.tolist(), len(bad), rows, shown, written)


def _columns(manifest: Mapping[str, Any], roles: Sequence[str]) -> dict[str, str]:
    try:
        return {role: str(manifest["columns"][role]) for role in roles}
    except (KeyError, TypeError) as error:
        raise RunError(f"The manifest of this run is damaged: {error!r}.") from error
