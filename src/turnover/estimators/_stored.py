"""Scores that were made before, in the shape of an estimator that knows its training set."""

from dataclasses import dataclass
from typing import final

import torch

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import as_rows
from turnover.scores import Kind, Ranking, Scores

__all__ = ["StoredScores"]


@final
@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores of a few queries, read from where they were kept, for :func:`turnover.explain`.

    Attributes:
        kept: the scores ``[query, train]`` in nats.
        pairs: pairs of networks that they are means of; 0 for none.
        agreement: as of :class:`FittedKernel`; None for fewer than two pairs.

    >>> import torch, turnover
    >>> from turnover.estimators import StoredScores
    >>> kept = turnover.Scores(torch.tensor([[0.5, -0.1]]), torch.tensor([7, 9]), torch.tensor([3]))
    >>> stored = StoredScores(kept, pairs=0, agreement=None)
    >>> stored.top(turnover.Rows(torch.zeros(1, 4), torch.tensor([3])), k=1).ids
    tensor([[7]])
    """

    kept: Scores
    pairs: int
    agreement: float | None

    def scores(self, queries: Batch | Rows) -> Scores:
        """The scores of these very queries.

        Raises:
            ScoreError: for other queries than those that were kept.
        """
        asked = as_rows(queries).ids
        if not torch.equal(asked, self.kept.query_ids):
            raise ScoreError(
                f"These scores were kept for queries with ids {self.kept.query_ids[:5].tolist()}, "
                f"but ids {asked[:5].tolist()} were asked about. Ask the estimator itself."
            )
        return self.kept

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        """The k best instances of every query, ``[query, k]``.

        Raises:
            ScoreError: as :meth:`scores`, and for k below 1 or above the number of instances.
        """
        return self.scores(queries).top(k, kind)
