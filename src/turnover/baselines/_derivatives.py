"""First and second derivatives of the loss with respect to all trainable parameters θ.

    g_z = ∇L(z),        H v = ∇(∇(Σ_z L(z))·v),        G v = Σ_z Jᵀ (∂²L/∂o²) J v,

with J = ∂o/∂θ for the outputs o of the model. The Gauss-Newton part G of the Hessian is what is
left of it for a model that is linear in θ; for a loss that is convex in o it has no negative
curvature.

Products with the Hessian take reverse over reverse mode, and all vectors share the first pass. On a
multilayer perceptron that was faster than forward over reverse. ``torch.func`` suffices: curvlinops
has the same products, but for losses of the form loss(model(x), y) only, and brings eight more
packages.

Reference: Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient
descent" (G).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from turnover._functional import Parameters, functional_loss, per_example_gradients, trainable
from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ConversionError, LossError

__all__ = [
    "Progress",
    "gauss_newton_products",
    "gradients",
    "hessian_products",
    "split",
]

Progress = Callable[[int, int], None]


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
        batch = to_device_of(model, select_rows(rows.batch, part))
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
    at = dict(trainable(model) if parameters is None else parameters)
    total = _total(model, loss, batch)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        pull = vjp(grad(total), at)[1]
        (found,) = vmap(pull)(split(vectors, at))
    return _joined(found, len(vectors))


def gauss_newton_products(model: nn.Module, loss: Loss, batch: Batch, vectors: Tensor) -> Tensor:
    """Σ_z Jᵀ (∂²L/∂o²) J v over the rows of a batch, for every v: ``[vectors, parameters]``.

    Args:
        model: in the mode in which it is to be run; its output o is a tensor.
        loss: (model, batch) → per-example losses ``[rows]``, which calls the model once.
        batch: whose losses are summed.
        vectors: ``[vectors, parameters]``.

    Raises:
        ConversionError: for a loss that does not call the model once, or another kind of output.
        LossError: for losses of a wrong shape.
    """
    at, total = dict(trainable(model)), _total(model, loss, batch)

    def outputs(parameters: Parameters) -> Tensor:
        with _watched(model) as seen:
            total(parameters)
        return _only(seen, model)

    def of_outputs(output: Tensor) -> Tensor:
        with _watched(model, output):
            return total(at)

    with sdpa_kernel(SDPBackend.MATH):
        output, pull, *_ = vjp(outputs, at)  # u ↦ Jᵀu
        push = vjp(pull, torch.zeros_like(output))[1]  # its transpose, v ↦ Jv
        bend = vjp(grad(of_outputs), output)[1]

        def one(vector: Parameters) -> Parameters:
            return pull(*bend(*push((vector,))))[0]

        found = vmap(one)(split(vectors, at))
    return _joined(found, len(vectors))


def _total(model: nn.Module, loss: Loss, batch: Batch) -> Callable[[Parameters], Tensor]:
    """Parameters ↦ the sum of the losses of the batch."""
    losses, batch = functional_loss(model, loss), to_device_of(model, batch)
    rows = count_rows(batch)
    return lambda parameters: per_example(losses(parameters, batch), rows).sum()


@contextmanager
def _watched(model: nn.Module, instead: Tensor | None = None) -> Iterator[list[object]]:
    """The outputs of the model within the block, where they may be replaced."""
    seen: list[object] = []

    def hook(module: nn.Module, args: object, output: object) -> Tensor | None:
        seen.append(output)
        return instead

    handle = model.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _only(seen: list[object], model: nn.Module) -> Tensor:
    if len(seen) != 1 or not isinstance(seen[0], Tensor):
        found = ", ".join(type(output).__name__ for output in seen) or "nothing"
        raise ConversionError(
            f"The Gauss-Newton part needs a loss that calls {type(model).__name__} once and a "
            f"tensor as its output, but in one call of the loss it put out: {found}. Wrap the "
            "model so that it returns its logits, or take the true Hessian."
        )
    return seen[0]


def _joined(parts: Parameters, count: int) -> Tensor:
    return torch.cat([part.reshape(count, -1) for part in parts.values()], dim=1)


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
