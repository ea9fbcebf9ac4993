"""Influence in a regularised linear model of the network, solved in the smaller of two spaces.

    H = Σ_z w_z φ_z φ_zᵀ + λ I,        influence(q, z) = φ_qᵀ H⁻¹ φ_z r_z

In the dual, with K = ΦΦᵀ and s = √w, no larger than [train, train] and without φ:

    φ_qᵀ H⁻¹ φ_z = k_qᵀ s (s K s + λ I)⁻¹ / s_z.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover.errors import ScoreError
from turnover.estimators.kernel._features import Block, bytes_of, kernel

__all__ = ["DampingWarning", "Ridge", "is_dual", "ridge_of"]

ROUNDING = 1e-6
SINGLE = 5e-7  # relative error of inner products in single precision, as measured
TOLERATED = 0.05


class DampingWarning(UserWarning):
    """A damping so small that scores are rounding."""


def is_dual(blocks: Sequence[Block]) -> bool:
    """Whether there are fewer instances than features, or features only as products."""
    dense = all(block.g is None for block in blocks)
    return not dense or len(blocks[0].a) <= sum(block.a.shape[1] for block in blocks)


def ridge_of(matrix: Tensor, damping: float, mean: Tensor, least: float = 0.0) -> Tensor:
    """λ for a matrix without it; at least what keeps rounding from making it indefinite.

    Raises:
        ScoreError: for a damping that is not above zero, or features that are all zero.
    """
    if not damping > 0:
        raise ScoreError(f"Damping is {damping}, but must be above 0, or 'auto'.")
    if not mean > 0:
        raise ScoreError(
            "The gradients of all training instances are zero, so that none can be told from "
            "another. Check that the loss uses the model's output."
        )
    # Rounding of the diagonal must not make a matrix indefinite that is not.
    smallest = (ROUNDING * matrix.diagonal().max()).clamp_min(least)
    ridge = torch.maximum(damping * mean, smallest)
    if ridge > damping * mean:
        warnings.warn(
            f"Damping {damping:g} is too little for single precision here, and "
            f"{float(ridge / mean):.2g} was taken. Give that or more, or damping='auto'.",
            DampingWarning,
            stacklevel=4,
        )
    return ridge


@final
@dataclass(frozen=True)
class Ridge:
    """The factorised H of one network, in the space of instances or of features.

    Attributes:
        blocks: features of the training instances.
        root: √w ``[train]``.
        factor: Cholesky factor of s K s + λ I, or of H.
        dual: which of the two.
        ridge: λ.
        damping: λ over the mean of w_z ‖φ_z‖².
    """

    blocks: Sequence[Block]
    root: Tensor
    factor: Tensor
    dual: bool
    ridge: Tensor
    damping: float

    @classmethod
    def of(
        cls,
        blocks: Sequence[Block],
        curvature: Tensor,
        damping: float,
        gram: Tensor | None = None,
    ) -> "Ridge":
        """Factorise, with λ = ``damping`` times the mean of w_z ‖φ_z‖² over instances.

        Args:
            blocks: features of the training instances.
            curvature: w ``[train]``.
            damping: relative to the mean.
            gram: ``kernel(blocks, blocks)``, when it is at hand.

        Raises:
            ScoreError: for a damping that is not above zero, or features that are all zero.
        """
        root = curvature.sqrt().to(blocks[0].a.device)
        if dual := is_dual(blocks):
            scaled = (kernel(blocks, blocks) if gram is None else gram) * root
            scaled *= root[:, None]
            mean = scaled.diagonal().mean()
        else:
            weighted = torch.cat([block.a for block in blocks], dim=1) * root[:, None]
            mean, scaled = weighted.square().sum(dim=1).mean(), weighted.T @ weighted
        ridge = ridge_of(scaled, damping, mean)
        scaled.diagonal().add_(ridge)
        return cls(blocks, root, torch.linalg.cholesky(scaled), dual, ridge, damping)

    @property
    def bytes(self) -> int:
        """What is kept."""
        return bytes_of(self.blocks) + self.factor.nbytes

    def influence(self, queries: Sequence[Block]) -> Tensor:
        """φ_qᵀ H⁻¹ φ_z for all queries and instances, ``[query, train]``.

        In the dual, rounding that is too large for the damping raises a ``DampingWarning``.
        """
        if self.dual:
            product = kernel(queries, self.blocks).mul_(self.root)
            solved = torch.cholesky_solve(product.T, self.factor).T
            self._tell_rounding(product, solved)
            return solved.div_(self.root)
        asked, known = (torch.cat([b.a for b in part], dim=1) for part in (queries, self.blocks))
        return torch.cholesky_solve(asked.T, self.factor).T @ known.T

    def _tell_rounding(self, asked: Tensor, solved: Tensor) -> None:
        """What is left of b in λ x, of (A + λ I) x = b, must be larger than the rounding of b."""
        left = self.ridge * solved.norm()
        share = float(SINGLE * asked.norm() / left.clamp_min(torch.finfo(left.dtype).tiny))
        if share > TOLERATED:
            warnings.warn(
                f"With damping {self.damping:g}, up to {min(1.0, share):.0%} of these scores is "
                "rounding of single precision: the gradients of the training instances are too "
                "much alike for so little of it. Give more, or damping='auto'.",
                DampingWarning,
                stacklevel=3,
            )

    def leverage(self) -> Tensor:
        """φ_zᵀ H⁻¹ φ_z of every instance, ``[train]``."""
        if self.dual:
            inverse = torch.cholesky_inverse(self.factor)
            scaled = kernel(self.blocks, self.blocks).mul_(self.root).mul_(self.root[:, None])
            return (scaled * inverse).sum(dim=1) / self.root.square()
        known = torch.cat([block.a for block in self.blocks], dim=1)
        return torch.cholesky_solve(known.T, self.factor).T.mul_(known).sum(dim=1)
