"""Ids that travel with the rows: from a column of the data set through the collator to the step."""

from collections.abc import Callable, Mapping, Sized
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from turnover.errors import DataError, IdError
from turnover.masks import as_ids, string_id, unique_ids

__all__ = ["KEY", "Collator", "Ids", "named", "without_ids"]

KEY = "turnover_id"
Ids = str | Tensor | np.ndarray | list[int] | range | None


def named(data: Any, ids: Ids) -> tuple[Any, Tensor | None]:
    """The data set whose items carry their ids under ``KEY``, and all ids, where they are known.

    Args:
        data: a data set of dicts: of ``datasets``, map-style, or iterable (then ``ids`` must be the
            name of a column).
        ids: one 64-bit integer per row, the name of a column with integers or names, or None for
            row numbers.

    Raises:
        DataError: for items that are no dicts, or without that column.
        IdError: for ids that repeat, or of the wrong type, count or range.
    """
    if isinstance(data, IterableDataset) or not isinstance(data, Sized):
        if not isinstance(ids, str):
            raise IdError(
                f"A {type(data).__name__} has no row numbers, and row i of one pass need not be "
                "row i of the next. Let each item carry its id, and name that column with ids=."
            )
        return _NamedStream(data, ids), None
    found = _resolved(data, ids)
    if not hasattr(data, "add_column"):
        return _Named(data, found), found
    table: Any = data  # of the package datasets
    bare = table.remove_columns(KEY) if KEY in table.column_names else table
    return bare.add_column(KEY, found.tolist()), found


def _resolved(data: Any, ids: Ids) -> Tensor:
    if ids is None:
        return torch.arange(len(data))
    if not isinstance(ids, str):
        return unique_ids(ids, len(data)).cpu()
    if hasattr(data, "column_names"):
        if ids not in data.column_names:
            raise DataError(f"The data set has no column {ids!r}. Its columns: {data.column_names}")
        column = list(data[ids])
    else:
        column = [_take(data[row], ids) for row in range(len(data))]
    return unique_ids([_number(value) for value in column], len(data)).cpu()


def _number(value: Any) -> int:
    """An id, made from a name if it is one."""
    return string_id(value) if isinstance(value, str) else int(as_ids(value)[0])


def _take(item: Any, column: str) -> Any:
    if not isinstance(item, Mapping):
        raise DataError(
            f"An item of the data set is a {type(item).__name__}, not a dict of columns, so it has "
            "no place for an id."
        )
    if column not in item:
        raise DataError(f"An item of the data set has no {column!r}. It holds {sorted(item)}.")
    return item[column]


@final
class _Named(Dataset[dict[str, Any]]):
    """A map-style data set of dicts with an id in each."""

    def __init__(self, data: Any, ids: Tensor) -> None:
        self.data, self.ids = data, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        item = self.data[row]
        if not isinstance(item, Mapping):
            _take(item, KEY)
        return {**item, KEY: int(self.ids[row])}


@final
class _NamedStream(IterableDataset[dict[str, Any]]):
    """An iterable data set of dicts whose own column is the id."""

    def __init__(self, data: Any, column: str) -> None:
        self.data, self.column = data, column

    def __iter__(self) -> Any:
        for item in self.data:
            yield {**item, KEY: _number(_take(item, self.column))}


@final
class Collator:
    """A collator around the user's own: it takes the ids off the items and adds them to the batch.

    Collators that put several items into one row (padding-free training) get one id per position.

    Args:
        inner: makes a batch of items without ids.
        column: the data set's own column of ids, which the model does not take.
    """

    def __init__(self, inner: Callable[[list[Any]], Any], column: str | None = None) -> None:
        self.inner, self.column = inner, column

    def __call__(self, items: list[Any]) -> Any:
        """The batch of the inner collator, with ids under ``KEY`` if the items have them."""
        if (
            not items
            or not isinstance(items[0], Mapping)
            or getattr(self.inner, "takes_ids", False)
        ):
            return self.inner(items)
        bare = [{k: v for k, v in item.items() if k not in (KEY, self.column)} for item in items]
        batch = self.inner(bare)
        if KEY in items[0] and KEY not in batch:
            ids = torch.tensor([item[KEY] for item in items], dtype=torch.int64)
            batch[KEY] = _spread(ids, bare, batch)
        return batch


def _spread(ids: Tensor, items: list[Any], batch: Mapping[str, Any]) -> Tensor:
    """Ids ``[rows]``, or ``[1, tokens]`` where the items were laid end to end in one row."""
    tokens = batch.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or len(tokens) == len(ids):
        return ids
    lengths = torch.tensor([len(item["input_ids"]) for item in items])
    if tokens.shape != (1, int(lengths.sum())):
        raise DataError(
            f"{len(ids)} items became a batch of {list(tokens.shape)} tokens, so it is not clear "
            "which position belongs to which item. Use turnover.hf.Packer, or a collator that "
            "keeps one row for each item."
        )
    return ids.repeat_interleave(lengths)[None]


def without_ids(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """A batch without its ids, and the ids.

    Raises:
        IdError: when there are none.
    """
    if KEY not in batch:
        raise IdError(
            f"The batch holds {sorted(batch)} but no {KEY!r}, so nothing says which masks its rows "
            "train. A transform of the data set or a custom data loader dropped it: let items and "
            "batches keep that key."
        )
    return {k: v for k, v in batch.items() if k != KEY}, batch[KEY]
