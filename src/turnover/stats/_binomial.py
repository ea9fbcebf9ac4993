"""Exact statistics of counts: the interval of a share, and paired tests.

For x successes of n with the unknown share π, the interval of Clopper and Pearson is

    low:  P(X ≥ x | n, low) = α/2,        high:  P(X ≤ x | n, high) = α/2,

and holds π at least as often as it says, however few the trials. A paired test looks only at the
pairs that differ: if neither side were better, b of b + c of them would go one way with the
probability of b heads of b + c coins.

References: Clopper, Pearson 1934; McNemar 1947; Arbuthnott 1710 (the sign test).
"""

import math
from collections.abc import Callable, Sequence

from turnover.errors import DataError
from turnover.stats._intervals import Estimate

__all__ = ["binomial_interval", "mcnemar", "sign_test"]

HALVINGS = 60  # a float64 between 0 and 1 has no more digits


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """The share of successes with its exact interval.

    Raises:
        DataError: for no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise DataError(f"{successes} successes of {trials} trials are no share.")
    tail = (1 - level) / 2
    low = _solved(lambda p: _at_least(successes, trials, p) < tail) if successes else 0.0
    high = _solved(lambda p: 1 - _at_least(successes + 1, trials, p) > tail)
    return Estimate(successes / trials, low, high if successes < trials else 1.0)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Two-sided exact p-value: do two treatments of the same pairs succeed equally often?

    Raises:
        DataError: for different numbers of outcomes.
    """
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} outcomes cannot be paired with {len(theirs)}.")
    return sign_test([int(a) - int(b) for a, b in zip(ours, theirs, strict=True)])


def sign_test(differences: Sequence[float]) -> float:
    """Two-sided exact p-value: is a difference above zero as often as below? Zeros tell nothing."""
    above = sum(d > 0 for d in differences)
    below = sum(d < 0 for d in differences)
    return min(1.0, 2 * _at_least(max(above, below), above + below, 0.5))


def _at_least(successes: int, trials: int, p: float) -> float:
    """P(X ≥ successes) of a binomial distribution."""
    counts = range(successes, trials + 1)
    return math.fsum(math.comb(trials, x) * p**x * (1 - p) ** (trials - x) for x in counts)


def _solved(below: Callable[[float], bool]) -> float:
    """The p in [0, 1] at which ``below`` turns from true to false."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
