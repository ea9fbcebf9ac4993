"""A random share of the rows of each class, held out to test on."""

import warnings
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from turnover.data._labelled import Labelled
from turnover.data._table import DataWarning
from turnover.errors import DataError

__all__ = ["hold_out_rows", "warn_of_overlap", "warn_of_shared"]

MOST_SHARED = 0.1


def hold_out_rows(
    rows: Labelled, share: float, *, data: str | Path, seed: int
) -> tuple[Labelled, Labelled]:
    """The rows to train on, and a random share of each class to test on; both in their old order.

    The last row of a class is never held out: a class without training rows cannot be learned.

    Args:
        rows: all rows.
        share: of the rows to test on.
        data: where they come from, for the error.
        seed: of the choice.

    Raises:
        DataError: when that leaves no rows on one side, or takes the last row of a class.
    """
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        raise DataError(
            f"Holding out {share:g} of {len(rows)} rows of {data} leaves {len(rows) - count} to "
            f"train on and {count} to test on. Give test data with evaluation=FILE, or another "
            "share with hold_out=SHARE."
        )
    apart_rows = _stratified(rows.labels, count, seed)
    if len(apart_rows) < count:
        raise DataError(
            f"Holding out {count} of {len(rows)} rows of {data} would take the last row of a "
            "class, which then could not be learned. Give test data, or hold out a smaller share."
        )
    left = torch.ones(len(rows), dtype=torch.bool)
    left[apart_rows] = False
    kept, apart = rows.select(torch.nonzero(left).flatten()), rows.select(apart_rows)
    return kept, apart


def warn_of_overlap(train: Labelled, test: Labelled, path: str | Path) -> None:
    """Raise a ``DataWarning`` where more than a tenth of the test rows are training rows too.

    Args:
        train: what is learned from; values are compared as they are.
        test: what is tested on.
        path: where the test rows come from, for the message.
    """
    warn_of_shared(train.values, test.values, path)


def warn_of_shared(train: Iterable[Hashable], test: Sequence[Hashable], path: str | Path) -> None:
    """As :func:`warn_of_overlap`, of what makes two rows the same."""
    known = set(train)
    shared = sum(value in known for value in test)
    if shared > MOST_SHARED * len(test):
        warnings.warn(
            f"{shared:,} of {len(test):,} test rows of {path} also stand in the training data, so "
            "that the accuracy says little of new ones.",
            DataWarning,
            stacklevel=3,
        )


def _stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions to hold out, in their old order: of each class its share, and never its last row.

    Rows left over by rounding go to the classes with the largest remainders. Numbers have no
    classes: of them, any rows.
    """
    order = torch.randperm(len(labels), generator=torch.Generator("cpu").manual_seed(seed))
    if labels.is_floating_point():
        return order[:count].sort()[0]
    sizes = torch.bincount(labels)
    exact = sizes.double() * count / len(labels)
    taken = torch.minimum(exact.floor().long(), (sizes - 1).clamp(min=0))
    by_remainder = torch.argsort(exact - taken, descending=True, stable=True)
    while int(taken.sum()) < count:
        room = [c for c in by_remainder.tolist() if taken[c] < sizes[c] - 1]
        if not room:
            break
        for label in room[: count - int(taken.sum())]:
            taken[label] += 1
    chosen = [order[labels[order] == c][: int(n)] for c, n in enumerate(taken.tolist()) if n]
    return torch.cat(chosen).sort()[0] if chosen else torch.empty(0, dtype=torch.int64)
