"""The contract of every estimator: scores ``[query, train]`` in nats, positive = helped."""

from turnover import _renamed
from turnover.scores._scores import (
    Kind as Kind,
    Ranking as Ranking,
    Scores,
    refuse_other_kinds as refuse_other_kinds,
)

__all__ = ["Scores"]

__getattr__ = _renamed.old_name(__name__)
