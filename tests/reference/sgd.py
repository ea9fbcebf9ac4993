"""Slow twin of a recorded training: torch.optim.SGD, batch by batch, with a weight for each row."""

import copy

import torch


def trained(model, loss, rows, batches, weights, optimizer):
    """A copy of the model after steps on Σ_i w_i L(z_i) / |S| over each batch of positions."""
    model = copy.deepcopy(model).eval()
    steps = optimizer(model.parameters())
    for batch in batches:
        steps.zero_grad()
        part = rows.select(batch).batch
        (weights[batch] * loss(model, part)).sum().div(len(batch)).backward()
        steps.step()
    return model


def losses(model, loss, rows, batches, weights, optimizer, queries):
    """L(q) after that training, ``[query]``."""
    model = trained(model, loss, rows, batches, weights, optimizer)
    with torch.no_grad():
        return loss(model, queries.batch)


def without(model, loss, rows, batches, optimizer, queries):
    """L(q) when the terms of z are left out minus L(q) as it is, ``[query, train]``."""
    ones = torch.ones(len(rows), dtype=torch.float64)
    weights = torch.cat([ones - torch.eye(len(rows), dtype=torch.float64), ones[None]])
    each = torch.stack(
        [losses(model, loss, rows, batches, row, optimizer, queries) for row in weights], dim=1
    )
    return each[:, :-1] - each[:, -1:]


def slope(model, loss, rows, batches, optimizer, queries, z, step=1e-4):
    """−dL(q)/dw of the weight of one row, by central differences, ``[query]``."""
    ends = []
    for sign in (-1, 1):
        weights = torch.ones(len(rows), dtype=torch.float64)
        weights[z] += sign * step
        ends.append(losses(model, loss, rows, batches, weights, optimizer, queries))
    return (ends[0] - ends[1]) / (2 * step)
