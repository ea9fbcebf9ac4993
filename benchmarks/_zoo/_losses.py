"""One network under many losses: what they are, and what they are taken for."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._zoo._case import CLASSES, Case, Link, labels, many, numbers, vectors
from benchmarks._zoo._modules import mlp


def entropy(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


def negatives(model: nn.Module, batch: Any) -> Tensor:
    """InfoNCE: the other rows of the batch are the wrong answers."""
    similar = F.normalize(model(batch[0])) @ F.normalize(batch[0][:, :CLASSES]).T
    return F.cross_entropy(similar, torch.arange(len(similar)), reduction="none")


def halves(model: nn.Module, batch: Any) -> Tensor:
    """Half of the squared error."""
    return (model(batch[0])[:, 0] - batch[1]).square() / 2


def sigmoids(model: nn.Module, batch: Any) -> Tensor:
    """One yes-or-no loss for each of several labels, summed."""
    found = F.binary_cross_entropy_with_logits(model(batch[0]), batch[1], reduction="none")
    return found.sum(dim=1)


def _loss(
    loss: Callable[[nn.Module, Any], Tensor],
    out: int,
    targets: Callable[[int], Tensor] = labels,
    link: Link = "log-odds",
    given: Link | None = None,
) -> Case:
    return Case(lambda: mlp(out), vectors, loss, targets, link, given)


LOSSES: dict[str, Case] = {
    "negatives in the batch": _loss(negatives, CLASSES),
    "labels smoothed": _loss(
        lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none", label_smoothing=0.2),
        CLASSES,
        link="none",
    ),
    "weighted by class": _loss(
        lambda m, b: F.cross_entropy(
            m(b[0]), b[1], reduction="none", weight=torch.tensor([1.0, 5.0, 0.2]).to(b[0])
        ),
        CLASSES,
        link="none",
    ),
    "focal loss": _loss(
        lambda m, b: (1 - (-entropy(m, b)).exp()).square() * entropy(m, b), CLASSES, link="none"
    ),
    "in bits": _loss(lambda m, b: entropy(m, b) * 1.442695, CLASSES, link="none"),
    "minus a constant": _loss(lambda m, b: entropy(m, b) - 5, CLASSES, link="none"),
    "yes or no": _loss(
        lambda m, b: F.binary_cross_entropy_with_logits(
            m(b[0])[:, 0], (b[1] > 0).to(b[0]), reduction="none"
        ),
        1,
    ),
    "several labels": _loss(sigmoids, CLASSES, many),
    "squared, named": _loss(halves, 1, numbers, "squared", "squared"),
    "squared, not named": _loss(halves, 1, numbers, "squared"),
    "squared, not halved": _loss(lambda m, b: 2 * halves(m, b), 1, numbers, "squared"),
    "squared, far off": _loss(lambda m, b: 1e4 * halves(m, b), 1, numbers, "squared"),
    "squared, taken for probabilities": _loss(entropy, CLASSES, labels, "log-odds", "squared"),
    "squared, not halved, named": _loss(
        lambda m, b: 2 * halves(m, b), 1, numbers, "squared", "squared"
    ),
    "absolute errors": _loss(lambda m, b: (m(b[0])[:, 0] - b[1]).abs(), 1, numbers, "none"),
    "Gaussian likelihood": _loss(
        lambda m, b: (
            F.gaussian_nll_loss(m(b[0])[:, 0], b[1], m(b[0])[:, 1].exp(), reduction="none") + 1.0
        ),
        2,
        numbers,
        "none",
    ),
    "any loss, said so": _loss(
        lambda m, b: (m(b[0])[:, 0] - b[1]).abs(), 1, numbers, "none", "none"
    ),
    "broadcast": _loss(lambda m, b: (m(b[0]) - b[1]).square().mean(1), 1, numbers, "none"),
    "broadcast the other way": _loss(
        lambda m, b: (m(b[0]) - b[1]).square().mean(0), 1, numbers, "none"
    ),
    "a mean": _loss(lambda m, b: F.cross_entropy(m(b[0]), b[1]), CLASSES),
    "several numbers for a row": _loss(
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0]), b[1], reduction="none"),
        CLASSES,
        many,
    ),
    "not a number": _loss(lambda m, b: entropy(m, b).sub(9).sqrt(), CLASSES),
}
