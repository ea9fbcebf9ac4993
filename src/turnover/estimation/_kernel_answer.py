"""An answer of the accurate estimator, tested by the one that has a null distribution.

A kernel ranks the instances. It cannot say which of its scores are more than chance; the masks can:
z, p and q of each listed instance are those of its first-order turn-over score for the same query.
"""

import torch
from torch import Tensor, nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.estimation._answer import Answer, rank_scored
from turnover.estimation._first_order import FirstOrder
from turnover.estimation._kernel import GradientKernel
from turnover.estimation._mask_null import MaskNull
from turnover.estimation._scan import scan

__all__ = ["ask_kernel"]


def ask_kernel(
    model: nn.Module,
    loss: Loss,
    queries: Rows,
    rows: Rows,
    k: int = 10,
    *,
    kernel: GradientKernel | None = None,
) -> Answer:
    """The k most helpful and the k most harmful instances of every query, by kernel scores.

    Args:
        model: a converted model; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        queries: what is asked about.
        rows: the training set itself, since a kernel reads its instances.
        k: how many of each kind.
        kernel: with other settings than the default.

    Raises:
        ScoreError: for k above the number of instances.
        LossError, ConversionError: as :meth:`GradientKernel.fit` and :meth:`FirstOrder.linear`.
    """
    scores = (kernel or GradientKernel(model, loss)).fit(rows).scores(queries)
    listed = (scores.top(k, "helpful"), scores.top(k, "harmful"))
    linear, measured = FirstOrder(model, loss).linear(queries, rows)
    null, tested = MaskNull(linear), scan(linear, rows.mask_ids)

    def of_listed(values: Tensor) -> Tensor:
        return torch.cat([values.gather(1, ranking.positions) for ranking in listed], dim=1)

    z, p = (of_listed(found) for found in (null.z(tested), null.p(tested)))
    found = rank_scored(listed, of_listed(scores.values), z, p, len(rows))
    return Answer(*found, len(rows), "kernel", measured)
