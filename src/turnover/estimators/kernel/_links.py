"""What of a loss is a residual, and what a gradient: ∇L = −r φ, with curvature w.

==========  =========================  ============================  ==============  =============
link        loss                       φ = −∇L / r                   residual r      curvature w
==========  =========================  ============================  ==============  =============
log-odds    −log p                     ∇ log(p / (1 − p))            1 − p           p (1 − p)
squared     ½ (y − f)²                 ± ∇f                          |y − f|         1
residual    ½ e², given as e = y − f   ∇f                            e               1
classes     −log p                     as the log-odds               1 − p           diag p − ppᵀ
none        any                        −∇L                           1               1
==========  =========================  ============================  ==============  =============

All are functions of the loss alone: p = exp(−L), |y − f| = √(2 L). A square does not tell the
side of an error, so that several networks need the error e itself. The first turns a
classifier of any number of classes into one of two (Park et al. 2023, "TRAK", section 3.1);
``classes`` has the same φ and r, and the curvature of all classes (``_classes``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover.errors import LossError, ScoreError

__all__ = ["LINKS", "SMALLEST", "Link", "link_named"]

SMALLEST = 1e-6
LOWEST = -1e-3  # rounding of −log p in half precision is smaller


@final
@dataclass(frozen=True)
class Link:
    """How a loss becomes an output of the network, a residual and a curvature.

    Attributes:
        residual: from losses in nats to r.
        curvature: from residuals to w.
        output: from losses to the output that φ is the gradient of.
        signed: whether losses may be negative.
        sided: whether r is on the same side of zero in every network, so that means over networks
            mean something. A square does not tell its side.
        linear: whether ∇f is that of the loss itself, up to its sign.
    """

    residual: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    signed: bool = False
    sided: bool = True
    linear: bool = False

    def check(self, losses: Tensor) -> None:
        """Refuse losses that this link cannot come from.

        Raises:
            LossError: for a negative loss, where the link takes it for −log p or a square.
        """
        if self.signed or not bool((low := losses.min()) < LOWEST):
            return
        raise LossError(
            f"A loss is {float(low):.4g}, but the link takes losses for −log p or squares, which "
            "are never negative. Its scores would be wrong. Give the loss without a constant "
            "taken off, or link='none' for a loss that is neither."
        )

    def scale(self, losses: Tensor) -> Tensor:
        """What ∇L is multiplied by to become φ: −1/r, finite for perfect predictions."""
        if self.linear:
            return -torch.ones_like(losses)
        return -1 / self.floored(self.residual(losses))

    def floored(self, residual: Tensor) -> Tensor:
        """Residuals that keep their order where they are tiny; errors keep their sign."""
        return residual if self.linear else residual.clamp_min(SMALLEST)


def _wrong(losses: Tensor) -> Tensor:
    return -torch.expm1(-losses)


LOG_ODDS = Link(
    _wrong,
    lambda wrong: (wrong * (1 - wrong)).clamp_min(1e-4),
    lambda losses: -losses - _wrong(losses).clamp_min(SMALLEST).log(),
)
LINKS = {
    "log-odds": LOG_ODDS,
    "classes": LOG_ODDS,
    "squared": Link(
        lambda losses: (2 * losses).clamp_min(0).sqrt(),
        torch.ones_like,
        lambda losses: -(2 * losses).clamp_min(0).sqrt(),
        sided=False,
    ),
    "residual": Link(lambda e: e, torch.ones_like, lambda e: -e, signed=True, linear=True),
    "none": Link(torch.ones_like, torch.ones_like, lambda losses: -losses, signed=True),
}


def link_named(name: str) -> Link:
    """The link of this name.

    Raises:
        ScoreError: for a name that is none.
    """
    if name not in LINKS:
        raise ScoreError(f"The link is one of {', '.join(map(repr, LINKS))}, not {name!r}.")
    return LINKS[name]
