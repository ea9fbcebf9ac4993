"""The control that needs no training: which rows look most like the query to the model?"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover._progress import counted
from turnover._rows import Loss, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ConversionError
from turnover.nn import SplitEnsemble, evaluating

__all__ = ["similarity_to", "unit_features"]

ROWS_PER_BLOCK = 512


def similarity_to(model: nn.Module, loss: Loss, query: Rows, train: Rows) -> Tensor:
    """Cosines of what enters the last linear layer, of a query and of every row ``[train]``.

    Of a split ensemble it is their mean over members.

    Args:
        model: a trained model, left as found.
        loss: (model, batch) → per-example losses; it is called for running the model.
        query: one row.
        train: the rows to compare with.

    Raises:
        ConversionError: for a model without a linear layer, or one that is not reached.
    """
    members = list(model.members) if isinstance(model, SplitEnsemble) else [model]
    cosines = []
    for member in members:
        layer = _last_layer(member)
        asked = _inputs(member, layer, loss, query)
        cosines.append((_inputs(member, layer, loss, train) @ asked.T).flatten())
    return torch.stack(cosines).mean(dim=0)


def unit_features(model: nn.Module, loss: Loss, rows: Rows) -> Tensor:
    """What enters the last linear layer, of length 1, float32 ``[rows, features]``.

    Those of the members of a split ensemble stand side by side. Products of two rows are the
    cosines of :func:`similarity_to`.

    Raises:
        ConversionError: as :func:`similarity_to`.
    """
    members = list(model.members) if isinstance(model, SplitEnsemble) else [model]
    parts = [_inputs(member, _last_layer(member), loss, rows) for member in members]
    return torch.cat(parts, dim=1) / len(members) ** 0.5


def _last_layer(model: nn.Module) -> nn.Linear:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConversionError(
            f"This {type(model).__name__} has no linear layer whose input could be compared. Give "
            "similarities of your own."
        )
    return layers[-1]


@torch.no_grad()
def _inputs(model: nn.Module, layer: nn.Linear, loss: Loss, rows: Rows) -> Tensor:
    """Inputs of a layer, of length 1, float32 ``[rows, features]``."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    parts = []
    try:
        with evaluating(model):
            for start in counted("Taking features", range(0, len(rows), ROWS_PER_BLOCK)):
                caught.clear()
                block = select_rows(rows.batch, slice(start, start + ROWS_PER_BLOCK))
                loss(model, to_device_of(model, block))
                if not caught:
                    raise ConversionError("The last linear layer of the model is never reached.")
                parts.append(caught[-1].float().cpu().flatten(1))
    finally:
        hook.remove()
    return F.normalize(torch.cat(parts), dim=1)
