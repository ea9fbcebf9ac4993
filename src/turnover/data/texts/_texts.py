"""The texts of a run: read from the user's files, and kept in the run folder."""

import unicodedata
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

from turnover import _store
from turnover.data import (
    BadRow,
    Classes,
    Labelled,
    OnBadRows,
    Scale,
    hold_out_rows,
    read_labelled,
)
from turnover.data._held_out import warn_of_overlap

__all__ = ["Columns", "Texts", "read_target", "read_texts"]


@final
@dataclass(frozen=True)
class Columns:
    """Names of the columns of a data file.

    Attributes:
        text: column of the texts.
        label: column of the labels.
        id: column of the rows' own names; None where they have none.
    """

    text: str
    label: str
    id: str | None = None


@final
@dataclass(frozen=True, eq=False)
class Texts:
    """The data of a run.

    Attributes:
        train: what is learned from.
        test: what is tested on and asked about.
        held_out: whether ``test`` was taken from the training file.
        columns: what the columns of the training file are called.
        scale: of a regression: labels are in its standard deviations.
    """

    train: Labelled
    test: Labelled
    held_out: bool
    columns: Columns
    scale: Scale | None = None

    @property
    def bad(self) -> tuple[BadRow, ...]:
        """Rows of both files that were left out."""
        return self.train.bad if self.held_out else (*self.train.bad, *self.test.bad)

    def fingerprint(self) -> str:
        """128 bits that change with any text, label, id or name."""
        parts = [
            part
            for side in (self.train, self.test)
            for part in (side.values, side.names, list(side.classes.names), side.labels, side.ids)
        ]
        scale = [] if self.scale is None else [[self.scale.mean, self.scale.deviation]]
        return _store.fingerprint(*parts, *scale)


def read_texts(
    data: str | Path,
    columns: Columns,
    *,
    evaluation: str | Path | None = None,
    hold_out: float = 0.1,
    on_bad_rows: OnBadRows = "stop",
    nothing_is_a_class: bool = False,
    encoding: str | None = None,
    seed: int = 0,
    regression: bool = False,
) -> Texts:
    """Read the training texts, and the test texts or a random share of the training file instead.

    Args:
        data: CSV, JSONL or Parquet file, or a ``datasets`` folder.
        columns: its columns.
        evaluation: test texts, with columns of the same names; their ids may be missing.
        hold_out: share of the rows of ``data`` to test on when there is no ``evaluation``.
        on_bad_rows: ``"stop"`` at rows that cannot be used, or ``"skip"`` them.
        nothing_is_a_class: take words such as ``none`` for a class, not for a missing label.
        encoding: of both files, such as ``latin-1``; None is UTF-8, or what their first bytes say.
        seed: of the choice of held-out rows.
        regression: labels are numbers to predict, not classes.

    Raises:
        DataError: for bad rows under ``"stop"``, files that cannot be read, too few rows.
        MissingExtra: when DuckDB is not installed.
    """
    read = partial(_read, encoding=encoding, regression=regression)
    train = read(data, columns, None, on_bad_rows, nothing_is_a_class)
    if evaluation is not None:
        test = read(evaluation, columns, train.classes, on_bad_rows)
        warn_of_overlap(train, test, evaluation)
        return _scaled(Texts(train, test, held_out=False, columns=columns), regression)
    kept, test = hold_out_rows(train, hold_out, data=data, seed=seed)
    return _scaled(Texts(kept, test, held_out=True, columns=columns), regression)


def _scaled(texts: Texts, regression: bool) -> Texts:
    """The texts with labels in standard deviations, if they are numbers."""
    if not regression:
        return texts
    scale = Scale.of(texts.train.labels)
    train, test = (
        replace(side, labels=scale.standard(side.labels)) for side in (texts.train, texts.test)
    )
    return replace(texts, train=train, test=test, scale=scale)


def read_target(
    path: str | Path,
    columns: Columns,
    classes: Classes,
    on_bad_rows: OnBadRows,
    encoding: str | None = None,
) -> Labelled:
    """Texts of another source with labels of the run's classes; their own names are optional.

    Raises:
        DataError, MissingExtra: as :func:`read_texts`.
    """
    return _read(path, columns, classes, on_bad_rows, encoding=encoding)


def _read(
    path: str | Path,
    columns: Columns,
    classes: Classes | None,
    on_bad_rows: OnBadRows,
    nothing_is_a_class: bool = False,
    *,
    encoding: str | None = None,
    regression: bool = False,
) -> Labelled:
    return read_labelled(
        path,
        value=columns.text,
        label=columns.label,
        id=columns.id,
        kind="text",
        encoding=encoding,
        classes=classes,
        usable=_usable,
        on_bad_rows=on_bad_rows,
        nothing_is_a_class=nothing_is_a_class,
        regression=regression,
    )


def _usable(text: Any) -> str | None:
    if text is None or not any(unicodedata.category(c)[0] not in "ZC" for c in str(text)):
        return "empty text"
    return None if isinstance(text, str) else "no text"
