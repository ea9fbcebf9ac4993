"""What a training will take, in seconds and bytes, from two steps of it."""

import copy
import time
from concurrent.futures import Executor
from dataclasses import replace

import torch
from torch import nn

from turnover._memory import Forecast
from turnover._rows import Loss
from turnover.data import Rows
from turnover.executors import threads_of, with_threads, workers_of
from turnover.nn import SplitEnsemble
from turnover.training._bytes import bytes_of_training
from turnover.training._loop import Recipe, fit
from turnover.training._split_ensemble import train_split_ensemble

__all__ = ["forecast_training"]

PROBE_STEPS = 2


def forecast_training(
    model: nn.Module,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    executor: Executor | None = None,
) -> Forecast:
    """Seconds and bytes of a training, from a few steps of a copy; the model stays as it is.

    Args:
        model: an untrained model or split ensemble.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: how it will be trained.
        executor: where the members of a split ensemble will be trained, a few at once.

    Raises:
        ConfigError: for a split ensemble that does not fit into memory.
    """
    if executor is not None and isinstance(model, SplitEnsemble):
        return _forecast_members(model, rows, loss, recipe, executor)
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


def _forecast_members(
    model: SplitEnsemble, rows: Rows, loss: Loss, recipe: Recipe, executor: Executor
) -> Forecast:
    """The same where each member is a task: one of them is tried here, with a task's threads."""
    first, members = next(iter(model.members)), len(model.members)
    with with_threads(threads_of(executor)):
        each = forecast_training(first, rows, loss, recipe)
    at_once = min(members, workers_of(executor))
    rounds = -(-members // at_once)
    return Forecast(each.seconds / 2 * rounds, each.bytes * at_once)  # of half of the rows
