"""The training rows of a run after decisions, as files: the data of the run stay as they are."""

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from turnover._plain import cell
from turnover._store import replacing
from turnover.data import Rows
from turnover.errors import DataError, MissingExtra, RunError
from turnover.runs._classifier import ClassifierRun, Side
from turnover.runs._decisions import Decision
from turnover.runs._verify import refuse_numbers

__all__ = [
    "Decided",
    "decided_rows",
    "refuse_suffix",
    "write_cleaned",
    "write_decisions",
    "write_held_out",
    "write_table",
]

Decided = Mapping[int, Decision]
SUFFIXES = (".csv", ".jsonl", ".parquet")
HALVES = re.compile("[\ud800-\udfff]")


def decided_rows(classifier: ClassifierRun, decided: Decided) -> Rows:
    """The training rows without the removed ones, the others with their decided labels.

    Raises:
        DataError: when nothing would be left.
    """
    kept, labels = _after(classifier, decided)
    rows = classifier.train.select(kept)
    return Rows({**rows.batch, "label": labels[kept]}, rows.ids, rows.groups)


def _after(classifier: ClassifierRun, decided: Decided) -> tuple[Tensor, Tensor]:
    """Numbers of the rows that are kept, and the labels of all rows after the decisions.

    Raises:
        DataError: when no row is kept, or the labels are no classes.
    """
    refuse_numbers(classifier.run, "Decisions are about labels that are classes")
    labels = classifier.train.batch["label"].clone()
    keep = torch.ones(len(labels), dtype=torch.bool)
    for id, made in decided.items():
        row = int(classifier.train.rows_of(torch.tensor([id]))[0])
        if made.action == "remove":
            keep[row] = False
        elif made.action == "relabel":
            labels[row] = classifier.class_number(str(made.label))
    if not keep.any():
        raise DataError("Every training row was decided to be removed. Nothing is left.")
    return torch.nonzero(keep).flatten(), labels


def write_cleaned(classifier: ClassifierRun, decided: Decided, path: Path) -> int:
    """Write the training rows after the decisions, as CSV or Parquet by the suffix; how many.

    The columns of a file of texts keep their names, and every text stays as it is. A last column
    says what was decided.

    Args:
        classifier: an opened run, whose training rows are written.
        decided: by id what was decided of a row; rows without a decision stay.
        path: file to write, ``.csv``, ``.jsonl`` or ``.parquet``.

    Raises:
        DataError: for another suffix, or when nothing would be left.
        RunError: when the file cannot be written.
        MissingExtra: for Parquet without DuckDB and pandas.
    """
    kept, labels = _after(classifier, decided)
    actions = {id: made.action for id, made in decided.items()}
    rows = [
        {
            **_columns(classifier, "train", row, int(labels[row])),
            "decision": actions.get(int(classifier.train.ids[row]), ""),
        }
        for row in kept.tolist()
    ]
    write_table(rows, path, as_data=True)
    return len(kept)


def write_held_out(classifier: ClassifierRun, path: Path) -> int:
    """Write the rows of the data file that were held out to test on, as they are; how many.

    Raises:
        DataError, RunError, MissingExtra: as :func:`write_cleaned`.
    """
    count = int(classifier.run.arguments.get("held_out", 0))
    labels = classifier.test.batch["label"].tolist()
    rows = [_columns(classifier, "test", row, labels[row]) for row in range(count)]
    if rows:
        write_table(rows, path, as_data=True)
    return count


def _columns(classifier: ClassifierRun, side: Side, row: int, label: int) -> dict[str, Any]:
    """A row by the columns of its data file, or by what a reader sees of it."""
    name = classifier.classes[label]
    names, shown = classifier.run.manifest.get("columns"), classifier.show(side, row)
    if "text" in shown and isinstance(names, dict) and {"text", "label"} <= set(names):
        own = {} if names.get("id") is None else {names["id"]: shown["name"]}
        return {**own, names["text"]: shown["text"], names["label"]: name}
    ids = classifier.train.ids if side == "train" else classifier.test.ids
    return {"id": int(ids[row]), **{k: v for k, v in shown.items() if k != "id"}, "label": name}


def write_decisions(classifier: ClassifierRun, decided: Decided, path: Path) -> int:
    """Write every decision on a line: the row, its label, what was decided, when and why.

    Raises:
        DataError, RunError, MissingExtra: as :func:`write_cleaned`.
    """
    found = []
    for id, made in decided.items():
        row = int(classifier.train.rows_of(torch.tensor([id]))[0])
        found.append(
            {
                "id": id,
                **{k: v for k, v in classifier.show("train", row).items() if k != "id"},
                "label": classifier.classes[int(classifier.train.batch["label"][row])],
                "decision": made.action,
                "new_label": made.label or "",
                "note": made.note,
                "at": made.at,
            }
        )
    columns = ("id", "label", "decision", "new_label", "note", "at")
    write_table(found, path, columns)
    return len(found)


def write_table(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    columns: Sequence[str] = (),
    *,
    as_data: bool = False,
) -> None:
    """Write rows as CSV, Parquet or JSON Lines by the suffix.

    Args:
        rows: each by the names of its columns.
        path: the file.
        columns: the names where there are no rows.
        as_data: a CSV file is read by a training, so that every text stays as it is. Otherwise
            people open it: no text is a formula of a spreadsheet or steers a terminal.

    Raises:
        DataError, RunError, MissingExtra: as :func:`write_cleaned`.
    """
    refuse_suffix(path)
    names = list(rows[0]) if rows else list(columns)
    try:
        with replacing(path) as fresh:
            if path.suffix == ".csv":
                with open(fresh, "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, names)
                    writer.writeheader()
                    shown = _whole if as_data else cell
                    writer.writerows({k: _cell(v, shown) for k, v in row.items()} for row in rows)
            elif path.suffix == ".jsonl":
                lines = (json.dumps({k: _whole(v) for k, v in row.items()}) for row in rows)
                fresh.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            else:
                _parquet(rows, names, fresh)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}.") from error


def refuse_suffix(path: Path) -> None:
    """Refuse a name that chooses no format.

    Raises:
        DataError: for another suffix than .csv, .parquet and .jsonl.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"Cannot write {path.name}: the file name must end with {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}, which chooses the format."
        )


def _parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    try:
        import duckdb
        import pandas
    except ImportError as error:
        raise MissingExtra(str(error.name), "data", "Writing Parquet") from None
    table = pandas.DataFrame({name: [_whole(row[name]) for row in rows] for name in names})
    target = str(path).replace("'", "''")
    try:
        with duckdb.connect() as connection:
            connection.register("rows", table)
            connection.sql(f"COPY (SELECT * FROM rows) TO '{target}' (FORMAT parquet)")
    except duckdb.Error as error:
        raise RunError(
            f"Cannot write {path.name}: {str(error).replace(target, path.name)}"
        ) from error


def _cell(value: Any, shown: Callable[[Any], object]) -> object:
    """A value in a CSV file; lists and mappings are JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else shown(value)


def _whole(value: Any) -> Any:
    """A value without halves of characters, which no file can hold."""
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    return HALVES.sub("", value) if isinstance(value, str) else value
