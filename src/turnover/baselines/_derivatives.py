"""First and second derivatives of the loss with respect to all trainable parameters θ.

    g_z = ∇L(z),        H v = ∇(∇(Σ_z L(z))·v)

Products with the Hessian take reverse over reverse mode, with the first pass shared by all vectors;
on a multilayer perceptron that was faster than forward over reverse. ``torch.func`` suffices:
curvlinops has the same products, but for losses of the form loss(model(x), y) only, and brings
eight more packages.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from turnover._errors import DataError, LossError
from turnover._functional import Parameters, functional_loss, per_example_gradients, trainable
from turnover._rows import Batch, Loss, beside, count_rows, per_example, select_rows
from turnover.data import Rows

__all__ = ["Progress", "as_rows", "gradients", "hessian_products", "split"]

Progress = Callable[[int, int], None]


def as_rows(queries: Batch | Rows) -> Rows:
    """Rows as they are; any other batch with its row numbers as ids.

    Raises:
        DataError: when there are none.
    """
    rows = queries if isinstance(queries, Rows) else Rows(queries)
    if not len(rows):
        raise DataError("There are no rows to score: the data set is empty.")
    return rows


def gradients(
    model: nn.Module,
    loss: Loss,
    rows: Rows,
    rows_per_block: int = 64,
    parameters: Parameters | None = None,
) -> Iterator[Tensor]:
    """∂L(z)/∂θ of every row, in blocks ``[rows, parameters]`` on the device of the model.

    Args:
        model: in the mode in which it is to be run.
        loss: (model, batch) → per-example losses ``[rows]``.
        rows: whose gradients.
        rows_per_block: gradients held at once.
        parameters: where to take them; at the model's own by default.

    Raises:
        ConversionError: for a model in which nothing can be trained.
        LossError: for losses of a wrong shape, or a gradient that is not finite.
    """
    for start in range(0, len(rows), rows_per_block):
        part = slice(start, start + rows_per_block)
        batch = beside(model, select_rows(rows.batch, part))
        for block in per_example_gradients(
            model, loss, batch, rows_per_block=rows_per_block, parameters=parameters
        ):
            _refuse_infinite(block, rows.ids[part])
            yield block


def hessian_products(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    vectors: Tensor,
    parameters: Parameters | None = None,
) -> Tensor:
    """Σ_z ∇²L(z) v over the rows of a batch, for every v: ``[vectors, parameters]``.

    Args:
        model: in the mode in which it is to be run.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: whose losses are summed.
        vectors: ``[vectors, parameters]``.
        parameters: where to take the derivatives; at the model's own by default.

    Raises:
        LossError: for losses of a wrong shape.
    """
    losses = functional_loss(model, loss)
    at = trainable(model) if parameters is None else parameters
    batch = beside(model, batch)
    rows = count_rows(batch)

    def total(parameters: Parameters) -> Tensor:
        return per_example(losses(parameters, batch), rows).sum()

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        pull = vjp(grad(total), dict(at))[1]
        (found,) = vmap(pull)(split(vectors, at))
    return torch.cat([part.reshape(len(vectors), -1) for part in found.values()], dim=1)


def split(vectors: Tensor, like: Parameters) -> dict[str, Tensor]:
    """Vectors ``[..., parameters]`` as tensors ``[..., *shape]`` by the names in ``like``."""
    parts = vectors.split([value.numel() for value in like.values()], dim=-1)
    return {
        name: part.reshape(*vectors.shape[:-1], *value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def _refuse_infinite(block: Tensor, ids: Tensor) -> None:
    if not (fine := torch.isfinite(block).all(dim=1).cpu()).all():
        raise LossError(
            f"The gradient of the loss of row {int(ids[~fine][0])} (its id) is not finite, like "
            f"those of {int((~fine).sum())} of {len(ids)} rows. Check its inputs and label, and "
            "whether training diverged."
        )
