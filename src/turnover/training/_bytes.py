"""What a training holds in memory at most, and an error in words where that does not fit."""

import torch
from torch import nn

from turnover._memory import refuse_more
from turnover._rows import Batch, Examples, Loss, select_rows, to_device_of
from turnover.data import Rows
from turnover.nn import SplitEnsemble, evaluating
from turnover.training._loop import Recipe
from turnover.training._stacked import stacks_well

__all__ = ["bytes_of_training", "held_by_row", "refuse_large_training"]

COPIES = 4  # of what is trained: weights in a stack, gradients, and two averages of Adam
WEIGHED = 32  # lazy rows
PASSES = 3  # over what a forward pass holds: that, its gradients, and what operators need besides


def held_by_row(network: nn.Module, loss: Loss, batch: Batch) -> int:
    """Bytes that the modules of a network take and give for a row of a batch.

    One row tells that of rows in memory, which have one shape. Lazy ones are padded block by block,
    so that several are weighed together.
    """
    held, count, few = 0, 1, torch.arange(1)
    if isinstance(batch, Examples):
        count = min(WEIGHED, len(batch))
        few = torch.linspace(0, len(batch) - 1, count).long()

    def weigh(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        nonlocal held
        for tensor in (*args, output):
            held += tensor.nbytes if isinstance(tensor, torch.Tensor) else 0

    leaves = [m for m in network.modules() if next(m.children(), None) is None]
    hooks = [module.register_forward_hook(weigh) for module in leaves]
    try:
        with evaluating(network), torch.no_grad():
            loss(network, to_device_of(network, select_rows(batch, few)))
    finally:
        for hook in hooks:
            hook.remove()
    return held // max(1, count)


def bytes_of_training(
    model: nn.Module, rows: Rows, loss: Loss, recipe: Recipe, stacked: bool | None = None
) -> int:
    """Memory of a training at most, beside the model and the rows."""
    first = model.members[0] if isinstance(model, SplitEnsemble) else model
    trained = sum(p.nbytes for p in first.parameters() if p.requires_grad)
    at_once = 1
    if isinstance(model, SplitEnsemble) and (stacks_well(first) if stacked is None else stacked):
        at_once = len(model.members)
    batch = min(recipe.batch_size, len(rows))
    held = held_by_row(first, loss, rows.batch) if batch else 0
    return at_once * (COPIES * trained + PASSES * batch * held)


def refuse_large_training(
    model: nn.Module, rows: Rows, loss: Loss, recipe: Recipe, stacked: bool | None = None
) -> None:
    """Refuse a network or split ensemble whose training does not fit into memory.

    Raises:
        ConfigError: when less memory is available.
    """
    what, less = "Training a network", "Take a smaller network, or smaller batches."
    if isinstance(model, SplitEnsemble):
        what = f"Training {len(model.members)} networks"
        less = "Take fewer pairs of networks, smaller batches, or stacked=False."
    refuse_more(bytes_of_training(model, rows, loss, recipe, stacked), what, less)
