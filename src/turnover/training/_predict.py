"""What the full network, or the seen or unseen half of every row, says about the row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from turnover._progress import counted
from turnover._rows import Batch, blocks_of, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import LossError
from turnover.nn import evaluating, full, seen, unseen

__all__ = ["Logits", "accuracy", "outputs", "probabilities"]

Logits = Callable[[nn.Module, Batch], Tensor]
BLOCK = 512
SIDES = {"seen": seen, "unseen": unseen}


def outputs(model: nn.Module, logits: Logits, rows: Rows, which: str = "full") -> Tensor:
    """What the network says, before any softmax: ``float32 [rows, outputs]``, on the CPU.

    Args:
        model: a converted model (any model for ``"full"``); evaluated in evaluation mode.
        logits: (model, batch) → ``[rows, classes]``.
        rows: the rows, with their ids.
        which: ``"full"``, or the ``"seen"`` or ``"unseen"`` half of each row: what the network
            says about a row that it learned, or would say had it never learned it.
    """
    parts = []
    with torch.no_grad(), evaluating(model):
        for start in counted("Predicting", range(0, len(rows), BLOCK)):
            part = slice(start, start + BLOCK)
            batch = to_device_of(model, select_rows(rows.batch, part))
            side = full(model) if which == "full" else SIDES[which](model, rows.mask_ids[part])
            with side:
                parts.append(logits(model, batch).float().cpu())
    return torch.cat(parts)


def probabilities(model: nn.Module, logits: Logits, rows: Rows, which: str = "full") -> Tensor:
    """Class probabilities ``float32 [rows, classes]``, on the CPU.

    Args:
        model: a split ensemble or a converted model (any model for ``"full"``), evaluated in
            evaluation mode.
        logits: (model, batch) → ``[rows, classes]``, before any softmax.
        rows: the rows, with their ids.
        which: ``"full"``, or the ``"seen"`` or ``"unseen"`` half of each row: what the network
            says about a row that it learned, or would say had it never learned it.

    Raises:
        LossError: where the model says NaN or infinity, with the row.
    """
    found = torch.softmax(outputs(model, logits, rows, which), dim=1)
    if not bool(torch.isfinite(found).all()):
        row = int(torch.nonzero(~torch.isfinite(found).all(dim=1))[0])
        raise LossError(
            f"The {which} network says {found[row].tolist()[:3]} of row {row} (id "
            f"{int(rows.ids[row])}), which are no probabilities, so no loss and no label can be "
            "judged. Its weights are not finite or far too large: train again, with a lower "
            "learning rate if the training diverged."
        )
    return found


def accuracy(model: nn.Module, logits: Logits, rows: Rows) -> float:
    """Share of rows whose most probable class in the full network is their label."""
    labels = torch.cat([block["label"].cpu() for block in blocks_of(rows.batch)])
    right = probabilities(model, logits, rows).argmax(dim=1) == labels
    return float(right.float().mean())
