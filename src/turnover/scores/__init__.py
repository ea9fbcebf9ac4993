"""The contract of every estimator: scores ``[query, train]`` in nats, positive = helped."""

from turnover.scores._scores import Ranking, Scores

__all__ = ["Ranking", "Scores"]
