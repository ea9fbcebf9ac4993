"""The arithmetic of a scan: partial sums of four units at a time, in one order for every kernel.

With c_u = slope_u · (m_u − p), which is zero on average,

    score(q, z) = mean_q + Σ_words (((n₀ + n₁) + (n₂ + n₃)) + ((n₄ + n₅) + (n₆ + n₇)))
    n_j = (c₀ + c₁) + (c₂ + c₃)       of the units 4j … 4j + 3 of a word of 32 units

in float32, words added in the order of the units. All that kernels differ in is how many of these
sums they look up: n_j (16 entries) or n_2j + n_2j+1 (256 entries). So scores agree to the last bit
between kernels, devices, block sizes, numbers of threads and of queries.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from turnover.estimators.masked._linear import LinearScores
from turnover.masks import UNITS_PER_CALL, keep_rate

__all__ = ["bytes_of", "nibbles_of"]

FOUR = 4


def nibbles_of(linear: LinearScores) -> Tensor:
    """Sums of every four units, float32 ``[query, units / 4, 16]``; entry v has its bits as mask.

    Layers follow each other, each filled up with units of slope zero to a multiple of 128.
    """
    entries = []
    for spec, slope in zip(linear.specs, linear.slopes, strict=True):
        slope = pad(slope.double(), (0, -spec.units % UNITS_PER_CALL))
        p = keep_rate(spec.keep)
        entries.append(torch.stack([-p * slope, (1 - p) * slope], -1).float())
    each = torch.cat(entries, 1).unflatten(1, (-1, FOUR))
    unit = torch.arange(FOUR, device=each.device)
    bit = torch.arange(2**FOUR, device=each.device).unsqueeze(-1) >> unit & 1
    c0, c1, c2, c3 = each[:, :, unit, bit].unbind(-1)
    sums: Tensor = (c0 + c1) + (c2 + c3)
    return sums


def bytes_of(nibbles: Tensor) -> Tensor:
    """Sums of every eight units, float32 ``[query, units / 8, 256]``."""
    low, high = nibbles[:, 0::2].unsqueeze(-2), nibbles[:, 1::2].unsqueeze(-1)
    return (low + high).flatten(-2)
