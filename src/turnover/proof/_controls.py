"""As many other rows: at random, at random with the same labels, or by any ranking."""

import torch
from torch import Tensor

from turnover.errors import DataError

__all__ = ["first_of", "leaves_every_class", "random_rows", "same_labels"]


def leaves_every_class(order: Tensor, labels: Tensor) -> int:
    """How many of the first rows can be removed before a class has none left."""
    left = torch.bincount(labels)
    for count, row in enumerate(order.tolist()):
        if left[labels[row]] == 1:
            return count
        left[labels[row]] -= 1
    return len(order)


def random_rows(labels: Tensor, count: int, seed: int) -> Tensor:
    """Random rows ``int64 [count]``, never the last of a class; more of them begin alike.

    Raises:
        DataError: when so many cannot be removed.
    """
    return _sparing(_shuffled(len(labels), seed), labels, count)


def same_labels(removed: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Random rows ``int64 [removed]`` with the labels of these, others as long as there are any."""
    order = _shuffled(len(labels), seed)
    ours = torch.isin(order, removed)
    order = torch.cat([order[~ours], order[ours]])
    chosen = []
    for label, count in zip(*labels[removed].unique(return_counts=True), strict=True):
        chosen.append(order[labels[order] == label][: int(count)])
    return torch.cat(chosen)


def first_of(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """Rows of the highest values ``int64 [count]``, never the last of a class.

    Raises:
        DataError: when so many cannot be removed, or for values of other rows.
    """
    if values.shape != labels.shape:
        raise DataError(
            f"A ranking to compare with has shape {list(values.shape)}, but there are "
            f"{len(labels)} training rows: one value for each."
        )
    return _sparing(torch.argsort(values, descending=True, stable=True), labels, count)


def _sparing(order: Tensor, labels: Tensor, count: int) -> Tensor:
    left = torch.bincount(labels)
    chosen: list[int] = []
    for row in order.tolist():
        if len(chosen) == count:
            break
        if left[labels[row]] > 1:
            left[labels[row]] -= 1
            chosen.append(row)
    if len(chosen) < count:
        raise DataError(
            f"Only {len(chosen)} of {len(labels)} rows can be removed with every class left, not "
            f"{count}. Remove fewer."
        )
    return torch.tensor(chosen, dtype=torch.int64)


def _shuffled(rows: int, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randperm(rows, generator=generator, device="cpu")
