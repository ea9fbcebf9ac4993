"""Scores that were computed elsewhere, in the shape of an estimator."""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import IdError
from turnover.estimators._estimator import FittedRows, PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["ExternalScores"]


@final
@dataclass(frozen=True)
class ExternalScores(PairwiseEstimator):
    """Scores of another library, or of an earlier day, looked up by ids.

    Attributes:
        known: scores ``[query, train]`` of all queries and instances that will be asked about.

    >>> import torch, turnover
    >>> values, ids = torch.tensor([[1.0, -2.0, 3.0]]), torch.arange(3)
    >>> known = turnover.Scores(values, ids, query_ids=torch.tensor([9]))
    >>> rows = turnover.Rows(torch.zeros(2, 1), ids=[2, 1])
    >>> query = turnover.Rows(torch.zeros(1, 1), ids=[9])
    >>> turnover.estimators.ExternalScores(known).fit(rows).scores(query).values
    tensor([[ 3., -2.]])
    """

    known: Scores

    def fit(self, rows: Rows) -> FittedRows:
        """Look up the rows.

        Raises:
            IdError: for a row without scores.
        """
        _places(self.known.train_ids, rows.ids, "training row")
        return FittedRows(self, rows, self.known.values.element_size() * len(self.known.values))

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]`` by id; a batch without ids has those from 0 on.

        Raises:
            IdError: for a query or row without scores.
        """
        known = self.known
        asked = as_rows(queries).ids
        at = _places(known.query_ids, asked, "query")
        z = _places(known.train_ids, rows.ids, "training row")
        return replace(
            known,
            values=known.values[at][:, z],
            train_ids=known.train_ids[z],
            query_ids=known.query_ids[at],
            labels=None if known.labels is None else known.labels[z],
            stderr=None if known.stderr is None else known.stderr[at][:, z],
            t=None if known.t is None else known.t[at][:, z],
            null_scores=None if known.null_scores is None else known.null_scores[at],
        )


def _places(known: Tensor, wanted: Tensor, what: str) -> Tensor:
    place = {id: position for position, id in enumerate(known.tolist())}
    missing = [id for id in wanted.tolist() if id not in place]
    if missing:
        raise IdError(
            f"{len(missing)} of {len(wanted)} ids have no external score, such as that of the "
            f"{what} {missing[0]}. Scores are found by id: give the rows the ids under which they "
            "were scored."
        )
    return torch.tensor([place[id] for id in wanted.tolist()], dtype=torch.int64)
