"""Batches of any structure: tensors in tuples, lists and dicts that share their first dimension.

A NumPy array, or a list of other things such as names, holds one item per row too, and each is
selected with its row. Any other leaf belongs to the batch as a whole. A list or tuple in which
there is a tensor is part of the structure. ``Examples`` are rows that stay where they are until a
model needs them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from turnover.errors import DataError, LossError

__all__ = [
    "Batch",
    "Examples",
    "Loss",
    "ahead",
    "blocks_of",
    "collated",
    "contents_of",
    "count_rows",
    "in_memory",
    "map_tensors",
    "per_example",
    "repeat_rows",
    "select_rows",
    "sent",
    "tensors_of",
    "to_device_of",
]

Batch = Any
Loss = Callable[[torch.nn.Module, Batch], Tensor]
FETCHED = 256  # rows at once, where contents alone are wanted
PINNED = ("cuda",)  # kinds of devices that read pinned memory on their own
T = TypeVar("T")
S = TypeVar("S")


class _MapStyle(Sized, Protocol):
    def __getitem__(self, row: int, /) -> Any: ...


@final
@dataclass(frozen=True, eq=False)
class Examples:
    """Some rows of a map-style data set, which are fetched when they go to a model.

    Attributes:
        data: the data set.
        rows: which of its rows ``int64 [row]``, or ``[model, row]`` for stacked models.
        collate: from a list of examples to a batch.
        workers: threads that fetch examples; 0 fetches in the thread that asks.
    """

    data: _MapStyle
    rows: Tensor
    collate: Callable[[list[Any]], Batch]
    workers: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self) -> Batch:
        """The batch of these rows.

        Raises:
            DataError: for examples that make no batch, or one of another number of rows.
        """
        wanted = self.rows.flatten().tolist()
        if self.workers:
            with ThreadPoolExecutor(self.workers) as pool:
                examples = list(pool.map(self.data.__getitem__, wanted))
        else:
            examples = [self.data[row] for row in wanted]
        batch = collated(examples, self.collate)
        if (found := count_rows(batch)) != len(wanted):
            raise DataError(
                f"The collator made a batch of {found} rows of {len(wanted)} examples, but each "
                "example must be one row."
            )
        shape = self.rows.shape
        if len(shape) == 1:
            return batch
        return map_tensors(lambda tensor: tensor.reshape(*shape, *tensor.shape[1:]), batch)


def collated(examples: list[Any], collate: Callable[[list[Any]], Batch]) -> Batch:
    """The batch of examples.

    Raises:
        DataError: when they make none.
    """
    try:
        return collate(examples)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"These {len(examples):,} examples make no batch: {_first_line(error)} Pad "
            "them to one length, or give a collator: Rows.of(data, collate=...)."
        ) from error


def in_memory(batch: Batch) -> Batch:
    """The batch itself, or the batch of examples, fetched once: for queries read many times."""
    return batch.fetch() if isinstance(batch, Examples) else batch


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), f"{type(error).__name__}.")


def blocks_of(batch: Batch) -> Iterator[Batch]:
    """The batch itself, or those of examples, a few rows at a time."""
    if isinstance(batch, Examples):
        for start in range(0, len(batch), FETCHED):
            yield select_rows(batch, slice(start, start + FETCHED)).fetch()
    else:
        yield batch


def contents_of(batch: Batch) -> Iterator[object]:
    """All that rows hold, for a fingerprint: tensors, and plain values of arrays and lists.

    Examples are read a few rows at a time. Of an object that is no plain value, its type counts.
    """
    for block in blocks_of(batch):
        for _, leaf in _leaves(block):
            if isinstance(leaf, Tensor):
                yield leaf
            elif _has_rows(leaf):
                yield _plain(leaf.tolist() if isinstance(leaf, np.ndarray) else leaf)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return [[str(key), _plain(part)] for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return type(value).__name__


def map_tensors(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """The same structure with every tensor replaced by ``function(tensor)``."""
    _refuse_lazy(batch)
    return _map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, batch)


def _map_leaves(function: Callable[[Any], Any], batch: Batch) -> Batch:
    if not _is_structure(batch):
        return function(batch)
    if isinstance(batch, Mapping):
        return _rebuilt(batch, {k: _map_leaves(function, value) for k, value in batch.items()})
    parts = [_map_leaves(function, value) for value in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def _rebuilt(batch: Mapping[Any, Any], content: dict[Any, Any]) -> Mapping[Any, Any]:
    try:
        return type(batch)(content)  # type: ignore[call-arg]
    except TypeError:  # a class that is not made from a dict, such as defaultdict
        return content


def _is_structure(batch: Batch) -> bool:
    is_named_tuple = isinstance(batch, tuple) and hasattr(batch, "_fields")
    return isinstance(batch, Mapping) or is_named_tuple or _holds_tensors(batch)


def _holds_tensors(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensors, value.values()))
    return isinstance(value, tuple | list) and any(
        isinstance(part, Tensor) or _holds_tensors(part) for part in value
    )


def _leaves(batch: Batch, key: str = "batch") -> Iterator[tuple[str, Any]]:
    if not _is_structure(batch):
        yield key, batch
        return
    for name, value in batch.items() if isinstance(batch, Mapping) else enumerate(batch):
        yield from _leaves(value, f"{key}[{name!r}]")


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in the order of its structure."""
    _refuse_lazy(batch)
    return [leaf for _, leaf in _leaves(batch) if isinstance(leaf, Tensor)]


def _refuse_lazy(batch: Batch) -> None:
    """Nothing takes lazy examples for a batch without tensors.

    Raises:
        DataError: for examples that were not fetched.
    """
    if isinstance(batch, Examples):
        raise DataError(
            "These rows are lazy, and this needs them in memory: leave out lazy=True, or hand it "
            "rows.batch.fetch() of a few."
        )


def _has_rows(leaf: object) -> bool:
    return isinstance(leaf, list | tuple) or (isinstance(leaf, np.ndarray) and leaf.ndim > 0)


def count_rows(batch: Batch) -> int:
    """Number of rows that all tensors, arrays and lists of the batch share.

    Raises:
        DataError: for a batch without tensors, or with leaves of different lengths.
    """
    if isinstance(batch, Examples):
        return len(batch)
    leaves, tensors = list(_leaves(batch)), tensors_of(batch)
    lengths = {len(tensor) if tensor.dim() else -1 for tensor in tensors}
    if len(lengths) != 1 or -1 in lengths:
        raise DataError(
            f"The tensors of this {type(batch).__name__} have {sorted(lengths) or 'no'} rows, "
            "but a batch is one or more tensors whose first dimension is the same number of rows."
        )
    rows = lengths.pop()
    for key, leaf in leaves:
        if _has_rows(leaf) and len(leaf) != rows:
            raise DataError(
                f"{key} is a {type(leaf).__name__} of length {len(leaf)}, but the tensors have "
                f"{rows} rows. An array or a list in a batch holds one item for each row; keep "
                "what belongs to the batch as a whole out of it."
            )
    return rows


def select_rows(batch: Batch, index: Tensor | slice) -> Batch:
    """The rows of the batch at ``index``, in the same structure."""
    if isinstance(batch, Examples):
        return replace(batch, rows=batch.rows[index if isinstance(index, slice) else index.cpu()])
    return _map_leaves(lambda leaf: _select(leaf, index), batch)


def _select(leaf: Any, index: Tensor | slice) -> Any:
    if not isinstance(leaf, Tensor) and not _has_rows(leaf):
        return leaf
    if isinstance(leaf, Tensor) or isinstance(index, slice):
        return leaf[index]
    if isinstance(leaf, np.ndarray):
        return leaf[index.cpu().numpy()]
    numbers = index.nonzero().flatten() if index.dtype == torch.bool else index
    return type(leaf)([leaf[row] for row in numbers.tolist()])


def repeat_rows(batch: Batch, times: int) -> Batch:
    """The whole batch ``times`` times over: rows 0, 1, …, 0, 1, …"""
    if isinstance(batch, Examples):
        return replace(batch, rows=batch.rows.repeat(times))
    return _map_leaves(lambda leaf: _repeat(leaf, times), batch)


def _repeat(leaf: Any, times: int) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.repeat(times, *[1] * (leaf.dim() - 1))
    if isinstance(leaf, np.ndarray):
        return np.concatenate([leaf] * times) if leaf.ndim else leaf
    return leaf * times if _has_rows(leaf) else leaf


def to_device_of(model: torch.nn.Module, batch: Batch) -> Batch:
    """The batch on the device of the model's parameters, or as it is when they are on several.

    Examples are fetched here, and nowhere else on the way to a model.

    Features of a frozen encoder are often made under ``torch.inference_mode``. Torch refuses
    gradients of such tensors, so they are copied where gradients are taken.
    """
    batch = in_memory(batch)
    devices = {parameter.device for parameter in model.parameters()}
    batch = map_tensors(_usable, batch)
    if len(devices) != 1:
        return batch
    device = devices.pop()
    return map_tensors(partial(sent, device=device), batch)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; from pinned memory it travels to CUDA while this process goes on.

    Torch keeps memory that it pinned until the copy is done. The way back to the CPU is waited for.
    """
    return tensor.to(device, non_blocking=device.type in PINNED and tensor.device.type == "cpu")


def ahead(make: Callable[[T], S], items: Iterable[T]) -> Iterator[S]:
    """What is made of each item, in order: the next one in a thread, while this one is used."""
    with ThreadPoolExecutor(1, "turnover-ahead") as pool:
        coming: deque[Future[S]] = deque()
        for item in items:
            coming.append(pool.submit(make, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _usable(tensor: Tensor) -> Tensor:
    copied = tensor.is_inference() and not torch.is_inference_mode_enabled()
    return tensor.clone() if copied else tensor


def per_example(losses: object, rows: int) -> Tensor:
    """The losses of a batch, checked to be one number for each of its rows.

    Raises:
        LossError: when they are a mean or a sum, have another shape, or are no tensor.
    """
    if not isinstance(losses, Tensor):
        raise LossError(f"The loss returned a {type(losses).__name__}, not a tensor of losses.")
    if losses.shape != (rows,):
        hint = "use reduction='none'" if losses.dim() == 0 else "sum or average over positions"
        raise LossError(
            f"The loss returned shape {list(losses.shape)} for {rows} rows. Scores need one loss "
            f"per example, shape [{rows}], in nats: {hint}."
        )
    return losses
