"""Which labels are probably wrong? Confident learning on predictions that did not see them.

    t_c = mean of p_i(c) over rows i with label c
    row i is confidently c when p_i(c) ≥ t_c, and c is the most probable class of that sort
    suspect:  a row that is confidently another class than its label, which is not the most
              probable class

Reference: Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset
Labels", equations (1) and (2).
"""

import warnings

import torch
from torch import Tensor

from turnover.errors import DataError

__all__ = ["confident_errors", "label_errors"]


def confident_errors(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[rows]``: rows that are confidently of another class than their label.

    Args:
        probabilities: ``[rows, classes]``, each from a model that did not learn the row.
        labels: ``int64 [rows]``.

    Raises:
        DataError: for shapes that do not fit together.
    """
    if probabilities.dim() != 2 or len(probabilities) != len(labels):
        raise DataError(
            f"Found probabilities of shape {list(probabilities.shape)} for {len(labels)} labels; "
            "they must be [rows, classes]."
        )
    own = torch.nn.functional.one_hot(labels, probabilities.shape[1]).double()
    thresholds = (own * probabilities).sum(dim=0) / own.sum(dim=0)  # NaN for an absent class
    confident = probabilities.masked_fill(~(probabilities >= thresholds), -1.0)
    best, guess = confident.max(dim=1)
    return (best >= 0) & (guess != labels) & (probabilities.argmax(dim=1) != labels)


def label_errors(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, str]:
    """Suspected label errors, bool ``[rows]``, and who found them: cleanlab if it is installed.

    Raises:
        DataError: as :func:`confident_errors`.
    """
    own = confident_errors(probabilities, labels)
    if len(labels.unique()) < 2:  # cleanlab needs two classes
        return own, "confident learning"
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return own, "confident learning"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small classes, with paths of its own files
        found = find_label_issues(labels.numpy(), probabilities.double().numpy(), n_jobs=1)
    return torch.from_numpy(found), "cleanlab"
