"""Slow twins of the scan: a dense product of masks and slopes, and a full sort."""

import torch
from torch import Tensor

from turnover.estimators import LinearScores
from turnover.masks import keep_rate


def scores(linear: LinearScores, ids: Tensor) -> Tensor:
    """offset_q + Σ_l Σ_u slope_l[q, u] · m_{l,u}(z) in float64, ``[query, train]``."""
    total = linear.offsets.double().unsqueeze(-1).expand(-1, len(ids))
    for spec, slope in zip(linear.specs, linear.slopes, strict=True):
        total = total + slope.double() @ spec.mask(ids).double().T
    return total


def tolerance(linear: LinearScores) -> float:
    """Bound on the error of float32 sums: each of them rounds, and none exceeds Σ|slope|.

    A score adds a partial sum of 32 units per word to a running total, below it a tree of five
    levels: at most words + 6 roundings of 2⁻²⁴ relative to Σ|slope|, plus that of the mean.
    """
    words = sum(4 * -(-spec.units // 128) for spec in linear.specs)
    size = sum(slope.abs().sum(-1) for slope in linear.slopes) + linear.offsets.abs()
    return float((words + 8) * size.max() * 2**-24)


def first_order(specs: tuple, gradients: list[Tensor], ids: Tensor) -> Tensor:
    """⟨g, gate_unseen − gate_seen⟩ written out with gates, float64 ``[query, train]``."""
    total = torch.zeros(len(gradients[0]), len(ids), dtype=torch.float64)
    for spec, gradient in zip(specs, gradients, strict=True):
        seen, p = spec.mask(ids).double(), keep_rate(spec.keep)
        total += gradient.double() @ ((1 - seen) / (1 - p) - seen / p).T
    return total


def ranked(scores: Tensor, k: int, largest: bool = True) -> Tensor:
    """Positions of the k best of ``[query, train]``; equal scores by position."""
    return scores.sort(dim=-1, descending=largest, stable=True).indices[:, :k]
