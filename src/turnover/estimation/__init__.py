"""Scores from one trained model: L(unseen_z, q) − L(seen_z, q), in nats, positive = helped."""

from turnover.estimation._exact import Exact

__all__ = ["Exact"]
