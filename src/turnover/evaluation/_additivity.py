"""How much of what re-training does could any sum of scores say? The additive ceiling.

A sum over the members of a subset S, less its mean, changes its sign when S gives way to its
complement Sᶜ: it is *odd*. With f the mean loss of a query after training on a random half, without
the chance of training,

    f(S) − mean f = odd(S) + even(S),        corr(f(S), f(Sᶜ)) = (V_even − V_odd) / (V_even + V_odd)
    share = V_odd / (V_odd + V_even),        ceiling = √share · √reliability

No additive score can correlate better with the truth than its odd part does, however good it is.
The variance without chance is the covariance of different seeds on the same subset. The ceiling is
a correlation of values. The LDS is one of ranks, whose ceiling is near this one on either side.
"""

from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from turnover.baselines import Truth
from turnover.errors import DataError
from turnover.evaluation._reliability import ceiling

__all__ = ["Additivity", "additivity"]

LEAST = 3


@final
@dataclass(frozen=True, eq=False)
class Additivity:
    """The part of a truth that sums of scores can predict.

    Attributes:
        share: V_odd / (V_odd + V_even), median over the queries, from 0 to 1.
        ceiling: correlation with the truth that a perfect sum of scores would reach, mean over the
            queries; None where no query has a share.
        per_query: share of every query ``float64 [query]``; NaN where seeds agree on nothing, so
            that all variance may be chance.
        pairs: complementary pairs of subsets.
        left_out: queries without a share.
    """

    share: float | None
    ceiling: float | None
    per_query: Tensor
    pairs: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single queries, as plain JSON values."""
        return {k: v for k, v in asdict(self).items() if k != "per_query"}

    def __str__(self) -> str:
        if self.share is None:
            return "Seeds agree on nothing here, so that no part of this truth is known to be odd."
        return (
            f"{self.share:.0%} of what re-training does to a loss, chance apart, turns its sign "
            f"with the complement of a subset. Sums of scores correlate with it by at most "
            f"{self.ceiling:.2f}."
        )


def additivity(truth: Truth) -> Additivity:
    """The additive share of a truth whose subsets come with their complements.

    Args:
        truth: losses after re-training with two seeds at least; half of the subsets, in any order,
            are complements of the others (``half_subsets(..., complements=True)``).

    Raises:
        DataError: for one seed, or fewer than three complementary pairs.
        MissingExtra: when SciPy is not installed.
    """
    if truth.losses.shape[1] < 2:
        raise DataError(
            "A truth of one seed does not tell chance from what subsets do. Train with two at "
            "least."
        )
    first, second = _pairs(truth.members)
    if len(first) < LEAST:
        raise DataError(
            f"{len(first)} of {len(truth.members)} subsets have their complement in this truth, "
            f"and at least {LEAST} must. Make them with half_subsets(..., complements=True)."
        )
    losses = truth.losses.double()[torch.cat([first, second])]
    losses = losses - losses.mean(dim=0)  # of each seed: one may be better than another on all
    left, right = losses.mean(dim=1).chunk(2)
    across = (left * right).mean(dim=0)
    whole = _covariance_of_seeds(losses)
    share = ((1 - across / whole) / 2).clamp(0, 1)
    share[whole <= 0] = torch.nan
    known = share[share.isfinite()]
    if not len(known):
        return Additivity(None, None, share, len(first), len(share))
    noise = ceiling(truth)
    best = None if noise is None else float(known.sqrt().mean()) * noise
    middle = float(known.median())
    return Additivity(middle, best, share, len(first), len(share) - len(known))


def _covariance_of_seeds(losses: Tensor) -> Tensor:
    """Mean product over subsets of different seeds, ``[query]``: variance without chance."""
    products = losses.sum(dim=1).square() - losses.square().sum(dim=1)
    found: Tensor = products.mean(dim=0) / (losses.shape[1] * (losses.shape[1] - 1))
    return found


def _pairs(members: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of subsets and of their complements, each pair once."""
    known = {row.numpy().tobytes(): n for n, row in enumerate(members.cpu())}
    found = [
        (n, known[other])
        for n, row in enumerate(members.cpu())
        if (other := (~row).numpy().tobytes()) in known and n < known[other]
    ]
    both = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
