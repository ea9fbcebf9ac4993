"""How much did each training instance help or harm a whole target set?

    T(z) = Σ_q I(q, z),     q over the target set; negative: the target would be better off without

Influences add up over queries, so that no ``[query, train]`` array is ever held.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from turnover._rows import Loss, select_rows
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators import GradientKernel, LinearScores, TwoPass, gate_gradients, scan
from turnover.scores import Scores
from turnover.training import losses_of

__all__ = [
    "first_order_totals",
    "kernel_totals",
    "loss_totals",
    "totals_of",
    "two_pass_totals",
]

Progress = Callable[[int, int], None]
FEW, MANY = 16, 256


def first_order_totals(
    model: nn.Module, loss: Loss, target: Rows, train: Rows, progress: Progress | None = None
) -> Tensor:
    """Totals ``float32 [train]`` in nats from one backward pass over the target set.

    Args:
        model: a converted, trained model.
        loss: (model, batch) → per-example losses in nats.
        target: what the model should do well on.
        train: the training rows.
        progress: called with the number of target rows done and of all.

    Raises:
        LossError: for losses that are not finite or do not depend on any mask.
    """
    summed: list[Tensor] = []
    for start in range(0, len(target), MANY):
        batch = select_rows(target.batch, slice(start, start + MANY))
        specs, gradients = gate_gradients(model, loss, batch)
        parts = [gradient.sum(dim=0, keepdim=True) for gradient in gradients]
        summed = [a + b for a, b in zip(summed, parts, strict=True)] if summed else parts
        if progress is not None:
            progress(min(start + MANY, len(target)), len(target))
    return scan(LinearScores.from_gradients(specs, summed), train.mask_ids)[0]


def two_pass_totals(
    model: nn.Module, loss: Loss, target: Rows, train: Rows, progress: Progress | None = None
) -> Tensor:
    """Totals ``float32 [train]`` in nats from two forward passes per pair.

    Arguments and errors as in :func:`first_order_totals`.
    """
    estimator, total = TwoPass(model, loss), torch.zeros(len(train), dtype=torch.float64)
    for start in range(0, len(target), FEW):
        scores = estimator.scores(target.select(slice(start, start + FEW)), train.mask_ids)
        total += scores.values.double().sum(dim=0)
        if progress is not None:
            progress(min(start + FEW, len(target)), len(target))
    return total.float()


def kernel_totals(
    model: nn.Module, loss: Loss, target: Rows, train: Rows, progress: Progress | None = None
) -> Tensor:
    """Totals ``float32 [train]`` in nats by :class:`turnover.estimators.GradientKernel`.

    Arguments as in :func:`first_order_totals`; errors as in both.
    """
    fitted, total = GradientKernel(model, loss).fit(train), torch.zeros(len(train)).double()
    for start in range(0, len(target), MANY):
        part = target.select(slice(start, start + MANY))
        total += fitted.scores(part).values.double().sum(dim=0)
        if progress is not None:
            progress(min(start + MANY, len(target)), len(target))
    return total.float()


def loss_totals(
    model: nn.Module, loss: Loss, target: Rows, train: Rows, progress: Progress | None = None
) -> Tensor:
    """−loss ``float32 [train]`` of each row in its unseen half: a control that asks no target.

    Arguments as in :func:`first_order_totals`.
    """
    return -losses_of(model, loss, train, "unseen")


def totals_of(scores: Scores, train: Rows) -> Tensor:
    """Totals ``float32 [train]`` of scores by any estimator, in the order of the training rows.

    Raises:
        ScoreError: when a training row has no score, or a total is not a finite number.
    """
    place = {id: column for column, id in enumerate(scores.train_ids.tolist())}
    missing = [id for id in train.mask_ids.tolist() if id not in place]
    if missing:
        raise ScoreError(
            f"{len(missing)} of {len(train)} training rows have no score, such as id {missing[0]}. "
            "The scores must be those of the run's own training set."
        )
    columns = torch.tensor([place[id] for id in train.mask_ids.tolist()])
    total = scores.values.double().sum(dim=0)[columns].float()
    if not (fine := total.isfinite()).all():
        row = int(torch.nonzero(~fine)[0])
        raise ScoreError(
            f"The total of id {int(train.mask_ids[row])} is {float(total[row])}, so the rows have "
            "no order."
        )
    return total
