"""Gradients of rows one by one, by plain automatic differentiation: exact, and slower."""

import torch
from torch import Tensor, nn

from turnover._functional import per_example_gradients, with_gradients
from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import LossError

__all__ = ["by_row", "refuse_not_finite"]


def by_row(
    model: nn.Module, loss: Loss, batch: Batch, names: tuple[str, ...], *, mapped: bool
) -> dict[str, Tensor]:
    """Gradients of the named parameters for each row alone, ``[row, *parameter]`` by name.

    Args:
        model: run as it is.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: a batch of any structure.
        names: names of parameters of the model.
        mapped: differentiate several rows at once by ``torch.vmap``, not one by one.
    """
    given, batch = dict(model.named_parameters()), to_device_of(model, batch)
    asked = {name: given[name] for name in names}
    if mapped:
        detached = {name: p.detach() for name, p in asked.items()}
        made = per_example_gradients(model, loss, batch, parameters=detached, rows_per_block=16)
        cut = torch.cat(list(made)).detach().split([p.numel() for p in asked.values()], dim=1)
        return {n: g.reshape(len(g), *asked[n].shape) for n, g in zip(names, cut, strict=True)}
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with with_gradients():
        for row in range(count_rows(batch)):
            losses = per_example(loss(model, select_rows(batch, slice(row, row + 1))), 1)
            refuse_not_finite(losses)
            gradients = torch.autograd.grad(
                losses.sum(), list(asked.values()), allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(names, gradients, strict=True):
                found[name].append(gradient)
    return {name: torch.stack(each) for name, each in found.items()}


def refuse_not_finite(losses: Tensor) -> None:
    """Refuse losses without a gradient.

    Raises:
        LossError: for the first that is not finite, with its row.
    """
    if not torch.isfinite(losses).all():
        bad = int(torch.nonzero(~torch.isfinite(losses))[0])
        raise LossError(
            f"The loss of row {bad} of this batch is {float(losses[bad].detach())}, so it has "
            "no gradient. Check its inputs and label, and whether training diverged."
        )
