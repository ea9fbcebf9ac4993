"""The contract of every estimator: scores ``[query, train]`` in nats, positive = helped."""

from turnover.scores._scores import Ranking, Scores
from turnover.scores._significance import GhostNull, Significance, benjamini_hochberg, testable

__all__ = ["GhostNull", "Ranking", "Scores", "Significance", "benjamini_hochberg", "testable"]
