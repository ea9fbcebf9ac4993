"""Which trainable parameters does the loss depend on? A kernel is told what it leaves out.

A parameter without a gradient adds nothing to scores. Some models have one by design, such as a
pooler that no loss uses. Others lost it: a reentrant checkpoint of inputs that need no gradient, a
``torch.no_grad`` or ``detach``, a module that was replaced.
"""

from collections.abc import Collection

import torch
from torch import nn

from turnover._functional import with_gradients
from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import ConversionError

__all__ = ["refuse_little", "share_read", "without_gradient"]

FIRST, AT_ONCE, NAMED = 8, 16, 3


def without_gradient(model: nn.Module, loss: Loss, batch: Batch) -> tuple[str, ...]:
    """Names of trainable parameters that no row's loss depends on.

    Args:
        model: in evaluation mode; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: rows; more than a few are read only while a parameter is left without a gradient.
    """
    rows, start = count_rows(batch), 0
    left = {name: p for name, p in model.named_parameters() if p.requires_grad}
    while left and start < rows:
        stop = start + (AT_ONCE if start else FIRST)
        with with_gradients():
            some = to_device_of(model, select_rows(batch, slice(start, stop)))
            losses = per_example(loss(model, some), count_rows(some))
            found = (
                torch.autograd.grad(losses.sum(), list(left.values()), allow_unused=True)
                if losses.requires_grad
                else [None] * len(left)
            )
        left = {n: p for (n, p), g in zip(left.items(), found, strict=True) if g is None}
        start = stop
    return tuple(left)


def share_read(model: nn.Module, left_out: Collection[str]) -> float:
    """Share of the trainable numbers that have a gradient, from 0 to 1."""
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    return 1 - sum(sizes[name] for name in left_out) / max(1, sum(sizes.values()))


def refuse_little(model: nn.Module, left_out: Collection[str], least: float) -> None:
    """Refuse a model of which too little has a gradient.

    Raises:
        ConversionError: when the share is below ``least``.
    """
    share = share_read(model, left_out)
    if share >= least:
        return
    names = ", ".join(map(repr, sorted(left_out)[:NAMED]))
    more = f" and {len(left_out) - NAMED} others" if len(left_out) > NAMED else ""
    raise ConversionError(
        f"Only {share:.0%} of the trainable numbers of this {type(model).__name__} have a "
        f"gradient: the loss does not depend on {names}{more}. Scores would leave out the rest. "
        "A reentrant checkpoint of inputs that need no gradient does this (give it "
        "use_reentrant=False), so do torch.no_grad and detach. Freeze parameters that are not "
        "meant to be trained, by requires_grad_(False), or allow it by "
        f"GradientKernel(least_read={share:.2g})."
    )
