"""How far would a number move, had other queries, subsets or instances been drawn?

A bootstrap resample is written as counts: how often it holds each item. A statistic of a resample
is then a weighted statistic of the data, and nothing is copied or sorted again.

Where queries alone were drawn, an interval is the central 95 % of the resampled means. Where a
second sample was drawn too, subsets or instances, the mean of the statistics t_q has the variance

    V = V(queries) + V(items) − V(both),      the bootstrap resampling the items, not the queries
    V(queries) = Var_q(t_q) / Q,              it holds what the items do to each query by itself,
    V(items)   = Var*(mean_q t*_q),           as does this,
    V(both)    = mean_q Var*(t*_q) / Q,       which therefore is counted once too often.

To resample both at once would count it three times (Owen 2007), and copies of one item are ties,
which pull rank correlations towards 0: standard errors survive that, percentiles do not. So the
interval is value ± t √V, on Fisher's scale artanh(value) where the statistic has a limit, with
Satterthwaite's degrees of freedom for t. It covers what it should from 20 queries on, more than
that with fewer, and takes a single query as it is.

References: Efron 1979 ("Bootstrap methods"); Cameron, Gelbach, Miller 2011 (V of two-way samples);
Owen 2007 ("The pigeonhole bootstrap"); Fisher 1921 (artanh); Satterthwaite 1946.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import final

import numpy as np

from turnover.errors import DataError
from turnover.stats._extras import Array, stats

__all__ = [
    "Estimate",
    "Statistic",
    "bootstrap_draws",
    "estimate",
    "mean_of",
    "resamples",
    "two_way_interval",
]

Statistic = Callable[[Array, Array, Array], Array]

TAIL = 0.025
TINY = 1e-12
ELEMENTS = 1 << 22
FEWEST = 100


@final
@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval.

    Attributes:
        value: the number itself, from all the data.
        low: where the interval begins; None without a bootstrap.
        high: where it ends; None without a bootstrap.
    """

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """The numbers as plain JSON values."""
        return asdict(self)


def estimate(value: float, samples: Array) -> Estimate:
    """A number with the interval of its resamples ``[resample]``.

    Resamples in which the statistic is not defined are NaN and say nothing.
    """
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return Estimate(float(value), None, None)
    low, high = np.quantile(defined, (TAIL, 1 - TAIL))
    return Estimate(float(value), float(low), float(high))


def mean_of(per_query: Array, bootstrap: int, seed: int) -> Estimate:
    """Mean over queries ``[query]``, which are drawn anew; a single one has no interval."""
    bootstrap = bootstrap if len(per_query) > 1 else 0
    means = [per_query @ c / len(per_query) for c in resamples(len(per_query), bootstrap, seed)]
    return estimate(per_query.mean(), np.concatenate(means) if means else np.empty(0))


def bootstrap_draws(statistic: Statistic, a: Array, b: Array, blocks: list[Array]) -> Array:
    """A statistic of the rows of two arrays ``[query, item]`` in resamples of the items.

    Returns:
        ``[query, resample]``.
    """
    none = np.empty(0)
    return np.stack(
        [
            np.concatenate([none, *(statistic(x, y, counts) for counts in blocks)])
            for x, y in zip(a, b, strict=True)
        ]
    )


def two_way_interval(
    per_query: Array, draws: Array, items: int, limit: float | None = 1.0
) -> Estimate:
    """Mean over queries of a statistic of a second sample: of subsets, or of instances.

    Args:
        per_query: the statistic ``[query]``.
        draws: the same in resamples of the second sample, ``[query, resample]``. One that is not
            defined there is NaN, and counts as the statistic itself.
        items: size of the second sample.
        limit: the largest value the mean can take, in size; None if there is none.
    """
    queries, count = draws.shape
    value = float(per_query.mean())
    if not count:
        return Estimate(value, None, None)
    draws = np.where(np.isnan(draws), per_query[:, None], draws)
    of_queries = float(per_query.var(ddof=1)) / queries if queries > 1 else 0.0
    of_items = float(draws.mean(axis=0).var(ddof=1))
    of_both = float(draws.var(axis=1, ddof=1).mean()) / queries
    variance = max(of_queries + of_items - of_both, of_queries, of_items)
    if variance == 0:
        return Estimate(value, value, value)
    freedom = variance**2 / (of_queries**2 / max(1, queries - 1) + of_items**2 / (items - 1))
    reach = float(stats().t.ppf(1 - TAIL, freedom)) * math.sqrt(variance)
    if limit is None:
        return Estimate(value, value - reach, value + reach)
    share = min(max(value / limit, TINY - 1), 1 - TINY)
    reach /= limit * (1 - share**2)
    low, high = (limit * math.tanh(math.atanh(share) + side * reach) for side in (-1, 1))
    return Estimate(value, low, high)


def resamples(
    items: int, count: int, seed: int, stream: int = 0, *, room: int | None = None
) -> Iterator[Array]:
    """Blocks ``[item, resample]`` of how often each resample holds each item.

    The draws depend on the seed and not on the size of the blocks, which bounds the memory.

    Args:
        items: size of the sample.
        count: number of resamples.
        seed: of the draws.
        stream: another one for each sample that is drawn beside others.
        room: number of items to bound the memory of a block for, if not those of this sample.

    Raises:
        DataError: for a number of resamples from which no interval can be read.
    """
    if count and count < FEWEST:
        raise DataError(
            f"{count} resamples do not give the ends of a 95 % interval; use 0 for none, or at "
            f"least {FEWEST}."
        )
    generator = np.random.default_rng((seed, stream))
    block = max(1, ELEMENTS // (room or items))
    for start in range(0, count, block):
        size = (min(block, count - start), items)
        drawn = generator.integers(items, size=size) + items * np.arange(size[0])[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(size)
        yield np.ascontiguousarray(counts.T, dtype=np.float64)
