"""Products of gradients: what a step on z does to the loss of q, at one checkpoint or several.

    I(q, z) = Σ_c η_c ∇L(q; θ_c)·∇L(z; θ_c)

To first order, the loss of q falls by η ∇L(q)·∇L(z) in a step of length η on z alone. With one
checkpoint and η = 1 it is known as Grad-Dot.

References: Pruthi, Liu, Kale, Sundararajan 2020, "Estimating training data influence by tracing
gradient descent" (TracInCP); Charpiat, Girard, Felardos, Tarabalka 2019, "Input similarity from the
neural network perspective" (Grad-Dot).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss
from turnover.baselines._derivatives import Progress, gradients
from turnover.baselines._koh_liang import deployed
from turnover.data import Rows
from turnover.errors import DataError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["GradDot", "TracIn"]


@final
@dataclass(frozen=True)
class TracIn(PairwiseEstimator):
    """Products of gradients, summed over checkpoints.

    Memory: one vector of all parameters for every query.

    Attributes:
        models: the model at each checkpoint, or several trainings of it; run in evaluation mode,
            without masks, and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        rates: η of each checkpoint, the learning rate with which training went on from there.
        rows_per_block: gradients held at once.

    Raises:
        DataError: for no models, another number of rates, or a rate that is no finite number.
    """

    models: Sequence[nn.Module]
    loss: Loss
    rates: Sequence[float]
    rows_per_block: int = 256

    def __post_init__(self) -> None:
        if not len(self.models) or len(self.models) != len(self.rates):
            raise DataError(
                f"Found {len(self.rates)} rates for {len(self.models)} models. There is at least "
                "one checkpoint, and each needs its learning rate."
            )
        if not all(map(math.isfinite, self.rates)):
            raise DataError(f"The rates {list(self.rates)} are not all finite numbers.")

    def scores(
        self, queries: Batch | Rows, rows: Rows, *, progress: Progress | None = None
    ) -> Scores:
        """Scores ``[query, train]`` in nats (for one step on z alone), positive = helped.

        Args:
            queries: a batch of any structure, or :class:`Rows`, whose ids are then kept.
            rows: the training rows.
            progress: called with the number of finished and of all checkpoints.

        Raises:
            DataError: for no queries or rows.
            ConversionError: for a model in which nothing can be trained.
            LossError: for losses of a wrong shape, or gradients that are not finite.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        values = torch.zeros(len(asked), len(rows))
        for done, (model, lr) in enumerate(zip(self.models, self.rates, strict=True), start=1):
            with deployed(model):
                left = torch.cat(list(gradients(model, self.loss, asked, self.rows_per_block)))
                blocks = gradients(model, self.loss, rows, self.rows_per_block)
                values += torch.cat([lr * (left @ g.T).float().cpu() for g in blocks], dim=1)
            if progress is not None:
                progress(done, len(self.models))
        about = {"estimator": "tracin", "rates": list(self.rates)}
        return Scores(values, rows.ids, asked.ids, about=about)

    def self_scores(self, rows: Rows) -> Tensor:
        """Σ_c η_c ‖∇L(z; θ_c)‖² of every row, ``float32 [train]``.

        Raises:
            DataError, ConversionError, LossError: as :meth:`scores`.
        """
        rows = as_rows(rows)
        values = torch.zeros(len(rows))
        for model, lr in zip(self.models, self.rates, strict=True):
            with deployed(model):
                blocks = gradients(model, self.loss, rows, self.rows_per_block)
                squares = torch.cat([g.square().sum(dim=1).float().cpu() for g in blocks])
            values += lr * squares
        return values


@final
@dataclass(frozen=True)
class GradDot(PairwiseEstimator):
    """∇L(q)·∇L(z), of one model: :class:`TracIn` with one checkpoint and η = 1.

    Attributes:
        model: the trained model; run in evaluation mode, without masks, and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        rows_per_block: gradients held at once.
    """

    model: nn.Module
    loss: Loss
    rows_per_block: int = 256

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]`` in nats for one step with η = 1; as :meth:`TracIn.scores`."""
        found = self._tracin().scores(queries, rows)
        return replace(found, about={"estimator": "grad-dot"})

    def self_scores(self, rows: Rows) -> Tensor:
        """‖∇L(z)‖² of every row, ``float32 [train]``."""
        return self._tracin().self_scores(rows)

    def _tracin(self) -> TracIn:
        return TracIn([self.model], self.loss, [1.0], self.rows_per_block)
