"""Networks with masks whose rows reach each other, or whose losses are random."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from benchmarks._zoo._case import CLASSES, WIDTH, Case, labels, numbers, vectors
from benchmarks._zoo._losses import entropy, negatives
from benchmarks._zoo._modules import Centred, body, dense, mlp


def of_masked(where: str, **more: Any) -> Case:
    """A case of masked scores whose rows reach each other."""
    return Case(**{"inputs": vectors, "loss": entropy, "targets": labels, **more}, masked=where)


MASKED: dict[str, Case] = {
    "masked": of_masked("1", build=mlp),
    "masked, statistics over the batch": of_masked(
        "0", build=lambda: dense(nn.Linear(WIDTH, 8), Centred(), nn.Linear(8, CLASSES))
    ),
    "masked, negatives in the batch": of_masked("1", build=mlp, loss=negatives),
    "masked, broadcast": of_masked(
        "1",
        build=lambda: mlp(1),
        loss=lambda m, b: (m(b[0]) - b[1]).square().mean(1),
        targets=numbers,
    ),
    "masked, dropout that stays on": of_masked(
        "a", build=lambda: body(lambda m, x: m.out(F.dropout(m.a(x), 0.3)))
    ),
    "masked, attention across rows": of_masked(
        "out",
        build=lambda: body(
            lambda m, x: m.end(m.out(m.a(x, x, x)[0])),
            a=nn.MultiheadAttention(WIDTH, 2),
            out=nn.Linear(WIDTH, WIDTH),
            end=nn.Linear(WIDTH, CLASSES),
        ),
    ),
}
