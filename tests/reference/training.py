"""Slow twins of training: gradients and losses one row at a time, each in its own sub-network."""

from contextlib import nullcontext

import torch

from tests.reference.exact import row_of
from turnover.nn import is_converted, seen


def mean_gradient(model, loss, rows):
    """∇ mean_i L(f^m(z_i), z_i) by parameter name; without masks ∇ mean_i L(f, z_i)."""
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for row, id_ in enumerate(rows.mask_ids.tolist()):
        model.zero_grad()
        with seen(model, id_) if is_converted(model) else nullcontext():
            loss(model, row_of(rows.batch, row)).sum().backward()
        for name, value in model.named_parameters():
            total[name] += value.grad / len(rows)
    model.zero_grad()
    return total


def losses(model, loss, rows, block):
    """L of every row within ``block(model, id)``."""
    with torch.no_grad():
        values = []
        for row, id_ in enumerate(rows.mask_ids.tolist()):
            with block(model, id_):
                values.append(loss(model, row_of(rows.batch, row))[0])
    return torch.stack(values)
