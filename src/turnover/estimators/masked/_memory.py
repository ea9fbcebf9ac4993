"""How much memory one row of a batch takes behind the first mask."""

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, to_device_of
from turnover.errors import ConversionError
from turnover.nn import TurnoverDropout, full, masked_layers

__all__ = ["bytes_per_row"]

LIVE_TENSORS = 3


def bytes_per_row(model: nn.Module, loss: Loss, row: Batch) -> int:
    """Bytes that a pair of query and instance keeps alive: a few of the largest activations.

    Runs the full network once on ``row``, a batch of one example, which also tells every
    turn-over layer its number of units.

    Raises:
        ConversionError: for a model without turn-over layers, or one that never reaches them.
    """
    sizes = [1]
    behind = False

    def note(module: nn.Module, args: object, output: object) -> None:
        nonlocal behind
        behind = behind or isinstance(module, TurnoverDropout)
        if behind and isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with full(model), torch.no_grad():
            loss(model, to_device_of(model, row))
    finally:
        for hook in hooks:
            hook.remove()
    for layer in masked_layers(model).values():
        if layer.units is None:
            raise ConversionError(
                f"The model never reaches {layer.name}, so its masks play no part in the loss. "
                "Convert a fresh copy without a mask at this place."
            )
    return LIVE_TENSORS * max(sizes)
