"""The demo's data: scikit-learn's 1,797 real digit images, some with a wrong label on purpose."""

from dataclasses import dataclass
from typing import final

import torch

from turnover.data import Rows, flip_labels
from turnover.errors import MissingExtra

__all__ = ["CLASSES", "Digits", "load_digits"]

CLASSES = 10
TRAIN = 1_200


@final
@dataclass(frozen=True)
class Digits:
    """Training and test rows with ``image`` ``[rows, 1, 8, 8]`` in [0, 1] and ``label``.

    Training rows also have ``truth``, the label before noise. The id of a row is its position in
    scikit-learn's data set.
    """

    train: Rows
    test: Rows


def load_digits(noise: float, seed: int) -> Digits:
    """Split the digits by ``seed`` and flip a fraction ``noise`` of the training labels.

    Source: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), test part.

    Raises:
        MissingExtra: when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as read
    except ImportError:
        raise MissingExtra("scikit-learn", "demo", "The demo's data") from None
    bunch = read()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    truth = torch.from_numpy(bunch.target).long()
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(truth), generator=generator, device="cpu")
    train, test = order[:TRAIN], order[TRAIN:]
    labels, _ = flip_labels(truth[train], noise, CLASSES, seed)
    return Digits(
        Rows({"image": images[train], "label": labels, "truth": truth[train]}, train),
        Rows({"image": images[test], "label": truth[test]}, test),
    )
