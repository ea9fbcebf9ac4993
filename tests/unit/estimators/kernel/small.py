"""Rows of three classes, and a network for them that trains in a moment."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9, weight_decay=0.001)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.randn(count, 6, generator=generator) + 2 * F.one_hot(y, 6)
    return Rows((x, y), torch.arange(count) + 1000 * seed)
