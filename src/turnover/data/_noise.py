"""Planted label errors, with a record of the truth."""

import torch
from torch import Tensor

from turnover.errors import DataError

__all__ = ["flip_labels"]


def flip_labels(
    labels: Tensor, fraction: float, classes: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Replace a fraction of the labels by another class, chosen uniformly among the others.

    Args:
        labels: ``int64 [rows]`` in [0, classes).
        fraction: share of the rows to flip; exactly ``round(fraction · rows)`` are.
        classes: number of classes, at least 2.
        seed: seed of the choice; global random state is not touched.

    Returns:
        The noisy labels ``int64 [rows]`` and a bool tensor ``[rows]`` that marks the flipped ones.

    Raises:
        DataError: for a fraction outside [0, 1], fewer than two classes, or labels outside them.

    >>> flip_labels(torch.tensor([0, 1, 2, 0, 1, 2]), fraction=1 / 3, classes=3)
    (tensor([0, 1, 1, 0, 1, 1]), tensor([False, False,  True, False, False,  True]))
    """
    if not 0 <= fraction <= 1 or classes < 2:
        raise DataError(
            f"Cannot flip a fraction {fraction} of labels among {classes} classes: the fraction "
            "lies in [0, 1], and a wrong label needs at least two classes."
        )
    if (outside := labels[(labels < 0) | (labels >= classes)]).numel():
        raise DataError(f"Found label {int(outside[0])}; labels are 0 to {classes - 1}.")
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator, device="cpu")
    chosen = order[: round(fraction * len(labels))]
    shift = torch.randint(1, classes, (len(chosen),), generator=generator, device="cpu")
    noisy, flipped = labels.clone(), torch.zeros_like(labels, dtype=torch.bool)
    noisy[chosen] = (labels[chosen] + shift.to(labels.device)) % classes
    flipped[chosen] = True
    return noisy, flipped
