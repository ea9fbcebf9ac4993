"""Which labels are probably wrong? Confident learning on predictions that did not see them.

    t_c    = mean of p_i(c) over rows i with label c
    C[a,b] = rows with label a that are confidently b: p_i(b) ≥ t_b, the most probable such class
    Q[a,b] = C[a,b] / Σ_b C[a,b] · (rows with label a), in whole rows
    suspect: of the rows with label a, the Q[a,b] with the largest p_i(b) − p_i(a), for each b ≠ a,
             without those whose most probable class is a after all

Each class keeps one row that is counted as right, so that a class never loses all of its rows.

Reference: Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset
Labels", equations (1) to (3) and "prune by noise rate".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from turnover.errors import DataError

__all__ = ["FINDER", "label_errors"]

FINDER = "confident learning"
ROUNDING = 1e-6  # of a mean of equal probabilities
LEAST_THRESHOLD = 2e-6  # a class whose rows all have probability 0 is no one's confident class


def label_errors(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Suspected label errors, bool ``[rows]``.

    Args:
        probabilities: ``[rows, classes]``, each from a model that did not learn the row.
        labels: ``int64 [rows]``.

    Raises:
        DataError: for shapes that do not fit together, labels outside of the classes, or
            probabilities that are not finite.

    >>> sure_of_0, sure_of_1 = [0.9, 0.1], [0.1, 0.9]
    >>> p = torch.tensor([sure_of_0, sure_of_0, sure_of_1, sure_of_1, [0.95, 0.05]])
    >>> label_errors(p, torch.tensor([0, 0, 1, 1, 1]))
    tensor([False, False, False, False,  True])
    """
    _refuse(probabilities, labels)
    p = probabilities.detach().cpu().double()
    labels, found = labels.cpu(), torch.zeros(len(labels), dtype=torch.bool)
    wrong = _wrong_rows(_confident_counts(p, labels), torch.bincount(labels, minlength=p.shape[1]))
    for given, other in torch.nonzero(wrong).tolist():
        rows = torch.nonzero(labels == given).flatten()
        margin = p[rows, other] - p[rows, given]
        worst = torch.argsort(margin, descending=True, stable=True)[: int(wrong[given, other])]
        found[rows[worst]] = True
    own = p.gather(1, labels.unsqueeze(1)).squeeze(1)
    return found & (p.amax(dim=1) > own + ROUNDING) & (p.argmax(dim=1) != labels)


def _refuse(probabilities: Tensor, labels: Tensor) -> None:
    if probabilities.dim() != 2 or len(probabilities) != len(labels):
        raise DataError(
            f"Found probabilities of shape {list(probabilities.shape)} for {len(labels)} labels; "
            "they must be [rows, classes]."
        )
    classes = probabilities.shape[1]
    if len(labels) and not bool(((labels >= 0) & (labels < classes)).all()):
        raise DataError(f"A label lies outside of 0 to {classes - 1}, the classes of the model.")
    if not bool(torch.isfinite(probabilities).all()):
        row = int(torch.nonzero(~torch.isfinite(probabilities).all(dim=1))[0])
        raise DataError(
            f"The probabilities of row {row} are not finite, so that no label can be judged. Check "
            "the model's weights, and whether training diverged."
        )


def _confident_counts(p: Tensor, labels: Tensor) -> Tensor:
    """C ``[label, confident class]``, with one right row for each class at least."""
    own = F.one_hot(labels, p.shape[1]).double()
    thresholds = ((own * p).sum(dim=0) / own.sum(dim=0)).clamp(min=LEAST_THRESHOLD)
    confident = p >= thresholds - ROUNDING  # nothing is, of a class without rows: NaN
    guess = p.masked_fill(~confident, -1.0).argmax(dim=1)
    some = confident.any(dim=1)
    counts = torch.zeros(p.shape[1], p.shape[1], dtype=torch.int64)
    counts.index_put_((labels[some], guess[some]), torch.tensor(1), accumulate=True)
    return torch.maximum(counts, torch.eye(p.shape[1], dtype=torch.int64))


def _wrong_rows(counts: Tensor, sizes: Tensor) -> Tensor:
    """Q ``[label, true class]`` off the diagonal, in whole rows: each class keeps one."""
    exact = counts.double() / counts.sum(dim=1, keepdim=True) * sizes.unsqueeze(1)
    whole = exact.floor().long()
    for label, left in enumerate((sizes - whole.sum(dim=1)).tolist()):
        largest = torch.argsort(exact[label] - whole[label], descending=True, stable=True)
        whole[label, largest[:left]] += 1
        if sizes[label] and not whole[label, label]:
            whole[label, int(whole[label].argmax())] -= 1
    return whole.fill_diagonal_(0)
