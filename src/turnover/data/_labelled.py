"""Usable rows of a data file: a value to learn from, a label, and a name that is kept."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from turnover.data._scale import number_of
from turnover.data._table import BadRow, NoUsableRows, Table, listing, read_table, shortened
from turnover.errors import DataError
from turnover.masks import string_id

__all__ = ["Classes", "Labelled", "OnBadRows", "id_of", "labelled", "read_labelled"]

OnBadRows = Literal["stop", "skip"]
Usable = Callable[[Any], str | None]
INTEGER = re.compile(r"0|-?[1-9]\d{0,18}")
WHOLE = re.compile(r"-?\d+\.0+")
FRACTION = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?|[-+]?\d+[eE]-\d+")
MOST_CLASSES, FEW_CLASSES = 1000, 20
NOTHING = {"nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nil", "-"}
"""Words that other tools write where there is no label, in small letters."""


@final
@dataclass(frozen=True)
class Classes:
    """The classes of a data set, numbered.

    Attributes:
        names: name of every class, in the order of their numbers.
        numbers: number of a class by every way to write it: its value and its name.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, labels: Sequence[Any], label_names: Sequence[str] = ()) -> "Classes":
        """The classes that occur among the labels; whole numbers in their order, words in theirs.

        Args:
            labels: strings or whole numbers.
            label_names: names of the labels 0, 1, …, where the data has them.

        Raises:
            DataError: for fewer than two classes, or so many that these are hardly labels.
        """
        values = sorted(set(map(written, labels)), key=_in_order)
        if len(values) < 2:
            raise DataError(
                f"All labels are {values[0]!r}, so that there is nothing to tell apart. A "
                "classifier needs at least two classes."
                if values
                else "There are no labels."
            )
        refuse_other_columns(values, labels)
        names = tuple(_named(value, label_names) for value in values)
        numbers = {name: number for number, name in enumerate(names)}
        return cls(names, numbers | {value: number for number, value in enumerate(values)})

    def number(self, label: Any, label_names: Sequence[str] = ()) -> int | None:
        """The number of a label's class; None when it has none.

        Where the other file names its classes, names decide: its number 0 may be another class.
        """
        value = written(label)
        name = _named(value, label_names)
        if name in self.numbers and (name != value or not label_names):
            return self.numbers[name]
        # The other file names this class and these do not know the name: numbers would lie.
        return self.numbers.get(value) if value in self.names or name == value else None

    def __len__(self) -> int:
        return len(self.names)


def written(label: Any) -> str:
    """A label as text, the same from every file format: 1, 1.0 and "1" are one label."""
    if isinstance(label, bool):
        return str(label).lower()
    text = str(label).strip()
    return text.split(".")[0] if WHOLE.fullmatch(text) else text


def _named(value: str, label_names: Sequence[str]) -> str:
    if INTEGER.fullmatch(value) and 0 <= int(value) < len(label_names):
        return label_names[int(value)]
    return value


def _in_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def refuse_other_columns(values: Sequence[str], labels: Sequence[Any]) -> None:
    """Refuse a column that holds something else than the class of each row.

    Args:
        values: the different labels, as text.
        labels: the label of every row.

    Raises:
        DataError: for lists, for measured numbers, for words that differ in capitals only, and for
            about as many labels as rows.
    """
    shown = f"such as {shortened(values[0])} and {shortened(values[-1])}"
    lists = sum(isinstance(label, list | tuple | dict) or _is_list(label) for label in labels)
    if 2 * lists > len(labels):
        raise DataError(
            f"The labels are lists, {shown}: several classes for one row. Turnover trains "
            "classifiers with one class for each row. Write one row or one column for each class, "
            "and train on each by itself."
        )
    measured = sum(bool(FRACTION.fullmatch(value)) for value in values)
    if measured > FEW_CLASSES or (2 * measured > len(values) and 2 * len(values) > len(labels)):
        raise DataError(
            f"The labels are {measured:,} different numbers with a fraction, {shown}: measured "
            "values, not classes. Learn them as numbers with regression=True, cut them into "
            "classes such as low and high, or name another column."
        )
    alike: dict[str, str] = {}
    for value in values:
        other = alike.setdefault(value.casefold(), value)
        if other != value and len(value) > 1:  # A and a are letters that somebody tells apart
            raise DataError(
                f"The labels {other!r} and {value!r} differ in capitals only, and would be two "
                "classes. Write them alike."
            )
    most = len(labels) > FEW_CLASSES and 2 * len(values) > len(labels)
    if len(values) > MOST_CLASSES or most:
        raise DataError(
            f"Found {len(values):,} different labels in {len(labels):,} rows, {shown}. Classes "
            "have many rows each, so these are hardly labels. Is it the right column?"
        )


def _is_list(label: Any) -> bool:
    """Whether a text is a JSON list, as JSON Lines hold them."""
    return isinstance(label, str) and label[:1] == "[" and label[-1:] == "]"


def id_of(name: Any) -> int:
    """The 64-bit id of a row's own name: a whole number is its own id, text is hashed.

    The rule looks at one name at a time, so that an id never depends on the rest of the file.
    """
    text = str(name)
    if INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return string_id(text)


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """The usable rows of a data file.

    Attributes:
        values: what to learn from, one per row: texts, say.
        labels: numbers of their classes, ``int64 [rows]``; of a regression ``float64 [rows]``.
        ids: permanent ids, ``int64 [rows]``.
        names: names of the rows as they stand in the file; row numbers where it has none.
        classes: the classes; none of a regression.
        bad: rows that were left out.
    """

    values: list[Any]
    labels: Tensor
    ids: Tensor
    names: list[str]
    classes: Classes
    bad: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: Tensor) -> "Labelled":
        """The given rows; what was left out stays with them."""
        values, names = ([part[i] for i in rows.tolist()] for part in (self.values, self.names))
        labels, ids = self.labels[rows], self.ids[rows]
        return Labelled(values, labels, ids, names, self.classes, self.bad)


def read_labelled(
    path: str | Path,
    *,
    value: str,
    label: str,
    id: str | None = None,
    kind: str = "value",
    encoding: str | None = None,
    classes: Classes | None = None,
    usable: Usable = lambda value: "missing value" if value is None else None,
    on_bad_rows: OnBadRows = "stop",
    nothing_is_a_class: bool = False,
    regression: bool = False,
) -> Labelled:
    """Read rows with labels and names, and list the rows that cannot be used.

    A row is bad when its line is broken, its encoding is, its label, value or name is missing, its
    name stands in an earlier row, or its label is none of ``classes``.

    Args:
        path: a CSV, JSONL or Parquet file, or a ``datasets`` folder.
        value: column to learn from.
        label: column of the labels, words or whole numbers.
        id: column of the rows' own names; by default they are numbered from 0.
        kind: what the values are, such as ``"text"``, for messages.
        encoding: of a text file, such as ``latin-1``; None is UTF-8, or what its first bytes say.
        classes: the classes of the training data, if this is other data.
        usable: what is wrong with a value (None if it is missing), or None.
        on_bad_rows: ``"stop"`` raises an error that lists them, ``"skip"`` leaves them out.
        nothing_is_a_class: take words such as ``none`` and ``N/A`` for a class; by default they
            are missing labels.
        regression: labels are numbers to predict, not classes.

    Raises:
        DataError: for bad rows under ``"stop"``, for no usable rows, for a column that holds no
            classes, and as :func:`read_table`.
    """
    if value == label and value:
        raise DataError(
            f"{label!r} is both the column to learn from and that of the labels. Name two columns."
        )
    roles = {kind: value, "label": label} | ({} if id is None else {"id": id})
    table = read_table(path, roles, encoding=encoding)
    columns = {"value" if role == kind else role: found for role, found in table.columns.items()}
    table = replace(table, columns=columns, nothing_is_a_class=nothing_is_a_class)
    return labelled(
        table, classes=classes, usable=usable, on_bad_rows=on_bad_rows, regression=regression
    )


def labelled(
    table: Table,
    *,
    classes: Classes | None = None,
    usable: Usable = lambda value: "missing value" if value is None else None,
    on_bad_rows: OnBadRows = "stop",
    regression: bool = False,
) -> Labelled:
    """The usable rows of a table with the columns ``value``, ``label`` and, if any, ``id``.

    Args:
        table: the rows.
        classes: the classes of the training data, if this is other data.
        usable: what is wrong with a value (None if it is missing), or None; details of the problem
            stand behind a colon.
        on_bad_rows: ``"stop"`` raises an error that lists them, ``"skip"`` leaves them out.
        regression: labels are numbers to predict, not classes.

    Raises:
        DataError: for bad rows under ``"stop"``, or for no usable rows.
    """
    path = table.path
    known = table.columns["label"]
    kept, found = _sorted_out(table, classes, usable, regression)
    bad = [*table.bad, *found]
    if bad and on_bad_rows == "stop":
        garbled = sum(row.problem == "broken encoding" for row in bad)
        other = " Or name the encoding of the file: encoding='latin-1', say." if garbled else ""
        raise DataError(
            f"{len(bad):,} of {len(table) + len(table.bad):,} rows of {path} cannot be used: "
            f"{listing(bad)}\nMend them, or leave them out with on_bad_rows='skip'.{other}"
        )
    if not kept:
        raise NoUsableRows(f"No row of {path} can be used: {listing(bad)}", len(bad))
    labels = [known[row] for row in kept]
    if regression:
        classes = Classes((), {})
        numbers = torch.tensor([number_of(found) for found in labels], dtype=torch.float64)
    else:
        classes = Classes.of(labels, table.label_names) if classes is None else classes
        numbers = torch.tensor([classes.number(found, table.label_names) for found in labels])
    names = [_name(table, row) for row in kept]
    return Labelled(
        [table.columns["value"][row] for row in kept],
        numbers,
        torch.tensor([id_of(name) for name in names]),
        names,
        classes,
        tuple(bad),
    )


def _name(table: Table, row: int) -> str:
    named = table.columns.get("id")
    return str(table.numbers[row]) if named is None else written(named[row])


def _sorted_out(
    table: Table, classes: Classes | None, usable: Usable, regression: bool
) -> tuple[list[int], list[BadRow]]:
    """Numbers of the usable rows, and what is wrong with the others."""
    kept, bad = [], []
    first: dict[int, int] = {}
    for row in range(len(table)):
        problem = _problem(table, row, classes, usable, first)
        if problem is None and regression:
            problem = _no_number(table.columns["label"][row])
        if problem:
            kind, detail = problem
            bad.append(BadRow(str(table.path), table.place(row), kind, detail))
        else:
            kept.append(row)
            first[id_of(_name(table, row))] = row
    return kept, bad


def _problem(
    table: Table, row: int, classes: Classes | None, usable: Usable, first: Mapping[int, int]
) -> tuple[str, str] | None:
    value, label = table.columns["value"][row], table.columns["label"][row]
    if problem := usable(value):
        kind, _, detail = problem.partition(": ")
        return kind, detail
    seen = shortened(value) if isinstance(value, str) else ""
    if label is None or not written(label) or label != label:
        return "missing label", seen
    if table.label_names and written(label) == "-1":
        return "missing label", "-1, which stands for no label in data sets with named classes"
    if classes is None and not table.nothing_is_a_class and written(label).casefold() in NOTHING:
        return "missing label", f"the word {written(label)!r}; nothing_is_a_class=True allows it"
    if classes and classes.number(label, table.label_names) is None:
        known = ", ".join(classes.names[:10]) + (", …" if len(classes) > 10 else "")
        return "unknown label", f"{written(label)!r} is not among those trained on: {known}"
    if "id" in table.columns:
        name = table.columns["id"][row]
        if name is None or not written(name):
            return "missing id", seen
        if (before := first.get(id_of(_name(table, row)))) is not None:
            return "repeated id", f"{written(name)!r} already stands in {table.place(before)}"
    return None


def _no_number(label: Any) -> tuple[str, str] | None:
    if number_of(label) is not None:
        return None
    return (
        "no number",
        f"{written(label)!r}; a regression needs finite numbers, such as 3 or 2.5e-1",
    )
