"""Features of single examples whose inner products are those of gradients.

A block is either *dense*, φ ``[row, feature]``, or a *product* (a, g), which stands for the outer
product of its two vectors: ⟨φ, φ'⟩ = (a·a')(g·g'). A kernel is the sum over blocks.

Where positions are summed (convolutions, sequences), the gradient is made explicitly. One that has
more numbers than are kept for one module is projected from both sides (``_project``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover.errors import ConversionError
from turnover.estimators.kernel._factors import Factor
from turnover.estimators.kernel._project import MOST, projection, sides

__all__ = [
    "Block",
    "blocks_of",
    "bytes_of",
    "joined",
    "kernel",
    "numbers",
    "squared_norms",
    "stacked",
]


@final
@dataclass(frozen=True)
class Block:
    """Part of the features of some examples; ``g`` is None in a dense block."""

    a: Tensor
    g: Tensor | None = None

    def both(self) -> tuple[Tensor, Tensor]:
        """The two sides of a product."""
        assert self.g is not None
        return self.a, self.g

    def rows(self, index: Tensor) -> "Block":
        """The features of some of the examples."""
        return Block(self.a[index], None if self.g is None else self.g[index])


def blocks_of(found: Sequence[Factor], most: int = MOST) -> list[Block]:
    """Exact features of at most so many numbers for each module, projected ones beyond."""
    return [_block(factor, number, most) for number, factor in enumerate(found)]


def _block(factor: Factor, number: int, most: int) -> Block:
    if factor.a.shape[1] == 1 and not factor.summed:
        return Block(factor.a.squeeze(1), factor.g.squeeze(1))
    out, width = factor.g.shape[-1], factor.a.shape[-1]
    tall, wide = sides(out, width, most)
    left = projection(factor.g, out, tall, 2 * number)
    right = projection(factor.a, width, wide, 2 * number + 1)
    a = factor.a if right is None else factor.a @ right
    g = factor.g if left is None else factor.g @ left
    return Block(Factor(a, g).explicit())


def stacked(parts: Iterable[Sequence[Block]], rows: int) -> list[Block]:
    """The rows of all parts below each other, ``rows`` in all, written as the parts are made."""
    whole: list[Block] = []
    start = 0
    for part in parts:
        if not whole:
            whole = [
                Block(_room(b.a, rows), None if b.g is None else _room(b.g, rows)) for b in part
            ]
        stop = start + len(part[0].a)
        for block, own in zip(whole, part, strict=True):
            _refuse_unlike(block, own)
            block.a[start:stop] = own.a
            if block.g is not None:
                block.g[start:stop] = own.both()[1]
        start = stop
    return whole


def _refuse_unlike(one: Block, other: Block) -> None:
    """Refuse products beside sums, whose inner product would be something else.

    Raises:
        ConversionError: for rows with one position beside rows with several.
    """
    if (one.g is None) != (other.g is None):
        raise ConversionError(
            "Some rows have one position and others several, so that their gradients cannot be "
            "compared. Pad all rows to one length, or leave check=True, which tells them apart."
        )


def _room(like: Tensor, rows: int) -> Tensor:
    return torch.empty(rows, *like.shape[1:], dtype=like.dtype, device=like.device)


def kernel(left: Sequence[Block], right: Sequence[Block]) -> Tensor:
    """Inner products ``[row of left, row of right]``."""
    total: Tensor | None = None
    for one, other in zip(left, right, strict=True):
        _refuse_unlike(one, other)
        product = one.a @ other.a.T
        if one.g is not None:
            product *= one.g @ other.both()[1].T
        total = product if total is None else total.add_(product)
    assert total is not None
    return total


def numbers(blocks: Sequence[Block]) -> int:
    """How many numbers one example keeps."""
    return sum(part.shape[1] for block in blocks for part in (block.a, block.g) if part is not None)


def bytes_of(blocks: Sequence[Block]) -> int:
    """What the features of all rows take."""
    return sum(b.a.nbytes + (0 if b.g is None else b.g.nbytes) for b in blocks)


def squared_norms(blocks: Sequence[Block]) -> Tensor:
    """‖φ‖² of every row, ``[row]``: the diagonal of its kernel."""
    total = torch.zeros(len(blocks[0].a), device=blocks[0].a.device)
    for block in blocks:
        own = block.a.square().sum(dim=1)
        total += own if block.g is None else own * block.g.square().sum(dim=1)
    return total


def joined(parts: Sequence[Sequence[Block]]) -> list[Block]:
    """Blocks of parts of the rows, below each other; a single part as it is."""
    if len(parts) == 1:
        return list(parts[0])
    found = []
    for n, first in enumerate(parts[0]):
        for part in parts:
            _refuse_unlike(first, part[n])
        g = None if first.g is None else torch.cat([part[n].both()[1] for part in parts])
        found.append(Block(torch.cat([part[n].a for part in parts]), g))
    return found
