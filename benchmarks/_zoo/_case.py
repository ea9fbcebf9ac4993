"""A case of the zoo, and the rows that its models take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

ROWS, ASKED, WIDTH, CLASSES, LENGTH = 24, 4, 6, 3, 5
Link = Literal["log-odds", "squared", "residual", "none"]


@final
@dataclass(frozen=True)
class Case:
    """One model and loss.

    Attributes:
        build: makes the model, from torch's global seed.
        inputs: makes the inputs of so many rows.
        loss: (model, batch) → losses ``[rows]``.
        targets: makes the targets of so many rows.
        link: what the loss truly is.
        given: the link that the user names; None leaves the default.
        masked: after which module masks are put; the case is then one of masked scores.
        pairs: of a split ensemble of such models; 0 for one model.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    loss: Callable[[nn.Module, Any], Tensor]
    targets: Callable[[int], Tensor]
    link: Link = "log-odds"
    given: Link | None = None
    masked: str | None = None
    pairs: int = 0


def vectors(n: int) -> Tensor:
    """Rows of features."""
    return torch.randn(n, WIDTH)


def series(n: int) -> Tensor:
    """Rows of a few positions."""
    return torch.randn(n, LENGTH, WIDTH)


def square(n: int) -> Tensor:
    """As many positions as there are rows."""
    return torch.randn(n, ROWS, WIDTH)


def words(n: int) -> Tensor:
    """Rows of tokens; 0 is padding."""
    return torch.randint(0, 10, (n, LENGTH))


def images(n: int) -> Tensor:
    """Small pictures of two channels."""
    return torch.randn(n, 2, 5, 5)


def labels(n: int) -> Tensor:
    """A class for each row."""
    return torch.arange(n) % CLASSES


def numbers(n: int) -> Tensor:
    """A measured value for each row."""
    return torch.randn(n)


def many(n: int) -> Tensor:
    """Several yes-or-no labels for each row."""
    return (torch.rand(n, CLASSES) < 0.4).float()
