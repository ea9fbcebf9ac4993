"""Is one way of training better than another? Paired by seed and by test row.

With d[s, r] the difference on test row r after trainings with the same seed s,

    d̄ = mean of all d
    V  = Var_s(mean_r d)/S + Var_r(mean_s d)/R − Var(e)/(S R)
    e  = d − mean_r d − mean_s d + d̄,  which the two other variances both contain

and t = d̄/√V with Satterthwaite's degrees of freedom speaks about other seeds *and* other test rows
of the same kind. The usual paired t-test over seeds, given beside it, takes the test set for the
whole world. Where several comparisons are made, p-values are Holm's.

References: Student 1908; Satterthwaite 1946; Henderson 1953 (V of a two-way table); Holm 1979.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from torch import Tensor

from turnover.errors import DataError, MissingExtra

__all__ = ["Paired", "compare_paired", "holm"]

LEVEL = 0.05


@final
@dataclass(frozen=True)
class Paired:
    """A difference between two ways of training.

    Attributes:
        mean: mean difference.
        low: where its 95 % interval over seeds and test rows begins.
        high: where it ends.
        p: two-sided probability of such a difference if there were none; over seeds and test rows.
        p_seeds: the same over seeds alone.
    """

    mean: float
    low: float
    high: float
    p: float
    p_seeds: float

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return asdict(self)


def compare_paired(ours: Tensor, theirs: Tensor) -> Paired:
    """The difference ours − theirs of two tables ``[seed, test row]`` of the same trainings.

    Raises:
        DataError: for tables of different shapes, or fewer than two seeds or test rows.
        MissingExtra: when SciPy is not installed.
    """
    if ours.shape != theirs.shape or ours.dim() != 2 or min(ours.shape) < 2:
        raise DataError(
            f"Found tables of shapes {list(ours.shape)} and {list(theirs.shape)}; a paired test "
            "needs two of the same shape [seed, test row], with at least two of each."
        )
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtra("scipy", "eval", "A paired test") from None
    d = ours.double() - theirs.double()
    seeds, rows = d.shape
    by_seed, by_row = d.mean(dim=1), d.mean(dim=0)
    mean = float(d.mean())
    of_seeds, of_rows = float(by_seed.var() / seeds), float(by_row.var() / rows)
    rest = d - by_seed.unsqueeze(1) - by_row + mean
    both = float(rest.square().sum() / ((seeds - 1) * (rows - 1) * seeds * rows))
    variance = max(of_seeds + of_rows - both, of_seeds, of_rows)
    if variance == 0:  # every seed and row tells the same
        p = 1.0 if mean == 0 else 0.0
        return Paired(mean, mean, mean, p, p)
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_rows**2 / (rows - 1))
    error = variance**0.5
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    alone = of_seeds**0.5
    p_seeds = float(2 * stats.t.sf(abs(mean) / alone, seeds - 1)) if alone else float(mean == 0)
    return Paired(mean, mean - half, mean + half, p, p_seeds)


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that any false discovery has the stated probability.

    p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j)) for m tests in ascending order.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected
