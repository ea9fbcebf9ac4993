"""One explicit training loop: every row of a batch trains its own seen sub-network.

    θ ← step(θ, ∇ mean_i L(f^m(z_i), z_i)),    i over a batch

The order of the rows is a pure function of (seed, epoch), and a checkpoint is written after every
epoch. An interrupted training resumes and ends with the same bits.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from turnover._random import manual_seed
from turnover._rows import Loss, per_example, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, LossError
from turnover.nn import is_converted, seen
from turnover.training._checkpoint import describe_training, load_checkpoint, save_checkpoint

__all__ = [
    "Recipe",
    "describe_recipe",
    "epoch_seed",
    "fit",
    "keeps_statistics",
    "plan",
    "set_rates",
    "training",
]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@final
@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the data.
        batch_size: rows per step. With BatchNorm, a last step of a single row is merged into the
            step before it, because one row has no spread.
        seed: seed of the order of the rows and of ordinary dropout.
        optimizer: from the trainable parameters to an optimizer; Adam by default.
        schedule: learning-rate factor as a function of the progress in [0, 1).

    Raises:
        DataError: for fewer than 0 epochs or fewer than 1 row per step.
    """

    epochs: int
    batch_size: int = 64
    seed: int = 0
    optimizer: MakeOptimizer = torch.optim.Adam
    schedule: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if not (self.epochs >= 0 and self.batch_size >= 1):  # NaN is neither
            raise DataError(
                f"Cannot train for {self.epochs} epochs with {self.batch_size} rows per step: "
                "epochs begin at 0, the batch size at 1."
            )


def fit(
    model: nn.Module,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    on_epoch: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> None:
    """Train ``model`` in place; with turn-over layers, each row through its own mask.

    Batches are moved to the device of the model. It is put into training mode, unless it is there
    already; modules in evaluation mode inside a training model stay so. Afterwards every module is
    in the mode in which it was found.

    Args:
        model: any module, converted or not (then this is ordinary training).
        rows: the training set with its ids.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: epochs, batch size, seed, optimizer.
        on_epoch: called with the number of finished epochs, before the checkpoint is written; an
            interruption between the two repeats the call after a resume.
        checkpoint: file written after every epoch; when it exists, training goes on from it. More
            epochs may be asked for than before, unless a schedule depends on their number.

    Raises:
        ConversionError: for a model in which nothing can be trained.
        DataError: for no rows.
        LossError: for losses of a wrong shape or that are not numbers; the model then holds the
            weights of the last good step.
        RunError: for a checkpoint of another training: other masks, ids, seed, batch size,
            optimizer or schedule length, or more epochs than asked for.
    """
    if not len(rows):
        raise DataError("There are no rows to train on: the training set is empty.")
    optimizer = recipe.optimizer(_trainable(model))
    rates = [group["lr"] for group in optimizer.param_groups]
    path = None if checkpoint is None else Path(checkpoint)
    about = describe_training(model, optimizer, rows, plan(recipe))
    done = load_checkpoint(path, model, optimizer, about, recipe.epochs)
    size = _rows_per_step(model, len(rows), recipe)
    with torch.random.fork_rng(), training(model) as set_modes:
        for epoch in range(done, recipe.epochs):
            set_modes()
            manual_seed(epoch_seed(recipe.seed, epoch))
            batches = torch.randperm(len(rows), device="cpu").split(size)
            for number, batch in enumerate(batches):
                set_rates(optimizer, rates, recipe, epoch + number / len(batches))
                _step(model, rows, batch, loss, optimizer, epoch)
            if on_epoch is not None:
                on_epoch(epoch + 1)
            save_checkpoint(path, model, optimizer, about, epoch + 1)


def set_rates(
    optimizer: torch.optim.Optimizer, rates: list[float], recipe: Recipe, epochs: float
) -> None:
    """The learning rates of a schedule after so many epochs, a fraction included."""
    if recipe.schedule is not None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * recipe.schedule(epochs / recipe.epochs)


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module keeps statistics of batches, as BatchNorm does."""
    return bool(getattr(module, "track_running_stats", False))


def _needs_two_rows(module: nn.Module) -> bool:
    return keeps_statistics(module) or isinstance(module, _BatchNorm)


def _rows_per_step(model: nn.Module, rows: int, recipe: Recipe) -> int:
    sizes = count(recipe.batch_size)
    free = rows == 1 or not any(map(_needs_two_rows, model.modules()))
    return next(size for size in sizes if free or rows % size != 1)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ConversionError(
            f"Nothing in this {type(model).__name__} can be trained: it has no parameter that "
            "requires a gradient. Unfreeze some with parameter.requires_grad_()."
        )
    return parameters


def plan(recipe: Recipe) -> dict[str, int]:
    """What of a recipe a checkpoint must agree on."""
    kept = {"seed": recipe.seed, "batch size": recipe.batch_size}
    return kept if recipe.schedule is None else {**kept, "epochs of the schedule": recipe.epochs}


def describe_recipe(recipe: Recipe) -> dict[str, object]:
    """A recipe without its seed as plain JSON values; a schedule by ten of its factors."""
    optimizer = recipe.optimizer([nn.Parameter(torch.zeros(1))])
    settings = {k: v for k, v in optimizer.defaults.items() if isinstance(v, int | float)}
    described: dict[str, object] = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "optimizer": {"name": type(optimizer).__name__, **settings},
    }
    if recipe.schedule is not None:
        described["schedule"] = [recipe.schedule(tenth / 10) for tenth in range(10)]
    return described


@contextmanager
def training(model: nn.Module) -> Iterator[Callable[[], None]]:
    """A function that sets the modes for training; after the block each is as it was."""
    found = _modes(model)
    try:
        if not model.training:
            model.train()
        yield partial(_set_modes, _modes(model))
    finally:
        _set_modes(found)


def _modes(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in model.modules()]


def _set_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training


def _step(
    model: nn.Module,
    rows: Rows,
    batch: Tensor,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> None:
    with seen(model, rows.mask_ids[batch]) if is_converted(model) else nullcontext():
        part = to_device_of(model, select_rows(rows.batch, batch))
        losses = per_example(loss(model, part), len(batch))
        if not torch.isfinite(losses).all():
            bad = batch[~torch.isfinite(losses.detach().cpu())]
            raise LossError(
                f"In epoch {epoch + 1} the loss of {len(bad)} of {len(batch)} rows is not a finite "
                f"number; the first has id {int(rows.ids[bad[0]])}. Check its inputs and label, or "
                "lower the learning rate. The last good checkpoint is kept."
            )
        optimizer.zero_grad()
        losses.mean().backward()
    optimizer.step()


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of the order of the rows and of ordinary dropout in one epoch."""
    return (seed * 1_000_003 + epoch) % 2**63
