"""Worlds in which the truth is a linear function of who is in a subset."""

from dataclasses import dataclass

import pytest
import torch

from turnover import Scores
from turnover.baselines import Truth

pytest.importorskip("scipy")


@dataclass
class World:
    """output(S, q) = Σ_{z∈S} weight(q, z) / size + noise; scores = weights + error.

    Weights are drawn for each query, beside a common part that all worlds share.
    """

    queries: int = 6
    subsets: int = 40
    seeds: int = 2
    train: int = 30
    noise: float = 0.0
    error: float = 0.0
    shared: float = 0.0
    seed: int = 0

    def make(self):
        g = torch.Generator().manual_seed(self.seed)
        weights = torch.randn(self.queries, self.train, generator=g, dtype=torch.float64)
        common = torch.linspace(-1.7, 1.7, self.train, dtype=torch.float64)
        weights = weights + self.shared * common
        keys = torch.rand(self.subsets, self.train, generator=g)
        members = keys.argsort(dim=1).argsort(dim=1) < self.train // 2
        outputs = (members.double() @ weights.T / (self.train**0.5 / 2)).unsqueeze(1)
        shape = (self.subsets, self.seeds, self.queries)
        noise = torch.randn(shape, generator=g, dtype=torch.float64)
        error = torch.randn(weights.shape, generator=g, dtype=torch.float64)
        train_ids, query_ids = 7 * torch.arange(self.train) - 50, 1000 - torch.arange(self.queries)
        return (
            Scores(weights + self.error * error, train_ids, query_ids),
            Truth(members, -(outputs + self.noise * noise), train_ids, query_ids),
        )


@pytest.fixture
def world():
    """scores, truth = world(noise=1.0, …)"""
    return lambda **how: World(**how).make()
