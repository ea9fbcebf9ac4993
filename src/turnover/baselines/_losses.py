"""Controls that look at the loss of an instance, and not at the query.

    I(q, z) = −L(f(z), z)        or, of a converted model,        −L(f^m̃(z), z)

An instance with a high loss counts as harmful to every query. A method of attribution that does
not find wrong labels better than this has found no more than hard instances.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss
from turnover.data import Rows
from turnover.errors import LossError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores
from turnover.training import losses_of

__all__ = ["TrainingLoss", "UnseenLoss", "finite_losses"]


@final
@dataclass(frozen=True)
class TrainingLoss(PairwiseEstimator):
    """Minus the loss of the instance, in the full network.

    Attributes:
        model: the trained model; run in evaluation mode, and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
    """

    model: nn.Module
    loss: Loss

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]`` in nats, the same for every query.

        Raises:
            DataError: for no queries or rows.
            LossError: for losses of a wrong shape, or that are not finite.
        """
        return _for_all(queries, rows, self.self_scores(rows), "training loss")

    def self_scores(self, rows: Rows) -> Tensor:
        """The loss of every row, ``float32 [train]``: what influence on itself must surpass."""
        return finite_losses(self.model, self.loss, as_rows(rows))


@final
@dataclass(frozen=True)
class UnseenLoss(PairwiseEstimator):
    """Minus the loss of the instance, in the sub-network that never saw it.

    Attributes:
        model: a converted, trained model; run in evaluation mode, and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
    """

    model: nn.Module
    loss: Loss

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]`` in nats, the same for every query.

        Raises:
            ConversionError: for a model without turn-over layers.
            DataError: for no queries or rows.
            LossError: for losses of a wrong shape, or that are not finite.
        """
        return _for_all(queries, rows, self.self_scores(rows), "unseen loss")

    def self_scores(self, rows: Rows) -> Tensor:
        """The unseen loss of every row, ``float32 [train]``."""
        return finite_losses(self.model, self.loss, as_rows(rows), "unseen")


def finite_losses(model: nn.Module, loss: Loss, rows: Rows, which: str = "full") -> Tensor:
    """Losses ``float32 [rows]`` in nats, all of them finite.

    Raises:
        LossError: when one is not.
    """
    losses = losses_of(model, loss, rows, which)
    if not (fine := torch.isfinite(losses)).all():
        raise LossError(
            f"The loss of the row with id {int(rows.ids[~fine][0])} is {float(losses[~fine][0])}, "
            f"like those of {int((~fine).sum())} of {len(rows)} rows, so that no score can be "
            "computed. Check its inputs and label, and whether training diverged."
        )
    return losses


def _for_all(queries: Batch | Rows, rows: Rows, losses: Tensor, name: str) -> Scores:
    asked = as_rows(queries)
    values = (-losses).expand(len(asked), -1).clone()
    return Scores(values, rows.ids, asked.ids, about={"estimator": name})
