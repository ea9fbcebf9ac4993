"""Which training rows are wrong or do harm, and does the model gain when they are gone?

``inspect_rows`` looks at a training set through predictions that did not see it: suspected label
errors, what was memorised, copies and their conflicts. ``near_texts`` and ``near_pictures`` find
what is nearly equal, also between training and test rows (``overlap``).

For a target set, scores are summed, T(z) = Σ_q I(q, z), by any estimator. ``Sweep`` removes the
instances of the lowest totals, trains again without turn-over dropout, and compares with random
removal and none; ``cells_of`` tests the gains, paired by seed and by test row, and ``conclude``
says what follows, also when it is "no significant gain".
"""

from turnover import _renamed
from turnover.cleansing._confident import label_errors
from turnover.cleansing._inspection import Inspection as Inspection, copies as copies, inspect_rows
from turnover.cleansing._near import (
    NearCopies as NearCopies,
    Overlap as Overlap,
    near_sets as near_sets,
    overlap,
)
from turnover.cleansing._near_pictures import near_pictures
from turnover.cleansing._near_texts import near_texts
from turnover.cleansing._residuals import inspect_residuals, residual_errors as residual_errors
from turnover.cleansing._sweep import (
    NONE as NONE,
    RANDOM as RANDOM,
    Outcome as Outcome,
    Sweep,
    most_harmful as most_harmful,
)
from turnover.cleansing._totals import (
    first_order_totals as first_order_totals,
    kernel_totals as kernel_totals,
    loss_totals as loss_totals,
    totals_of as totals_of,
    two_pass_totals as two_pass_totals,
)
from turnover.cleansing._verdict import Cell as Cell, cells_of, conclude

__all__ = [
    "Sweep",
    "cells_of",
    "conclude",
    "inspect_residuals",
    "inspect_rows",
    "label_errors",
    "near_pictures",
    "near_texts",
    "overlap",
]

__getattr__ = _renamed.old_name(__name__)
