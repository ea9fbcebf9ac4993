"""The leak check of a run's network, whatever it is made of."""

from collections.abc import Mapping

import torch
from torch import nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.leaks import LeakReport, check, check_split_ensemble
from turnover.nn import SplitEnsemble
from turnover.training import Recipe

__all__ = ["batch_rows", "check_leaks", "sample_rows"]

FEWEST, MOST = 32, 256


def sample_rows(rows: Rows, most: int) -> Rows:
    """At most so many rows, spread over all: files are often sorted, and equal rows tell nothing.

    Where the batch is a dict with labels of classes under ``"label"``, every class has a row among
    them, as far as there is room. A path that only a rare class takes can leak too.

    Args:
        rows: the training rows.
        most: how many, at least 1.
    """
    count = min(most, len(rows))
    spread = (torch.arange(count) * len(rows) // count).tolist()
    missing = [row for row in _first_of_classes(rows) if row not in set(spread)]
    labels = _labels(rows)
    if labels is None or not missing:
        return rows.select(torch.tensor(spread))
    shown = {int(labels[row]) for row in spread}
    added = [row for row in missing if int(labels[row]) not in shown][:count]
    spare = sorted(range(count), key=lambda place: -_same_before(labels, spread, place))
    for place, row in zip(spare, added, strict=False):
        spread[place] = row
    return rows.select(torch.tensor(sorted(spread)))


def batch_rows(rows: Rows, recipe: Recipe) -> int:
    """How many rows a check of a run looks at: a batch of its recipe, and 32 at least."""
    return min(len(rows), max(FEWEST, min(recipe.batch_size, MOST)))


def _labels(rows: Rows) -> torch.Tensor | None:
    label = rows.batch.get("label") if isinstance(rows.batch, Mapping) else None
    whole = isinstance(label, torch.Tensor) and label.dim() == 1 and not label.is_floating_point()
    return label if whole else None


def _first_of_classes(rows: Rows) -> list[int]:
    labels = _labels(rows)
    if labels is None:
        return []
    first: dict[int, int] = {}
    for row, label in enumerate(labels.tolist()):
        first.setdefault(label, row)
    return list(first.values())


def _same_before(labels: torch.Tensor, chosen: list[int], place: int) -> int:
    """How many of the rows chosen before this one have its label: such a row can be spared."""
    return sum(int(labels[row] == labels[chosen[place]]) for row in chosen[:place])


def check_leaks(
    model: nn.Module,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    instances: int = 4,
) -> LeakReport:
    """Does an instance reach its unseen half? Real training steps, compared bit by bit.

    Args:
        model: a converted model, for :func:`turnover.leaks.check`, or a split ensemble, for
            :func:`turnover.leaks.check_split_ensemble`; left as found.
        rows: a few training rows.
        loss: (model, batch) → per-example losses in nats.
        recipe: how the model is trained.
        instances: how many instances to test.
    """
    if isinstance(model, SplitEnsemble):
        return check_split_ensemble(model, rows, loss, recipe, instances=instances)
    ids, make = rows.mask_ids, recipe.optimizer
    return check(model, rows.batch, loss, ids=ids, optimizer=make, instances=instances)
