"""Which numbers are wrong? Those far from what networks that never saw the row predict.

residual    r = label − prediction of the unseen half
z           r / (1.4826 · median |r|), a deviation that outliers do not move (Hampel 1974)
p           two-sided, if residuals were normal; q by Benjamini and Hochberg
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from turnover.cleansing._inspection import Inspection, copies, with_near
from turnover.cleansing._near import NearCopies
from turnover.errors import DataError
from turnover.stats import benjamini_hochberg

__all__ = ["inspect_residuals", "residual_errors"]

LEVEL = 0.05
NORMAL = 1.4826  # standard deviation / median absolute value of a normal distribution
FINDER = f"residuals beyond those of most, q ≤ {LEVEL:g}"


def residual_errors(predicted: Tensor, labels: Tensor) -> Tensor:
    """Which labels are probably wrong, bool ``[rows]``.

    Args:
        predicted: predictions ``[rows]`` of networks that never saw the row.
        labels: numbers ``[rows]``, in the same unit.

    Raises:
        DataError: for shapes that do not fit together, or predictions that are no numbers.
    """
    if predicted.shape != labels.shape or predicted.dim() != 1:
        raise DataError(
            f"Predictions {list(predicted.shape)} and labels {list(labels.shape)} must both be "
            "one number for each row."
        )
    residual = (labels.double() - predicted.double()).abs()
    if not bool(torch.isfinite(residual).all()):
        raise DataError(
            "The network predicts values that are no finite numbers, so that nothing can be said "
            "of its rows. Train it again with a lower lr."
        )
    usual = NORMAL * residual.median() if len(residual) else residual.sum()
    if not usual > 0:
        return torch.zeros(len(labels), dtype=torch.bool)
    p = torch.special.erfc(residual / usual / 2**0.5)
    return benjamini_hochberg(p) <= LEVEL


def inspect_residuals(
    unseen: Tensor,
    seen: Tensor,
    labels: Tensor,
    contents: Sequence[Hashable],
    near: NearCopies | None = None,
) -> Inspection:
    """Inspect the training set of a regression.

    Args:
        unseen: predictions ``[rows]`` of every row in its unseen half, in standard deviations.
        seen: the same in its seen half.
        labels: ``float32 [rows]``, in standard deviations.
        contents: what makes two rows copies of each other, one per row.
        near: as in :func:`inspect_rows`.

    Raises:
        DataError: as :func:`residual_errors`.
    """
    suspect = residual_errors(unseen, labels)
    group, conflict = copies(contents, labels)
    losses = [(labels - found).square() / 2 for found in (unseen, seen)]
    found = Inspection(labels, unseen, losses[0], losses[1], suspect, group, conflict, FINDER)
    return with_near(found, near)
