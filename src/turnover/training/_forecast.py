"""What a training will take, in seconds and bytes, from two steps of it."""

import copy
import time
from dataclasses import replace

import torch
from torch import nn

from turnover._memory import Forecast
from turnover._rows import Loss
from turnover.data import Rows
from turnover.nn import SplitEnsemble
from turnover.training._bytes import bytes_of_training
from turnover.training._loop import Recipe, fit
from turnover.training._split_ensemble import train_split_ensemble

__all__ = ["forecast_training"]

PROBE_STEPS = 2


def forecast_training(model: nn.Module, rows: Rows, loss: Loss, recipe: Recipe) -> Forecast:
    """Seconds and bytes of a training, from a few steps of a copy; the model stays as it is.

    Args:
        model: an untrained model or split ensemble.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: how it will be trained.

    Raises:
        ConfigError: for a split ensemble that does not fit into memory.
    """
    few = rows.select(slice(0, 2 * PROBE_STEPS * recipe.batch_size))
    plan, seconds = replace(recipe, epochs=min(1, recipe.epochs)), 0.0
    for _ in range(2):  # the first time, much is made ready
        probe = copy.deepcopy(model)
        start = time.perf_counter()
        with torch.random.fork_rng():
            if isinstance(probe, SplitEnsemble):
                train_split_ensemble(probe, few, loss, plan)
            else:
                fit(probe, few, loss, plan)
        seconds = time.perf_counter() - start
    share = len(rows) / max(1, len(few))
    return Forecast(seconds * share * recipe.epochs, bytes_of_training(model, rows, loss, recipe))
