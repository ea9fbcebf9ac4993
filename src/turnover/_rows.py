"""Batches of any structure: tensors in tuples, lists and dicts that share their first dimension."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from turnover._errors import DataError, LossError

__all__ = [
    "Batch",
    "Loss",
    "count_rows",
    "map_tensors",
    "per_example",
    "repeat_rows",
    "select_rows",
]

Batch = Any
Loss = Callable[[torch.nn.Module, Batch], Tensor]


def map_tensors(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """The same structure with every tensor replaced by ``function(tensor)``."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def count_rows(batch: Batch) -> int:
    """Number of rows that all tensors of the batch share.

    Raises:
        DataError: for a batch without tensors, or tensors of different lengths.
    """
    lengths: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        lengths.append(len(tensor) if tensor.dim() else -1)
        return tensor

    map_tensors(note, batch)
    if not lengths or len(set(lengths)) > 1 or lengths[0] < 0:
        raise DataError(
            f"The tensors of this {type(batch).__name__} have {sorted(set(lengths)) or 'no'} rows, "
            "but a batch is one or more tensors whose first dimension is the same number of rows."
        )
    return lengths[0]


def select_rows(batch: Batch, index: Tensor | slice) -> Batch:
    """The rows of the batch at ``index``, in the same structure."""
    return map_tensors(lambda tensor: tensor[index], batch)


def repeat_rows(batch: Batch, times: int) -> Batch:
    """The whole batch ``times`` times over: rows 0, 1, …, 0, 1, …"""
    return map_tensors(lambda tensor: tensor.repeat(times, *[1] * (tensor.dim() - 1)), batch)


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
