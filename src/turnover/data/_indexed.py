"""Rows that know their name: a data set whose items carry their permanent ids."""

from collections.abc import Iterable, Sized
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from turnover._rows import Batch, count_rows, select_rows
from turnover.errors import DataError, IdError
from turnover.masks import as_ids, unique_ids

__all__ = ["Indexed", "Rows"]

Ids = Tensor | np.ndarray | Iterable[int]


@final
class Indexed(Dataset[tuple[int, Any]]):
    """A map-style data set that yields ``(id, item)``.

    The id is a property of the row and survives shuffling, subsets, workers and augmentation:
    ``torch.utils.data.Subset(Indexed(data), rows)`` still yields the original ids.

    Args:
        data: any map-style data set.
        ids: one distinct 64-bit integer per row; row numbers by default.

    Raises:
        IdError: for ids that repeat, or of the wrong type, count or range.
    """

    def __init__(self, data: Dataset[Any], ids: Ids | None = None) -> None:
        if not isinstance(data, Sized):
            raise DataError("Indexed needs a data set with a length, not an iterable one.")
        self.data = data
        self.ids = _checked(ids, len(data))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple[int, Any]:
        return int(self.ids[row]), self.data[row]


@final
class Rows:
    """A data set held in memory: one batch of all rows, and their ids.

    Args:
        batch: tensors in tuples, lists or dicts that share their first dimension. NumPy arrays and
            lists of other things hold one item for each row, too.
        ids: one distinct 64-bit integer per row; row numbers by default.
        groups: one 64-bit integer per row. Rows of one group (a source, an author, a class) then
            share the mask of that number, so that training tells what the model would have said
            without the whole group; single rows of a group can no longer be told apart. Hand
            the rows themselves to an estimator, and it scores the groups by their numbers.

    Ids and groups are kept on the CPU, whatever the device of the batch.

    Raises:
        DataError: when the tensors, arrays and lists have different numbers of rows.
        IdError: for ids that repeat, or ids or groups of the wrong type, count or range.
    """

    def __init__(self, batch: Batch, ids: Ids | None = None, groups: Ids | None = None) -> None:
        rows = count_rows(batch)
        self.batch = batch
        self.ids = _checked(ids, rows)
        self.groups = None if groups is None else as_ids(groups).cpu()
        if self.groups is not None and self.groups.shape != self.ids.shape:
            raise IdError(
                f"Groups have shape {list(self.groups.shape)} for {rows} rows. Each row needs "
                "exactly one group."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask_ids(self) -> Tensor:
        """The number whose mask each row trains: its group if there are groups, else its id."""
        return self.ids if self.groups is None else self.groups

    def select(self, index: Tensor | slice) -> "Rows":
        """The rows at ``index``, which keep their ids and groups."""
        index = index.cpu() if isinstance(index, Tensor) else index
        groups = None if self.groups is None else self.groups[index]
        return Rows(select_rows(self.batch, index), self.ids[index], groups)

    def rows_of(self, ids: Tensor) -> Tensor:
        """Row numbers of the given ids.

        Raises:
            IdError: for an id that is not among the rows.
        """
        ids, order = ids.cpu(), torch.argsort(self.ids)
        at = torch.searchsorted(self.ids[order], ids).clamp(max=len(self) - 1)
        rows = order[at]
        if (missing := ids[self.ids[rows] != ids]).numel():
            raise IdError(f"Id {int(missing[0])} is not among the {len(self)} rows of this data.")
        return rows


def _checked(ids: Ids | None, rows: int) -> Tensor:
    return unique_ids(torch.arange(rows, device="cpu") if ids is None else ids, rows).cpu()
