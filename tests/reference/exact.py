"""Slow twin of the exact scores: a double loop over queries and instances, one row at a time."""

import torch

from turnover.nn import seen, unseen


def row_of(batch, row):
    """The batch of one row, spelled out for the structures that the tests use."""
    if isinstance(batch, dict):
        return {key: row_of(value, row) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row_of(value, row) for value in batch)
    return batch[row : row + 1]


def losses(model, loss, queries, rows, ids, half):
    """L(f^m(z), q) for ``half`` = seen or unseen, ``[query, train]``."""
    model.eval()
    table = torch.empty(rows, len(ids))
    with torch.no_grad():
        for q in range(rows):
            for z, id_ in enumerate(ids.tolist()):
                with half(model, id_):
                    table[q, z] = loss(model, row_of(queries, q))[0]
    return table


def scores(model, loss, queries, rows, ids, form="seen"):
    """L(f^m̃(z), q) − L(f^m(z), q), or L(f^m̃(z), q) − L(f, q), in nats."""
    without = losses(model, loss, queries, rows, ids, unseen)
    if form == "seen":
        return without - losses(model, loss, queries, rows, ids, seen)
    model.eval()
    with torch.no_grad():
        full = torch.stack([loss(model, row_of(queries, q))[0] for q in range(rows)])
    return without - full[:, None]
