"""How well does the truth agree with itself? Its reliability, and the ceiling of any estimator.

A loss after re-training moves with the subset, which scores should predict, and with the seed,
which they cannot. With losses averaged over two disjoint halves of h seeds each,

    r           = mean over queries and splits of Spearman_S(mean of one half, mean of the other)
    reliability = k r / (1 + (k − 1) r),      k = seeds / h,     the same for the mean of all seeds
    ceiling     = √reliability,               the correlation of the noiseless truth with the mean.

Both steps are exact for correlations of values whose noise is independent of the subset, and close
for ranks. Both are concave, so queries of unequal reliability make the ceiling a little too high,
never too low. It errs against the estimator.

References: Spearman 1910; Brown 1910 ("Some experimental results in the correlation of mental
abilities").
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, final

import numpy as np

from turnover.baselines import Truth
from turnover.errors import DataError
from turnover.stats import Array, correlation, ranks

__all__ = ["Reliability", "ceiling", "reliability"]

Half = tuple[int, ...]


@final
@dataclass(frozen=True)
class Reliability:
    """Agreement of a truth with what other seeds would have said.

    Attributes:
        value: reliability of the mean over all seeds; None for one seed.
        ceiling: its square root, at least 0; None for one seed.
        halves: rank correlation between halves of the seeds, before it was stepped up.
        seeds: number of seeds.
        note: what to know about it, in words; empty when there is nothing.
    """

    value: float | None
    ceiling: float | None
    halves: float | None
    seeds: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def reliability(truth: Truth, *, splits: int = 100, seed: int = 0) -> Reliability:
    """Reliability of a truth by split halves of its seeds.

    A half that is the same for all subsets agrees with nothing: its correlation counts as 0.

    Args:
        truth: losses after re-training; with an odd number of seeds, each split leaves one out.
        splits: all splits are taken if there are at most so many, else so many random ones.
        seed: of random splits.

    Raises:
        DataError: for a query whose truth is the same for all subsets, or no split.
        MissingExtra: when SciPy is not installed.
    """
    seeds = truth.losses.shape[1]
    if splits < 1 or not truth.losses.numel():
        raise DataError(
            f"{splits} splits of losses of shape {list(truth.losses.shape)} have no mean."
        )
    _refuse_constant(truth)
    if seeds == 1:
        return Reliability(
            None,
            None,
            None,
            1,
            "There is one seed, so nothing tells what the subset did to a loss from what chance "
            "did. Train each subset with two seeds at least.",
        )
    outputs = -truth.losses.detach().cpu().double().numpy().transpose(1, 2, 0)
    found = [_agreement(outputs, *halves) for halves in _splits(seeds, splits, seed)]
    r, k = float(np.mean(found)), seeds / (seeds // 2)
    if r <= 0:
        return Reliability(
            r,
            0.0,
            r,
            seeds,
            "Halves of the seeds do not agree: this truth is noise. Train with more seeds.",
        )
    value = k * r / (1 + (k - 1) * r)
    return Reliability(value, math.sqrt(value), r, seeds)


def ceiling(truth: Truth) -> float | None:
    """√reliability: the LDS of a perfect estimator. None for a truth of one seed.

    Raises:
        TurnoverError: as :func:`reliability`.
    """
    return reliability(truth).ceiling


def _agreement(outputs: Array, first: Half, second: Half) -> float:
    """Mean over queries of the correlation of two halves of outputs ``[seed, query, subset]``."""
    halves = (ranks(outputs[list(half)].mean(axis=0)) for half in (first, second))
    return float(np.nan_to_num(correlation(*halves)).mean())


def _splits(seeds: int, most: int, seed: int) -> Iterator[tuple[Half, Half]]:
    half = seeds // 2
    if math.comb(seeds, half) * math.comb(seeds - half, half) // 2 <= most:
        for first in combinations(range(seeds), half):
            others = [e for e in range(seeds) if e not in first]
            yield from ((first, s) for s in combinations(others, half) if first[0] < s[0])
        return
    generator = np.random.default_rng(seed)
    for _ in range(most):
        order = generator.permutation(seeds).tolist()
        yield tuple(order[:half]), tuple(order[half : 2 * half])


def _refuse_constant(truth: Truth) -> None:
    outputs = truth.outputs
    if bool((flat := outputs.amax(dim=0) == outputs.amin(dim=0)).any()):
        raise DataError(
            f"The truth of query {int(truth.query_ids[flat][0])} is the same for every subset, as "
            f"for {int(flat.sum())} of {len(flat)} queries, so it has no reliability. Leave such "
            "queries out with truth.select."
        )
