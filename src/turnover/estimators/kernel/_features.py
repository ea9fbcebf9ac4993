"""Features of single examples whose inner products are those of gradients.

A block is either *dense*, φ ``[row, feature]``, or a *product* (a, g), which stands for the outer
product of its two vectors: ⟨φ, φ'⟩ = (a·a')(g·g'). A kernel is the sum over blocks.

Where positions are summed (convolutions, sequences), the gradient is made explicitly while it has
at most 2¹⁶ numbers for one module; a larger one is projected from both sides (``_project``).

A *sketch* is one dense block for all modules, with random signs r: its inner products are those of
the gradients in the mean (Pham, Pagh 2013),

    φ_j = Σ_module Σ_p (rᵃ_j·a_p)(rᵍ_j·g_p) / √d.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover.estimators.kernel._factors import Factor
from turnover.estimators.kernel._project import EXPLICIT, SIDE, signs

__all__ = ["Block", "blocks_of", "kernel", "numbers", "sketched", "stacked"]


@final
@dataclass(frozen=True)
class Block:
    """Part of the features of some examples; ``g`` is None in a dense block."""

    a: Tensor
    g: Tensor | None = None

    def rows(self, index: Tensor) -> "Block":
        """The features of some of the examples."""
        return Block(self.a[index], None if self.g is None else self.g[index])


def blocks_of(found: Sequence[Factor]) -> list[Block]:
    """Exact features where they are affordable, projected ones where not."""
    return [_block(factor, number) for number, factor in enumerate(found)]


def _block(factor: Factor, number: int) -> Block:
    width = factor.a.shape[-1] * factor.g.shape[-1]
    if factor.a.shape[1] > 1 and width <= EXPLICIT:
        return Block(factor.explicit())
    if factor.a.shape[1] == 1:
        return Block(factor.a.squeeze(1), factor.g.squeeze(1))
    left = _signs(factor.g, SIDE, 2 * number) / SIDE**0.5
    right = _signs(factor.a, SIDE, 2 * number + 1) / SIDE**0.5
    return Block(Factor(factor.a @ right, factor.g @ left).explicit())


def sketched(found: Sequence[Factor], size: int) -> list[Block]:
    """One dense block of ``size`` numbers for all modules."""
    total = torch.zeros(len(found[0].a), size, device=found[0].a.device)
    for number, factor in enumerate(found):
        left = factor.a @ _signs(factor.a, size, 2 * number)
        total += (left * (factor.g @ _signs(factor.g, size, 2 * number + 1))).sum(dim=1)
    return [Block(total / size**0.5)]


def _signs(like: Tensor, size: int, number: int) -> Tensor:
    return signs(like, like.shape[-1], size, number)


def stacked(parts: Sequence[Sequence[Block]]) -> list[Block]:
    """The rows of all parts below each other."""
    return [
        Block(
            torch.cat([block.a for block in same]),
            None if same[0].g is None else torch.cat([block.g for block in same]),
        )
        for same in zip(*parts, strict=True)
    ]


def kernel(left: Sequence[Block], right: Sequence[Block]) -> Tensor:
    """Inner products ``[row of left, row of right]``."""
    total: Tensor | None = None
    for one, other in zip(left, right, strict=True):
        product = one.a @ other.a.T
        if one.g is not None and other.g is not None:
            product *= one.g @ other.g.T
        total = product if total is None else total.add_(product)
    assert total is not None
    return total


def numbers(blocks: Sequence[Block]) -> int:
    """How many numbers one example keeps."""
    return sum(part.shape[1] for block in blocks for part in (block.a, block.g) if part is not None)
