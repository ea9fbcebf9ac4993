"""A task whose mistake has a known cause: copies of the query that carry the wrong label."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows
from turnover.estimators import GradientKernel
from turnover.training import Recipe, fit_split_ensemble

FEATURES = 6
RECIPE = Recipe(12, 31, optimizer=partial(torch.optim.Adam, lr=0.1))


def logits(model, batch):
    return model(batch["x"])


def loss(model, batch):
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 2))


def data(rows=60, copies=0, seed=0):
    """Two blobs, and copies of the query with the wrong label; ids from 100 on, copies first.

    The query has class 1 by its first feature and a second feature that no other row has, so that
    copies of it teach their label to nothing but the query.
    """
    random = torch.Generator().manual_seed(seed)
    label = torch.arange(rows) % 2
    x = torch.zeros(rows, FEATURES)
    x[:, 0] = 2.0 * label - 1 + 0.2 * torch.randn(rows, generator=random)
    asked = torch.zeros(1, FEATURES)
    asked[0, 0], asked[0, 1] = 0.7, 3.0
    x = torch.cat([asked.expand(copies, -1), x])
    label = torch.cat([torch.zeros(copies, dtype=torch.int64), label])
    train = Rows({"x": x, "label": label}, torch.arange(rows + copies) + 100)
    query = Rows({"x": asked, "label": torch.tensor([1])}, torch.tensor([7]))
    return train, query


def kernel(train, pairs=4):
    model = fit_split_ensemble(build, train, loss, RECIPE, pairs=pairs)
    return GradientKernel(model, loss).fit(train)


HOW = {"build": build, "loss": loss, "logits": logits, "recipe": RECIPE}
