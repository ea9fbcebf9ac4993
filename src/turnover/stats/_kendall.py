"""Kendall's τ-b of many resamples: sorted for one of them, counted for all.

With the P = N (N − 1) / 2 pairs of a resample in the order of x (and of y, where x ties), of which
T_x tie in x, T_y in y, T_xy in both, and I stand in the wrong order in y,

    τ-b = (P − T_x − T_y + T_xy − 2 I) / √((P − T_x) (P − T_y)).

I is counted as merge sort does it, level by level: what is greater in the left half of a block than
an item of the right half. The order within a level does not depend on the resample. A level costs
one cumulated sum of counts: O(n log² n) once, and O(n log n) per resample.

Reference: Knight 1966, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data".
"""

import numpy as np

from turnover.stats._extras import Array
from turnover.stats._ranks import Order, ranks

__all__ = ["weighted_kendall"]


def weighted_kendall(x: Array, y: Array, counts: Array) -> Array:
    """τ-b in each resample, ``[resample]``; NaN where one side is constant.

    Args:
        x: one value per item ``[item]``.
        y: another ``[item]``.
        counts: how often each resample holds each item, ``[item, resample]``.
    """
    total = counts.sum(axis=0)
    pairs = total * (total - 1) / 2
    in_order = np.lexsort((y, x))
    both = ranks(x) * 2 * len(x) + ranks(y)
    ties_x, ties_y, ties = (_tied_pairs(values, counts) for values in (x, y, both))
    wrong = _inversions(y[in_order], counts[in_order])
    size = (pairs - ties_x) * (pairs - ties_y)
    score = pairs - ties_x - ties_y + ties - 2 * wrong
    return np.divide(score, np.sqrt(size), out=np.full(len(total), np.nan), where=size > 0)


def _tied_pairs(values: Array, counts: Array) -> Array:
    before, upto = Order(values).below(counts)
    pairs: Array = (counts * (upto - before - 1)).sum(axis=0) / 2
    return pairs


def _inversions(y: Array, counts: Array) -> Array:
    """Pairs of copies, the first before the second in the list, whose y descend, ``[resample]``."""
    place, width = np.arange(len(y)), 1
    found = np.zeros(counts.shape[1])
    while width < len(y):
        right, block = (place // width) % 2 == 1, place // (2 * width)
        order = np.lexsort((~right, -y, block))
        is_right = right[order]
        greater = np.zeros((len(y) + 1, counts.shape[1]))
        np.cumsum(np.where(is_right[:, None], 0, counts[order]), axis=0, out=greater[1:])
        at = np.flatnonzero(is_right)
        start = block[order[at]] * 2 * width
        found += (counts[order[at]] * (greater[at] - greater[start])).sum(axis=0)
        width *= 2
    return found
