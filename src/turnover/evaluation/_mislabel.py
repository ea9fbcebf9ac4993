"""Do the most suspicious instances carry the planted wrong labels?

    AUC            = P(a wrong label is more suspicious than a right one) + P(equally so) / 2
    precision at k = share of wrong labels among the k most suspicious instances

An equal suspicion has no order: it counts with the expectation over a random one. Resamples draw
wrong and right labels separately, as they were planted: in fixed numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from turnover.errors import DataError, ScoreError
from turnover.evaluation._align import refuse_bad_count
from turnover.stats import Array, Estimate, Mask, Order, estimate, resamples, sklearn_metrics

__all__ = ["Mislabel", "mislabel"]


@final
@dataclass(frozen=True)
class Mislabel:
    """How well suspicion finds wrong labels.

    Attributes:
        auc: area under the ROC curve; 0.5 is chance.
        precision: for each k, the share of wrong labels among the k most suspicious.
        wrong: number of wrong labels.
        instances: number of instances; ``wrong / instances`` is the precision of chance.
    """

    auc: Estimate
    precision: dict[int, Estimate]
    wrong: int
    instances: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values; k becomes a string."""
        precision = {str(k): found.to_dict() for k, found in self.precision.items()}
        counts = {"wrong": self.wrong, "instances": self.instances}
        return {"auc": self.auc.to_dict(), "precision": precision, **counts}


def mislabel(
    suspicion: Tensor,
    wrong: Tensor,
    *,
    k: Iterable[int] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Mislabel:
    """ROC AUC and precision at k of a suspicion against planted wrong labels.

    Args:
        suspicion: ``[train]``, higher = more likely wrong: memorisation, the loss of the unseen
            sub-network, the negative mean score on clean queries.
        wrong: ``bool [train]``, as :func:`turnover.data.flip_labels` returns it.
        k: how many instances somebody looks at; by default as many as there are wrong labels.
        bootstrap: number of resamples of the instances; 0 for no interval.
        seed: of the resamples.

    Raises:
        ScoreError: for a suspicion that is not a finite number.
        DataError: for shapes that differ, labels all wrong or all right, or a k that is too large.
        MissingExtra: when scikit-learn is not installed.
    """
    values, relevant = _checked(suspicion, wrong)
    count = int(relevant.sum())
    ks = [count] if k is None else list(k)
    for each in ks:
        refuse_bad_count(each, len(values))
    order, once = Order(values), np.ones((len(values), 1))
    area = float(sklearn_metrics().roc_auc_score(relevant, values))
    aucs, shares = [], [np.empty((len(ks), 0))]
    for counts in _stratified(relevant, bootstrap, seed):
        aucs.append(order.auc(counts, relevant))
        shares.append(np.array([order.precision(counts, relevant, each) for each in ks]))
    precision = {
        each: estimate(float(order.precision(once, relevant, each)[0]), draws)
        for each, draws in zip(ks, np.concatenate(shares, axis=1), strict=True)
    }
    auc = estimate(area, np.concatenate([np.empty(0), *aucs]))
    return Mislabel(auc, precision, count, len(values))


def _stratified(relevant: Mask, bootstrap: int, seed: int) -> Iterable[Array]:
    """Counts ``[train, resample]`` that keep the numbers of wrong and of right labels."""
    rows = [np.flatnonzero(relevant), np.flatnonzero(~relevant)]
    room = len(relevant)
    parts = [resamples(len(r), bootstrap, seed, i, room=room) for i, r in enumerate(rows)]
    for wrong, right in zip(*parts, strict=True):
        counts = np.empty((len(relevant), wrong.shape[1]))
        counts[rows[0]], counts[rows[1]] = wrong, right
        yield counts


def _checked(suspicion: Tensor, wrong: Tensor) -> tuple[Array, Mask]:
    if suspicion.dim() != 1 or wrong.shape != suspicion.shape or wrong.dtype != torch.bool:
        raise DataError(
            f"Found a suspicion of shape {list(suspicion.shape)} and {wrong.dtype} marks of shape "
            f"{list(wrong.shape)}; both are [train], and the marks of wrong labels are torch.bool."
        )
    if not bool((fine := torch.isfinite(suspicion)).all()):
        row = int(torch.nonzero(~fine)[0])
        raise ScoreError(
            f"The suspicion of instance {row} is {float(suspicion[row])}, as {int((~fine).sum())} "
            f"of {len(fine)} are not finite, so it has no place in an order. Check whether "
            "training diverged."
        )
    relevant: Mask = wrong.cpu().numpy()
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{relevant.sum()} of {len(relevant)} labels are wrong; an area under the ROC curve "
            "needs both kinds. Plant some with turnover.data.flip_labels."
        )
    return suspicion.detach().cpu().double().numpy(), relevant
