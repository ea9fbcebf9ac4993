"""A ``datasets.Dataset`` with what was measured of its rows, or without some of them.

Rows and measurements meet by id, never by position: a data set may have been shuffled, or a part of
it held out. Nothing of ``datasets`` is imported; whoever has such a data set has it loaded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from turnover.data._labelled import id_of
from turnover.errors import DataError, IdError
from turnover.masks import as_ids, string_id

__all__ = ["with_columns", "without_rows"]

Values = Tensor | np.ndarray | Iterable[Any]


def with_columns(
    data: Any, columns: Mapping[str, Values], ids: Values, *, id: str | None = None
) -> Any:
    """The data set with columns of scores, or of whatever else was measured of its rows.

    Args:
        data: a ``datasets.Dataset``.
        columns: name → one value per id, such as those of ``Inspection.columns()``.
        ids: the ids of the rows that were measured, ``int64 [ids]``, each once. The other rows of
            the data set get None.
        id: its column of the rows' own names; None where ids are row numbers. A whole number is its
            own id, or every name is hashed by ``string_id``: whichever rule has all of the ids.

    Raises:
        DataError: for a column that is there already, or with another number of values than ids.
        IdError: for ids that are no integers or repeat, and for one that no row has, or two have.
    """
    wanted = _whole(ids)
    repeated = next((found for found, times in Counter(wanted).items() if times > 1), None)
    if repeated is not None:
        raise IdError(
            f"Id {repeated} stands more than once in ids, and a row has one cell in a column. Give "
            "one query at a time: scores.values[q] with scores.train_ids."
        )
    rows = _rows_of(data, wanted, id)
    for name, values in columns.items():
        found = _listed(values)
        if len(found) != len(rows):
            raise DataError(
                f"The column {name!r} has {len(found):,} values for {len(rows):,} ids. Each id "
                "needs exactly one."
            )
        if name in data.column_names:
            raise DataError(
                f"The data set has a column {name!r} already. Remove or rename it, so that "
                "nothing is lost: data.rename_column(...)."
            )
        cells = [None] * len(data)
        for row, value in zip(rows, found, strict=True):
            cells[row] = value
        data = data.add_column(name, cells)
    return data


def without_rows(data: Any, ids: Values, *, id: str | None = None) -> Any:
    """The data set without the rows of these ids, in its own order.

    Args:
        data: a ``datasets.Dataset``.
        ids: rows to leave out, such as those that an audit suspects. They are ids, not a mask.
        id: its column of the rows' own names, as in :func:`with_columns`; None where ids are row
            numbers.

    Raises:
        IdError: for ids that are no integers, and for one that no row has, or that two rows have.
    """
    gone = set(_rows_of(data, _whole(ids), id))
    return data.select([row for row in range(len(data)) if row not in gone])


def _listed(values: Values) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor | np.ndarray) else list(values)


def _whole(ids: Values) -> list[int]:
    """Ids as integers; a mask would pass for the ids 0 and 1."""
    found = ids if isinstance(ids, Tensor | np.ndarray) else list(ids)
    some = found if isinstance(found, list) else found.reshape(-1)[:1].tolist()
    if any(isinstance(one, bool | np.bool_) for one in some):
        raise IdError("These are booleans, not ids. Give the ids of the rows: rows.ids[mask].")
    checked = as_ids(found)
    if checked.dim() != 1:
        raise IdError(f"Ids are one list, but these have shape {list(checked.shape)}.")
    return checked.tolist()


def _rows_of(data: Any, ids: list[int], column: str | None) -> list[int]:
    """Row numbers of ids, by the rule of names that has all of them."""
    if column is None:
        return _at(range(len(data)), ids)
    if column not in data.column_names:
        raise DataError(
            f"The data set has no column {column!r}; its columns are {data.column_names}."
        )
    names = list(data[column])
    try:
        return _at(map(id_of, names), ids)  # of readers, and of turnover.hf for whole numbers
    except IdError:
        hashed = [string_id(str(name)) for name in names]  # of turnover.hf, and of old runs
        if not set(ids) <= set(hashed):
            raise
        return _at(hashed, ids)


def _at(own: Iterable[int], ids: list[int]) -> list[int]:
    """The row of each id, where rows have their own."""
    places: dict[int, int] = {}
    for row, found in enumerate(own):
        if places.setdefault(found, row) != row:
            raise IdError(
                f"Rows {places[found]} and {row} of the data set have the same id {found}, so that "
                "nothing says which of them was measured. Give each row a name of its own."
            )
    missing = next((wanted for wanted in ids if wanted not in places), None)
    if missing is not None:
        raise IdError(
            f"Id {missing} is not among the {len(places):,} rows of the data set. Were rows "
            "removed, or does id='COLUMN' have to name the column of their names?"
        )
    return [places[wanted] for wanted in ids]
