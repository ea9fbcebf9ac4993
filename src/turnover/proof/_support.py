"""Which rows support what the model says, and what removing them is predicted to do.

    d(z)      = I(q with the label said, z) − I(q with the label wanted, z)
    effect(k) = Σ_{i ≤ k} d(z_i)

with z_1, z_2, … in descending order of d. A score is the loss without z minus with it, and the
log-odds log p(said) − log p(wanted) are a difference of two losses: to first order they fall by
effect(k) when the first k rows are removed. The largest of many noisy numbers are largest by luck
too, so that the prediction is a first guess on the hopeful side.

References: Yang, Jain, Wallace 2023; Ilyas et al. 2022.
"""

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.proof._change import Change
from turnover.proof._question import Question, with_labels
from turnover.scores import Scores

__all__ = ["FittedEstimator", "Support", "support_of"]


class FittedEstimator(Protocol):
    """Whatever scores queries against one training set."""

    def scores(self, queries: Rows, /) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Support:
    """The rows that speak for what the model says, the strongest first.

    Attributes:
        order: ``int64 [supporting]``, rows of the training set; those with d(z) > 0.
        effect: predicted fall of the log-odds without the first 1, 2, … of them, float64
            ``[supporting]`` in nats.
        stderr: its standard error over pairs of networks; None where there are no pairs.
    """

    order: Tensor
    effect: Tensor
    stderr: Tensor | None

    def first_guess(self, distance: float) -> int:
        """The smallest k whose predicted effect covers this distance; all rows if none does."""
        enough = torch.nonzero(self.effect >= distance).flatten()
        return int(enough[0]) + 1 if len(enough) else len(self.order)


def support_of(
    estimator: FittedEstimator,
    question: Question | Change,
    query: Rows,
    train: Rows,
    label: str | int,
    unit: float = 1.0,
) -> Support:
    """Rank the training rows by the difference of two scores of the query.

    Args:
        estimator: scores the query against the training rows.
        question: what is asked.
        query: one row.
        train: the training rows.
        label: the label of a row, as a key of the batch or a place in it.
        unit: what a difference of one in the prediction is in scores: 1 for classes.

    Raises:
        ScoreError: for scores that are not finite, or are about other rows.
        DataError: for a query without a label of that name.
    """
    asked = with_labels(query, question.labels, label)
    by_pair = getattr(estimator, "by_pair", None)
    if by_pair is not None:
        found = by_pair(asked).double()
        each = found[:, 0] - found[:, 1]
    else:
        scores = estimator.scores(asked)
        _refuse_other_rows(scores, train)
        each = (scores.values[0] - scores.values[1]).double().cpu().unsqueeze(0)
    if each.shape[1] != len(train):
        raise ScoreError(f"Found {each.shape[1]} scores for {len(train)} training rows.")
    if not torch.isfinite(each).all():
        raise ScoreError(
            "Scores of this query are not all finite, so that no rows can be ranked by them. "
            "Check its loss with both labels."
        )
    each = each / unit
    mean = each.mean(dim=0)
    order = torch.argsort(mean, descending=True, stable=True)
    order = order[mean[order] > 0]
    sums = each[:, order].cumsum(dim=1)
    error = sums.std(dim=0) / len(each) ** 0.5 if len(each) > 1 else None
    return Support(order, sums.mean(dim=0), error)


def _refuse_other_rows(scores: Scores, train: Rows) -> None:
    if not torch.equal(scores.train_ids.cpu(), train.ids):
        raise ScoreError(
            f"The scores are about {len(scores.train_ids)} rows with other ids, or in another "
            f"order, than the {len(train)} training rows. Score the rows that are trained on."
        )
