"""The truth, and the rivals of turn-over dropout, under one outline.

Every estimator ends in :class:`turnover.Scores` ``[query, train]``, in nats, positive = helped.
``Retraining`` says what is true: it trains again without some instances.
"""

from turnover.baselines._retraining import LeaveOneOut, Retraining, half_subsets
from turnover.baselines._truth import Truth

__all__ = [
    "LeaveOneOut",
    "Retraining",
    "Truth",
    "half_subsets",
]
