"""Rows that know their name: a data set whose items carry their permanent ids."""

from collections.abc import Callable, Iterable, Sized
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from turnover._rows import (
    Batch,
    Examples,
    collated,
    contents_of,
    count_rows,
    select_rows,
    tensors_of,
)
from turnover._store import fingerprint
from turnover.errors import DataError, IdError
from turnover.masks import as_ids, unique_ids

__all__ = ["Indexed", "Rows"]

Ids = Tensor | np.ndarray | Iterable[int]
COMPARED, TIMES = 8, 4  # lazy examples, and how often


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
    """A data set as one batch of all rows, and their ids.

    Args:
        batch: tensors in tuples, lists or dicts that share their first dimension. NumPy arrays and
            lists of other things hold one item for each row, too.
        ids: one distinct 64-bit integer per row; row numbers by default.
        groups: one 64-bit integer per row. Rows of one group (a source, an author, a class) then
            share the mask of that number. Training tells what the model would have said without the
            whole group, and no longer tells its rows apart. Hand the rows themselves to an
            estimator, and it scores the groups by their numbers.

    Ids and groups are kept on the CPU, whatever the device of the batch. :meth:`of` makes rows of a
    data set, a loader or a list of examples, and leaves them where they are with ``lazy=True``.

    Raises:
        DataError: when the tensors, arrays and lists have different numbers of rows.
        IdError: for ids that repeat, or ids or groups of the wrong type, count or range.
    """

    def __init__(self, batch: Batch, ids: Ids | None = None, groups: Ids | None = None) -> None:
        if are_examples(batch):
            raise DataError(
                f"Rows got a {type(batch).__name__} of single examples, but it holds one batch: "
                "tensors whose first dimension is the row. Make one with Rows.of(...)."
            )
        rows = count_rows(batch)
        self.batch = batch
        self.ids = _checked(ids, rows)
        self.groups = None if groups is None else as_ids(groups).cpu()
        if self.groups is not None and self.groups.shape != self.ids.shape:
            raise IdError(
                f"Groups have shape {list(self.groups.shape)} for {rows} rows. Each row needs "
                "exactly one group."
            )

    @classmethod
    def of(
        cls,
        data: Iterable[Any],
        ids: Ids | None = None,
        groups: Ids | None = None,
        *,
        collate: Callable[[list[Any]], Batch] = default_collate,
        lazy: bool = False,
        workers: int = 0,
    ) -> "Rows":
        """Rows of a data set, a ``DataLoader`` or a list of examples.

        Args:
            data: examples one by one, such as (x, y) or dicts; or a loader, whose collator makes
                the batch, and which must not shuffle when ids are given.
            ids: as for :class:`Rows`; an :class:`Indexed` data set brings its own.
            groups: as for :class:`Rows`.
            collate: from a list of examples to a batch. Default: the collator of a loader.
            lazy: fetch examples whenever a model needs them, a block at a time, in place of holding
                them in memory: for data that do not fit. Each must be the same every time, which is
                tested of a few: a rare random change can pass. A collator may then pad every block
                to a length of its own.
            workers: threads that fetch lazy examples; 0 for none.

        Raises:
            DataError: for no examples, or examples that cannot be collated; for lazy ones that are
                random, or a data set without places; for a loader whose sampler leaves rows out.
            IdError: as :class:`Rows`.
        """
        whole: Any = data
        if isinstance(whole, DataLoader):
            _refuse_sampler(whole)
            whole, collate = whole.dataset, whole.collate_fn or collate
        whole, own = _without_ids(whole)
        ids = own if ids is None else ids
        if lazy:
            return cls(_lazy(whole, collate, workers), ids, groups)
        examples = [whole[row] for row in range(len(whole))] if _is_map(whole) else list(whole)
        if not examples:
            raise DataError("There are no examples, so there are no rows.")
        return cls(collated(examples, collate), ids, groups)

    def __repr__(self) -> str:
        if isinstance(self.batch, Examples):
            shapes = f"of a {type(self.batch.data).__name__}, fetched when they are needed"
        else:
            parts = tensors_of(self.batch)
            shapes = ", ".join(f"{str(t.dtype)[6:]} {list(t.shape)}" for t in parts)
        grouped = "" if self.groups is None else f", {len(self.groups.unique()):,} groups"
        return f"Rows({len(self):,} rows: {shapes}{grouped})"

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


def _without_ids(data: Any) -> tuple[Any, Tensor | None]:
    """A data set, and the ids of an indexed one, also below subsets."""
    if isinstance(data, Indexed):
        return data.data, data.ids
    if isinstance(data, Subset):
        below, ids = _without_ids(data.dataset)
        if ids is not None:
            places = list(data.indices)
            return Subset(below, places), ids[torch.tensor(places, dtype=torch.int64)]
    return data, None


def _refuse_sampler(loader: DataLoader[Any]) -> None:
    """Refuse a loader that gives some of its rows only, or some of them twice.

    Raises:
        DataError: for a sampler that is neither in order nor a permutation of all rows.
    """
    if isinstance(loader.dataset, IterableDataset):
        return
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", batches)
    every = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source)
    )
    if not every or type(batches) not in (BatchSampler, type(None)):
        odd = sampler if not every else batches
        raise DataError(
            f"This loader draws its rows by a {type(odd).__name__}, which may leave rows out or "
            "take some twice. Rows are all of a data set, once: give a Subset of it, or the data "
            "set itself."
        )


def _lazy(data: Any, collate: Callable[[list[Any]], Batch], workers: int) -> Examples:
    """Examples that stay where they are; some are fetched several times and compared.

    Raises:
        DataError: as :meth:`Rows.of`.
    """
    if not _is_map(data):
        raise DataError(
            f"A {type(data).__name__} has no rows at places, data[row] and len(data), so that its "
            "rows cannot be fetched when they are needed. Give a map-style data set."
        )
    if not len(data):
        raise DataError("There are no examples, so there are no rows.")
    found = Examples(data, torch.arange(len(data)), collate, workers)
    few = select_rows(found, torch.linspace(0, len(data) - 1, min(COMPARED, len(data))).long())
    once = fingerprint(*contents_of(few))
    for _ in range(TIMES):
        if fingerprint(*contents_of(few)) != once:
            raise DataError(
                "Examples of this data set are others each time: it augments or draws them at "
                "random. Scores are of fixed rows: turn that off, or hold one draw of each "
                "in memory with lazy=False."
            )
    return found


def _is_map(data: Any) -> bool:
    return hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, dict)


def are_examples(batch: Any) -> bool:
    """Whether this is a data set, a loader, or a list of examples in place of one batch."""
    if isinstance(batch, Dataset | DataLoader) or type(batch).__module__.startswith("datasets."):
        return True
    if not isinstance(batch, list) or len(batch) < 3:  # two tuples are a batch of two parts
        return False
    kinds = {type(example) for example in batch}
    nested = kinds <= {tuple, dict, list} and len(kinds) == 1
    scalars = all(isinstance(part, Tensor) and part.dim() == 0 for part in batch)
    return scalars or (nested and len({_outline(example) for example in batch}) == 1)


def _outline(example: Any) -> tuple[Any, ...]:
    """Names or places of an example's parts: all examples of a list share them."""
    parts = example.items() if isinstance(example, dict) else enumerate(example)
    return tuple((name, type(part)) for name, part in parts)


def _checked(ids: Ids | None, rows: int) -> Tensor:
    return unique_ids(torch.arange(rows, device="cpu") if ids is None else ids, rows).cpu()
