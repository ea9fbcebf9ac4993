"""Split ensembles, whose networks are averaged: errors keep their sign, and squares lose it."""

from typing import Any

from torch import Tensor, nn

from benchmarks._zoo._case import Case, labels, numbers, vectors
from benchmarks._zoo._losses import entropy
from benchmarks._zoo._modules import Centred, dense, mlp


def error(model: nn.Module, batch: Any) -> Tensor:
    """y − f of every row, with its sign."""
    return batch[1] - model(batch[0]).squeeze(1)


def squared(model: nn.Module, batch: Any) -> Tensor:
    """½ (y − f)² of every row."""
    return error(model, batch).square() / 2


def of_numbers(**more: Any) -> Case:
    """Two pairs of networks that say numbers."""
    return Case(
        **{
            "build": lambda: mlp(1),
            "inputs": vectors,
            "loss": error,
            "targets": numbers,
            "link": "residual",
            "given": "residual",
            "pairs": 2,
            **more,
        }
    )


ENSEMBLES: dict[str, Case] = {
    "pairs, cross-entropy": Case(mlp, vectors, entropy, labels, pairs=2),
    "pairs, errors": of_numbers(),
    "pairs, squares for errors": of_numbers(loss=squared, link="squared"),
    "pairs, squares": of_numbers(loss=squared, link="squared", given="squared"),
    "pairs, errors for cross-entropy": of_numbers(given="log-odds"),
    "pairs, errors, statistics over the batch": of_numbers(
        build=lambda: dense(nn.Linear(6, 8), Centred(), nn.Linear(8, 1))
    ),
    "pairs, errors that broadcast": of_numbers(
        loss=lambda m, b: (b[1] - m(b[0])).mean(1), targets=numbers
    ),
}
