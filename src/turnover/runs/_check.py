"""The leak check of a run's network, whatever it is made of."""

import torch
from torch import nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.leaks import LeakReport, check, check_split_ensemble
from turnover.nn import SplitEnsemble
from turnover.training import Recipe

__all__ = ["check_leaks", "sample_rows"]


def sample_rows(rows: Rows, most: int) -> Rows:
    """At most so many rows, spread over all: files are often sorted, and equal rows tell nothing.

    Args:
        rows: the training rows.
        most: how many, at least 1.
    """
    count = min(most, len(rows))
    return rows.select(torch.arange(count) * len(rows) // count)


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
