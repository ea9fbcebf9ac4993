"""Do the rows of a batch reach each other? A few run alone, and their losses are compared.

Scores of single rows mean nothing where they do. Examples are a loss with in-batch negatives,
statistics over the batch, and a model whose dimension 0 is not the row.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import ConversionError, LossError, TurnoverError

__all__ = ["check_isolation", "refuse_mixing", "tolerance_of"]

FEW = 4
HALF = (torch.float16, torch.bfloat16)
TOLERANCE = 2e-3  # batches and single rows round differently
HALF_TOLERANCE = 0.1  # half precision keeps three digits, and sums lose some

Outputs = list[tuple[str, str, Tensor]]

REMEDY = (
    "If dimension 0 of the model's input is the position, set batch_first=True or swap the "
    "dimensions. Put statistics over the batch into evaluation mode. For a loss that compares "
    "rows, such as one with in-batch negatives, let the batch hold indices and fetch fixed "
    "partners in the loss."
)


def check_isolation(
    model: nn.Module, loss: Loss, batch: Batch, alone: int, tolerance: float
) -> None:
    """Compare the losses of rows among others with the losses of the same rows alone.

    Args:
        model: in evaluation mode; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: a batch of a few rows.
        alone: how many of its first rows run alone.
        tolerance: relative difference that rounding explains.

    Raises:
        ConversionError: when a loss changes, with the first module in which rows meet; or when two
            passes over the same batch differ, with the first module whose output does.
        LossError: for losses of a wrong shape.
    """
    batch = to_device_of(model, batch)
    rows = count_rows(batch)
    losses, again = _losses(model, loss, batch), _losses(model, loss, batch)
    if (differs := _unlike(losses, again, tolerance)) is not None:
        raise ConversionError(
            f"Two passes over the same batch give row {differs} the losses "
            f"{float(losses[differs]):.4g} and {float(again[differs]):.4g}, in evaluation mode. "
            f"They differ first in {_first_random(model, loss, batch, tolerance)}. Scores of a "
            "random loss are noise. Switch the randomness off in evaluation mode, for example with "
            "F.dropout(x, p, training=self.training)."
        )
    if rows < 2:
        return
    for row in range(min(alone, rows)):
        single = select_rows(batch, slice(row, row + 1))
        try:
            one = _losses(model, loss, single)
        except (TurnoverError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ConversionError(
                f"Row {row} cannot run alone: {type(error).__name__}: {error}. A row that needs "
                "others has no gradient of its own. Make the model run on a batch of one, for "
                "example with squeeze(-1) in place of squeeze(), and put statistics over the batch "
                "into evaluation mode."
            ) from error
        if _unlike(losses[row : row + 1], one, tolerance) is not None:
            raise ConversionError(
                f"Row {row} has the loss {float(one):.4g} alone, and {float(losses[row]):.4g} "
                f"among {rows} rows: rows reach each other, first in "
                f"{_first_mixing(model, loss, batch, single, row, tolerance)}. The gradient of a "
                f"row then belongs to several rows, and no score of a single one is right. {REMEDY}"
            )


def refuse_mixing(model: nn.Module, loss: Loss, batch: Batch) -> None:
    """Refuse queries that reach each other, and a loss that is random; two of them run alone.

    Args:
        model: in evaluation mode; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: the queries, of which four are looked at.

    Raises:
        ConversionError: as :func:`check_isolation`.
    """
    with suppress(LossError):  # losses of a wrong shape and NaN are named where they are used
        some = select_rows(batch, slice(0, FEW))
        check_isolation(model, loss, some, FEW // 2, tolerance_of(model))


def _losses(model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    with torch.no_grad():
        losses = per_example(loss(model, batch), count_rows(batch)).float()
    if not torch.isfinite(losses).all():
        bad = int(torch.nonzero(~torch.isfinite(losses))[0])
        raise LossError(
            f"The loss of row {bad} of {len(losses)} is {float(losses[bad])}, so it has no "
            "gradient. Check its inputs and label, and whether training diverged."
        )
    return losses


def _unlike(one: Tensor, other: Tensor, tolerance: float) -> int | None:
    """The first row in which two tensors differ by more than rounding; None when none does."""
    one, other = (x.detach().float().reshape(len(x), -1) for x in (one, other))
    size = torch.maximum(one.abs().amax(dim=1), other.abs().amax(dim=1))
    bad = ((one - other).abs().amax(dim=1) > tolerance * (size + 0.05)).nonzero()
    return int(bad[0]) if len(bad) else None


@contextmanager
def _watched(model: nn.Module) -> Iterator[Outputs]:
    """Within the block, the outputs of all modules in the order in which they end."""
    outputs: Outputs = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, _: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                outputs.append((name or "the model itself", type(module).__name__, output.detach()))

        return keep

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(hook(name)).remove)
        yield outputs


def _first_random(model: nn.Module, loss: Loss, batch: Batch, tolerance: float) -> str:
    runs: list[Outputs] = []
    for _ in range(2):
        with _watched(model) as outputs:
            _losses(model, loss, batch)
        runs.append(list(outputs))
    for (name, kind, one), (_, _, other) in zip(*runs, strict=False):
        same = one.shape == other.shape and one.dim() > 0
        if not same or _unlike(one.flatten()[None], other.flatten()[None], tolerance) is not None:
            return f"{name!r} ({kind})"
    return "the loss"


def _first_mixing(
    model: nn.Module, loss: Loss, batch: Batch, single: Batch, row: int, tolerance: float
) -> str:
    """The first module whose output for the row depends on the other rows."""
    rows, runs = count_rows(batch), list[Outputs]()
    for part in (batch, single):
        with _watched(model) as outputs:
            _losses(model, loss, part)
        runs.append(list(outputs))
    for (name, kind, among), (_, _, alone) in zip(*runs, strict=False):
        if among.dim() == 0 or len(among) != rows or len(alone) != 1:
            continue  # its dimension 0 is no row; where rows meet shows behind it
        fits = among.shape[1:] == alone.shape[1:]
        if not fits or _unlike(among[row : row + 1], alone, tolerance) is not None:
            return f"{name!r} ({kind})"
    return "the loss function, or in code outside of all modules"


def tolerance_of(model: nn.Module) -> float:
    """The relative difference that rounding explains."""
    device = next(model.parameters()).device.type
    half = torch.is_autocast_enabled(device) or any(p.dtype in HALF for p in model.parameters())
    return HALF_TOLERANCE if half else TOLERANCE
