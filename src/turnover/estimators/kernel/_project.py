"""Random projections of gradients that are too large to keep.

A gradient of shape [out, in] is kept while it has at most 2¹⁶ numbers. A larger one is projected
from both sides, Rᵍ ∇W Rᵃ, with random signs (64 × 64 numbers; the two-sided projection of Choe et
al. 2024, "LoGra"). Inner products stay the same in the mean.
"""

import torch
from torch import Tensor

__all__ = ["EXPLICIT", "SIDE", "compressed", "signs"]

EXPLICIT, SIDE = 2**16, 64


def signs(like: Tensor, width: int, size: int, number: int) -> Tensor:
    """Random signs ``[width, size]``, the same in every process; dtype and device of ``like``."""
    generator = torch.Generator("cpu").manual_seed(number)
    drawn = torch.randint(0, 2, (width, size), generator=generator, device="cpu")
    return (2 * drawn - 1).to(like)


def compressed(gradients: Tensor, number: int) -> Tensor:
    """Gradients of one parameter, ``[row, *parameter]``, as ``[row, feature]``.

    Args:
        gradients: of any shape; the parameter's first dimension is one side of the projection.
        number: seed of the projection.
    """
    rows, numel = len(gradients), gradients[0].numel()
    if numel <= EXPLICIT:
        return gradients.reshape(rows, -1)
    out = gradients.shape[1]
    if (
        gradients.dim() < 3 or out == numel
    ):  # a vector: one sign and one of 2¹² sums for each number
        generator = torch.Generator("cpu").manual_seed(number)
        place = torch.randint(0, SIDE**2, (numel,), generator=generator)
        sign = 2 * torch.randint(0, 2, (numel,), generator=generator) - 1
        flat = gradients.reshape(rows, -1) * sign.to(gradients)
        made = torch.zeros(rows, SIDE**2, dtype=flat.dtype, device=flat.device)
        return made.index_add_(1, place.to(flat.device), flat)
    matrix = gradients.reshape(rows, out, -1)
    left = signs(matrix, out, SIDE, number) / SIDE**0.5
    right = signs(matrix, matrix.shape[2], SIDE, number + 1) / SIDE**0.5
    return (left.T @ matrix @ right).flatten(1)
