"""Nyström features: rows along m landmarks, whose inner products are nearly those of φ.

    C = K(rows, landmarks),   W = K(landmarks, landmarks),   Z = C W^{-½},   Z Zᵀ ≈ K

Landmarks are drawn with probability in proportion to the curvature w of a row, since the rows with
w near 0 hardly enter H. The solve then has size m, whatever the number of rows:

    φ_qᵀ H⁻¹ φ_z ≈ z_qᵀ (Σ_z w_z z_z z_zᵀ + λ I)⁻¹ z_z.

Reference: Williams, Seeger 2001, "Using the Nyström method to speed up kernel machines".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover._rows import PINNED, ahead, sent
from turnover.errors import ScoreError
from turnover.estimators.kernel._features import Block, bytes_of, kernel, squared_norms
from turnover.estimators.kernel._keep import count_of
from turnover.estimators.kernel._ridge import ridge_of

__all__ = ["Basis", "LandmarkRidge", "draw", "product", "row_blocks", "rows_at", "solved"]

JITTER = 1e-5  # of the mean diagonal; products in single precision are off by 5e-7 of it
PART = 128  # rows that are widened to single precision at once: they stay in the cache
SENT = 8192  # rows that are sent to another device at once


@final
@dataclass(frozen=True)
class Basis:
    """The landmarks of one network.

    Attributes:
        blocks: their features.
        root: W^{-½} ``[landmark, landmark]`` as L⁻ᵀ, over the mean length of φ. It makes lengths
            about 1, which half precision keeps best.
        unit: mean of ‖φ‖² over the landmarks, by which inner products are divided.
    """

    blocks: Sequence[Block]
    root: Tensor
    unit: float

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Basis":
        """Factorise W of the landmarks with these features.

        Raises:
            ScoreError: for features that are all zero.
        """
        gram = kernel(blocks, blocks).double()
        unit = float(gram.diagonal().mean())
        if not unit > 0:
            raise ScoreError(
                "The gradients of all landmarks are zero, so that none can be told from another. "
                "Check that the loss uses the model's output."
            )
        gram.diagonal().add_(JITTER * unit)
        factor = torch.linalg.cholesky(gram)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        return cls(blocks, (inverse.T / unit**0.5).float().contiguous(), unit)

    @property
    def width(self) -> int:
        """Numbers that are kept of a row."""
        return self.root.shape[1]

    def features(self, blocks: Sequence[Block]) -> Tensor:
        """Z of other rows, ``float32 [row, landmark]``."""
        return kernel(blocks, self.blocks) @ self.root

    def lengths(self, blocks: Sequence[Block]) -> Tensor:
        """‖φ‖² of rows ``[row]`` in the unit of Z, with what no landmark sees."""
        return squared_norms(blocks) / self.unit


def draw(weight: Tensor, count: int) -> Tensor:
    """Positions of ``count`` landmarks ``int64 [count]``, in proportion to ``weight [row]``.

    The draw is the same in every process. Rows of weight 0 are taken only when no others are left.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    # Exponential clocks ring first where the rate is high: a draw without replacement of any size.
    clock = torch.empty(len(weight), dtype=torch.float64).exponential_(generator=generator)
    first = torch.topk(clock / weight.double().clamp_min(1e-30), count, largest=False).indices
    return first.sort().values


def row_blocks(
    parts: Sequence[Tensor], device: torch.device | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of stored features in single precision, a few at once, with their place among all.

    What is yielded is overwritten by the next. Half precision travels to another device; on its way
    to CUDA the next rows are read into pinned memory while these are multiplied.
    """
    device = parts[0].device if device is None else device
    local = parts[0].device == device
    room = torch.empty(PART if local else SENT, parts[0].shape[1], device=device)
    cut = (few for part in parts for few in part.split(len(room)))
    blocks = ahead(Tensor.pin_memory, cut) if not local and device.type in PINNED else cut
    start = 0
    for few in blocks:
        found = room[: len(few)]
        found.copy_(sent(few, device))
        yield slice(start, start + len(few)), found
        start += len(few)


def solved(
    hessian: Tensor, mean: float, damping: float, wanted: Tensor | None = None
) -> tuple[Tensor, float]:
    """(Σ w z zᵀ + λ I)⁻¹ of ``wanted [landmark, column]``, or all of it, and λ.

    Double precision, since the smallest of its eigenvalues is λ.

    Raises:
        ScoreError: for a damping that is not above zero, or features that are all zero.
    """
    whole = hessian.double()
    ridge = ridge_of(whole, damping, torch.tensor(mean, dtype=torch.float64))
    whole.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(whole)
    if wanted is None:
        found = torch.cholesky_inverse(factor)
    else:
        found = torch.cholesky_solve(wanted.double(), factor)
    return found.float().contiguous(), float(ridge)  # as a file keeps it, to the last bit


def product(asked: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Inner products ``[query, train]`` with the features of all rows, which are streamed.

    They are multiplied where ``asked`` is, and end on the CPU.
    """
    found = torch.empty(len(asked), count_of(parts))
    for place, z in row_blocks(parts, asked.device):
        if len(asked) == 1 and z.device == found.device:
            torch.mv(z, asked[0], out=found[0, place])
        else:
            found[:, place] = asked @ z.T
    return found


def weighted_sum(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ_z z weight_z ``[landmark, way]`` of the features of all rows, which are streamed.

    It is summed where the weights are.
    """
    found = torch.zeros(parts[0].shape[1], weights.shape[1], device=weights.device)
    for place, z in row_blocks(parts, weights.device):
        found += z.T @ weights[place]
    return found


@final
@dataclass(frozen=True)
class LandmarkRidge:
    """H⁻¹ of one network in the space of its landmarks.

    Attributes:
        basis: the landmarks.
        parts: Z of the training instances, ``float16 [row, landmark]`` each.
        inverse: H⁻¹ ``[landmark, landmark]``.
        ridge: λ.
        damping: λ over the mean of w_z ‖φ_z‖².
    """

    basis: Basis
    parts: Sequence[Tensor]
    inverse: Tensor
    ridge: float
    damping: float

    @classmethod
    def of(
        cls, basis: Basis, parts: Sequence[Tensor], hessian: Tensor, mean: float, damping: float
    ) -> "LandmarkRidge":
        """Invert Σ w z zᵀ + λ I, with λ = ``damping`` times the mean of w_z ‖φ_z‖².

        Raises:
            ScoreError: as :func:`solved`.
        """
        inverse, ridge = solved(hessian, mean, damping)
        return cls(basis, parts, inverse, ridge, damping)

    @property
    def bytes(self) -> int:
        """What is kept."""
        fixed = bytes_of(self.basis.blocks) + self.basis.root.nbytes + self.inverse.nbytes
        return fixed + sum(part.nbytes for part in self.parts)

    def influence(self, queries: Sequence[Block]) -> Tensor:
        """φ_qᵀ H⁻¹ φ_z for all queries and instances, ``[query, train]``; Z is streamed."""
        asked = self.basis.features(queries)
        return product(asked @ self.inverse.to(asked.device), self.parts)

    def leverage(self) -> Tensor:
        """φ_zᵀ H⁻¹ φ_z of every instance, ``[train]``."""
        found = torch.empty(count_of(self.parts))
        inverse = self.inverse.to(self.basis.root.device)
        for place, z in row_blocks(self.parts, inverse.device):
            found[place] = (z @ inverse).mul_(z).sum(dim=1)
        return found


def rows_at(parts: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Some rows of features in parts, ``float32 [position, landmark]``."""
    found = torch.empty(len(positions), parts[0].shape[1])
    start = 0
    for part in parts:
        own = (positions >= start) & (positions < start + len(part))
        found[own] = part[positions[own] - start].float()
        start += len(part)
    return found
