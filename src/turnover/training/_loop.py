"""One explicit training loop: every row of a batch trains its own seen sub-network.

    θ ← step(θ, ∇ mean_i L(f^m(z_i), z_i)),    i over a batch

The order of the rows is a pure function of (seed, epoch), and a checkpoint is written after every
epoch, so that an interrupted training resumes and ends with the same bits.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover._errors import LossError
from turnover._rows import Loss, per_example, select_rows
from turnover.data import Rows
from turnover.nn import is_converted, seen
from turnover.training._checkpoint import load_checkpoint, save_checkpoint

__all__ = ["Recipe", "fit"]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@final
@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the data.
        batch_size: rows per step.
        seed: seed of the order of the rows and of ordinary dropout.
        optimizer: from the trainable parameters to an optimizer; Adam by default.
        schedule: learning-rate factor as a function of the progress in [0, 1).
    """

    epochs: int
    batch_size: int = 64
    seed: int = 0
    optimizer: MakeOptimizer = torch.optim.Adam
    schedule: Callable[[float], float] | None = None


def fit(
    model: nn.Module,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    on_epoch: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train ``model`` in place; with turn-over layers, each row through its own mask.

    Args:
        model: any module, converted or not (then this is ordinary training).
        rows: the training set with its ids.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: epochs, batch size, seed, optimizer.
        on_epoch: called with the number of finished epochs, before the checkpoint is written; an
            interruption between the two repeats the call after a resume.
        checkpoint: file written after every epoch; when it exists, training goes on from it.

    Raises:
        LossError: for losses of a wrong shape or that are not numbers; the model then holds the
            weights of the last good step.
        RunError: for a checkpoint of another training.
    """
    optimizer = recipe.optimizer([p for p in model.parameters() if p.requires_grad])
    rates = [group["lr"] for group in optimizer.param_groups]
    done = load_checkpoint(checkpoint, model, optimizer, recipe.seed)
    with torch.random.fork_rng():
        for epoch in range(done, recipe.epochs):
            torch.manual_seed(_epoch_seed(recipe.seed, epoch))
            batches = torch.randperm(len(rows)).split(recipe.batch_size)
            for number, batch in enumerate(batches):
                if recipe.schedule is not None:
                    progress = (epoch + number / len(batches)) / recipe.epochs
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * recipe.schedule(progress)
                _step(model, rows, batch, loss, optimizer, epoch)
            if on_epoch is not None:
                on_epoch(epoch + 1)
            save_checkpoint(checkpoint, model, optimizer, recipe.seed, epoch + 1)


def _step(
    model: nn.Module,
    rows: Rows,
    batch: Tensor,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> None:
    model.train()
    with seen(model, rows.mask_ids[batch]) if is_converted(model) else nullcontext():
        losses = per_example(loss(model, select_rows(rows.batch, batch)), len(batch))
        if not torch.isfinite(losses).all():
            bad = batch[~torch.isfinite(losses.detach())]
            raise LossError(
                f"In epoch {epoch + 1} the loss of {len(bad)} of {len(batch)} rows is not a finite "
                f"number; the first has id {int(rows.ids[bad[0]])}. Check its inputs and label, or "
                "lower the learning rate. The last good checkpoint is kept."
            )
        optimizer.zero_grad()
        losses.mean().backward()
    optimizer.step()


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63
