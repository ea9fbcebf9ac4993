"""Gradients of single rows, by one forward and one backward pass for each of them."""

import torch

from turnover._rows import count_rows, select_rows


def gradients(model, loss, batch):
    """∂L(z)/∂θ of every row alone, with respect to all that is trained, ``float64 [row, θ]``."""
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for row in range(count_rows(batch)):
        losses = loss(model, select_rows(batch, slice(row, row + 1)))
        found = torch.autograd.grad(
            losses.sum(), trained, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.double().flatten() for gradient in found]))
    return torch.stack(rows)
