"""Train towers: every network of a pair on its own half of the instances, all at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from turnover._errors import DataError
from turnover._rows import Loss
from turnover.data import Rows
from turnover.nn import Towers
from turnover.training._loop import Recipe, fit
from turnover.training._stacked import PADDING, Stack

__all__ = ["fit_towers"]


def fit_towers(
    build: Callable[[int], nn.Module],
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    pairs: int = 8,
    stacked: bool = True,
    on_epoch: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Towers:
    """Train ``2 · pairs`` ordinary networks, each on the half of the instances that it sees.

    That costs as much arithmetic as ``pairs`` ordinary trainings, and less time where small
    networks leave a processor idle, since all are trained at once.

    Args:
        build: from a seed to an untrained network without turn-over layers.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: ``recipe.seed`` is also the seed of the coins.
        pairs: pairs of towers; scores get better with more of them.
        stacked: train all at once, through ``torch.func``; ``False`` trains one after the other,
            as networks with BatchNorm need.
        on_epoch: called with the number of finished epochs (of each tower, when not stacked).
        checkpoint: file from which an interrupted training resumes; when not stacked, one file
            for each tower, with its number added to the name.

    Raises:
        ConversionError: for networks that cannot be stacked.
        DataError: for so few rows that a tower would train on none.
        LossError, RunError: as :func:`turnover.training.fit`.
    """
    first = recipe.seed * 2 * pairs
    seeds = range(first, first + 2 * pairs)
    model = Towers([build(seed) for seed in seeds], seed=recipe.seed)
    members = model.members(rows.mask_ids)
    if (empty := members.sum(dim=1) == 0).any():
        raise DataError(
            f"Tower {int(torch.nonzero(empty)[0])} would train on none of the {len(rows)} rows."
        )
    path = None if checkpoint is None else Path(checkpoint)
    if stacked:
        stack = Stack(list(model.towers), loss)
        stack.fit(rows, _positions(members), recipe, on_epoch=on_epoch, checkpoint=path)
        stack.unstack(list(model.towers))
        return model
    for number, (tower, seed) in enumerate(zip(model.towers, seeds, strict=True)):
        part = rows.select(torch.nonzero(members[number]).flatten())
        own = None if path is None else path.with_name(f"{path.name}.{number}")
        fit(tower, part, loss, replace(recipe, seed=seed), on_epoch=on_epoch, checkpoint=own)
    return model


def _positions(members: Tensor) -> Tensor:
    """Positions of each tower's instances ``[tower, most]``, padded at the end."""
    found = [torch.nonzero(row).flatten() for row in members]
    return pad_sequence(found, batch_first=True, padding_value=PADDING)
