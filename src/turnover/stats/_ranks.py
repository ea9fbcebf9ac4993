"""Ranks with ties averaged, and what follows from them, for many resamples at one sort.

In a resample that holds item i c_i times, the rank of an item is the number of copies below it
plus the middle of its ties:

    r_i = (C(before its ties) + C(up to its ties) + 1) / 2,      C = cumulated counts in order.

Spearman's correlation of a resample is the correlation of such ranks, weighted with the counts.
To keep the ranks of the whole data instead would leave out that ranks are estimates themselves.
"""

from typing import final

import numpy as np
import numpy.typing as npt

from turnover.stats._extras import Array, stats

__all__ = [
    "Mask",
    "Order",
    "correlation",
    "ranks",
    "subset_sums",
    "top_hits",
    "weighted_pearson",
    "weighted_spearman",
]

Mask = npt.NDArray[np.bool_]
ROUNDING = 1e-12  # of moments of standardised values in float64


def ranks(values: Array) -> Array:
    """Ranks along the last axis, from 1 on, ties averaged."""
    ranked: Array = stats().rankdata(values, axis=-1)
    return ranked


def correlation(a: Array, b: Array) -> Array:
    """Pearson's correlation of each row; NaN where one side is constant."""
    x, y = centred(a), centred(b)
    constant = (np.ptp(a, axis=-1) == 0) | (np.ptp(b, axis=-1) == 0)
    size = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    return np.where(constant, np.nan, (x * y).sum(axis=-1) / np.where(constant, 1, size))


def centred(values: Array) -> Array:
    """Deviations from the mean of each row, the largest of size 1: squares never vanish."""
    deviations = values - values.mean(axis=-1, keepdims=True)
    largest = np.abs(deviations).max(axis=-1, keepdims=True)
    scaled: Array = deviations / np.where(largest > 0, largest, 1)
    return scaled


def subset_sums(values: Array, members: Mask) -> Array:
    """Σ_{z∈S} score(q, z), ``[query, subset]``, up to a positive factor per query.

    Scores are rounded to whole multiples of a power of two. It is so fine that it loses 2⁻⁴⁰ of the
    largest, and so coarse that float64 holds all sums exactly. Subsets with equal sums are then
    ties, in whatever order the machine adds; otherwise rounding would rank constant scores.
    """
    bits = 52 - members.shape[1].bit_length()
    _, exponent = np.frexp(np.abs(values).max(axis=1, keepdims=True))
    whole = np.rint(np.ldexp(values, bits - exponent))
    sums: Array = whole @ members.T.astype(np.float64)
    return sums


def top_hits(values: Array, relevant: Mask, k: int) -> Array:
    """Expected number of relevant items among the k highest of each row, ties at random."""
    last = np.partition(values, -k, axis=1)[:, -k, None]
    above, tied = values > last, values == last
    places = k - above.sum(axis=1)
    return (above & relevant).sum(axis=1) + places * (tied & relevant).sum(axis=1) / tied.sum(1)


@final
class Order:
    """One list of values in order, with its ties: sorted once, asked for every resample."""

    def __init__(self, values: Array) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._start = np.searchsorted(ordered, values, side="left")
        self._end = np.searchsorted(ordered, values, side="right")

    def below(self, counts: Array) -> tuple[Array, Array]:
        """Copies below each item, and copies up to its ties, both ``[item, resample]``."""
        cumulated = np.zeros((len(counts) + 1, counts.shape[1]))
        np.cumsum(counts[self._order], axis=0, out=cumulated[1:])
        return cumulated[self._start], cumulated[self._end]

    def ranks(self, counts: Array) -> Array:
        """Rank of each item in each resample, ``[item, resample]``; ties averaged."""
        before, upto = self.below(counts)
        return (before + upto + 1) / 2

    def precision(self, counts: Array, relevant: Mask, k: int) -> Array:
        """Share of relevant copies among the k highest of each resample; ties at random."""
        before, upto = self.below(counts)
        above = counts.sum(axis=0) - upto
        tied = upto - before
        taken = np.clip(k - above, 0, tied) / np.where(tied > 0, tied, 1)
        share: Array = (taken * counts)[relevant].sum(axis=0) / k
        return share

    def auc(self, counts: Array, relevant: Mask) -> Array:
        """P(relevant > other) + P(equal) / 2 in each resample: the area under the ROC curve.

        (Σ ranks of the relevant − R (R + 1) / 2) / (R · others), the statistic of Mann, Whitney.
        """
        hits = counts[relevant]
        found, total = hits.sum(axis=0), counts.sum(axis=0)
        summed = (hits * self.ranks(counts)[relevant]).sum(axis=0)
        area: Array = (summed - found * (found + 1) / 2) / (found * (total - found))
        return area


def weighted_pearson(x: Array, y: Array, counts: Array) -> Array:
    """Pearson's correlation in each resample, ``[resample]``; NaN where one side is constant."""
    x, y = (v / np.sqrt((v * v).mean()) for v in (centred(x), centred(y)))
    moments = np.stack([x, y, x * x, y * y, x * y]) @ counts / counts.sum(axis=0)
    mx, my, mxx, myy, mxy = moments
    spread = np.clip(mxx - mx * mx, 0, None) * np.clip(myy - my * my, 0, None)
    return _ratio(mxy - mx * my, np.where(spread > ROUNDING, spread, 0))


def weighted_spearman(x: Array, y: Array, counts: Array) -> Array:
    """Spearman's correlation in each resample, ``[resample]``; NaN where one side is constant."""
    middle = (counts.sum(axis=0) + 1) / 2
    a, b = (Order(v).ranks(counts) - middle for v in (x, y))
    weighted = counts * a
    spread = (weighted * a).sum(axis=0) * (counts * b * b).sum(axis=0)
    return _ratio((weighted * b).sum(axis=0), spread)


def _ratio(shared: Array, spread: Array) -> Array:
    return np.divide(shared, np.sqrt(spread), out=np.full(len(spread), np.nan), where=spread > 0)
