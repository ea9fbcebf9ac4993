"""The learning curves of the paper's Figure 2: mean losses of sub-networks, in nats."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from turnover._progress import counted
from turnover._rows import Loss, per_example, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import DataError
from turnover.nn import SplitEnsemble, evaluating, full, seen, unseen
from turnover.training._bytes import held_by_row

__all__ = ["Curve", "losses_of", "measure"]

BLOCK, BYTES = 512, 2**30
LARGE = 2**20  # parameters; smaller networks hold little of a row
SIDES = {"seen": seen, "unseen": unseen}


@final
@dataclass(frozen=True)
class Curve:
    """One point of the learning curves: mean losses in nats.

    ``seen_train`` is L(f^m(z), z) over training instances, ``unseen_train`` L(f^m̃(z), z): an
    out-of-sample loss. The test instances are not in training, so their masks are random ones:
    ``seen_test`` and ``unseen_test`` should agree. ``full_test`` is the loss of the full network.
    """

    epoch: int
    seen_train: float
    unseen_train: float
    seen_test: float
    unseen_test: float
    full_test: float


def losses_of(model: nn.Module, loss: Loss, rows: Rows, which: str = "full") -> Tensor:
    """Loss of every row in its own seen or unseen sub-network, or in the full one.

    Args:
        model: a converted model (any model for ``"full"``); evaluated in evaluation mode.
        loss: (model, batch) → per-example losses.
        rows: the rows, with their ids.
        which: ``"seen"``, ``"unseen"`` or ``"full"``.

    Returns:
        ``float32 [rows]`` in nats, on the CPU.

    Raises:
        DataError: for no rows, or another ``which``.
    """
    if which != "full" and which not in SIDES:
        raise DataError(f"Losses are of the 'seen', 'unseen' or 'full' network, not {which!r}.")
    if not len(rows):
        raise DataError("There are no rows to evaluate: the data set is empty.")
    parts, size = [], _rows_at_once(model, loss, rows)
    with torch.no_grad(), evaluating(model):
        for start in counted("Measuring losses", range(0, len(rows), size)):
            part = slice(start, start + size)
            ids = rows.mask_ids[part]
            with full(model) if which == "full" else SIDES[which](model, ids):
                losses = loss(model, to_device_of(model, select_rows(rows.batch, part)))
            parts.append(per_example(losses, len(ids)).float().cpu())
    return torch.cat(parts)


def _rows_at_once(model: nn.Module, loss: Loss, rows: Rows) -> int:
    """At most so many rows that a pass of a large network holds no more than 1 GiB of them."""
    if sum(parameter.numel() for parameter in model.parameters()) < LARGE:
        return BLOCK
    network = model.members[0] if isinstance(model, SplitEnsemble) else model
    return max(1, min(BLOCK, BYTES // max(1, held_by_row(network, loss, rows.batch))))


def measure(model: nn.Module, loss: Loss, train: Rows, test: Rows, epoch: int) -> Curve:
    """The five mean losses of a converted model after ``epoch`` epochs."""
    return Curve(
        epoch,
        *(float(losses_of(model, loss, train, which).mean()) for which in ("seen", "unseen")),
        *(
            float(losses_of(model, loss, test, which).mean())
            for which in ("seen", "unseen", "full")
        ),
    )
