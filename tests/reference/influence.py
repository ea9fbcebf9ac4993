"""Slow twin of influence functions: the whole Hessian, inverted, and one gradient at a time."""

import torch
from torch.func import functional_call

from tests.reference.exact import row_of


def flat_losses(model, loss, batch):
    """θ ↦ losses ``[rows]``, with all parameters in one vector, and that vector."""
    parameters = dict(model.named_parameters())
    sizes = [value.numel() for value in parameters.values()]

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return loss(self.model, batch)

    def losses(theta):
        parts = zip(parameters.items(), theta.split(sizes), strict=True)
        given = {f"model.{name}": part.view_as(value) for (name, value), part in parts}
        return functional_call(Whole(), given, (batch,))

    return losses, torch.cat([value.detach().flatten() for value in parameters.values()])


def gradients(model, loss, batch, rows):
    """∇L(z) of every row, ``[rows, parameters]``."""
    found = []
    for row in range(rows):
        losses, theta = flat_losses(model, loss, row_of(batch, row))
        found.append(torch.autograd.functional.jacobian(lambda t, f=losses: f(t)[0], theta))
    return torch.stack(found)


def hessian(model, loss, batch):
    """∇² of the mean loss, ``[parameters, parameters]``."""
    losses, theta = flat_losses(model, loss, batch)
    return torch.autograd.functional.hessian(lambda t: losses(t).mean(), theta)


def gauss_newton(model, batch):
    """Mean of Jᵀ (diag(p) − ppᵀ) J for cross-entropy, ``[parameters, parameters]``."""
    losses, theta = flat_losses(model, lambda model, batch: model(batch[0]), batch)
    jacobian = torch.autograd.functional.jacobian(losses, theta)
    p = losses(theta).softmax(dim=1)
    inner = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("zci,zcd,zdj->ij", jacobian, inner, jacobian) / len(p)


def koh_liang(model, loss, queries, rows, damping, curvature=None):
    """∇L(q)ᵀ (H + λI)⁻¹ ∇L(z) / N, ``[query, train]``."""
    model.eval()
    left = gradients(model, loss, queries.batch, len(queries))
    right = gradients(model, loss, rows.batch, len(rows))
    damped = hessian(model, loss, rows.batch) if curvature is None else curvature
    damped = damped + damping * torch.eye(len(damped), dtype=damped.dtype)
    return left @ torch.linalg.solve(damped, right.T) / len(rows)
