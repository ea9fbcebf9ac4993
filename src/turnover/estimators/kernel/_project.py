"""Random projections of gradients that are too large to keep.

A gradient of shape [out, in] keeps at most so many numbers. A larger one is projected from both
sides, Rᵍ ∇W Rᵃ, with random signs (the two-sided projection of Choe et al. 2024, "LoGra"), each
side to the root of that number, or to all of its length where that is less. So nothing jumps where
a gradient becomes too large. Inner products stay the same in the mean, and their error falls with
the numbers kept (``benchmarks/results/projection.json``).
"""

from math import isqrt

import torch
from torch import Tensor

__all__ = ["FEWEST", "MOST", "compressed", "most_for", "projection", "sides", "signs"]

MOST, FEWEST = 2**16, 2**12
FEATURE_BYTES = 2**31


def most_for(rows: int, weights: int, networks: int) -> int:
    """Numbers that each large weight keeps of a row: as many as fit into 2 GiB, from 2¹² to 2¹⁶.

    The machine has no say, so that scores are the same on all.

    Args:
        rows: of the training set.
        weights: number of the weights that have more than 2¹² numbers.
        networks: of the run.
    """
    fits = FEATURE_BYTES // (4 * max(1, rows) * max(1, weights) * max(1, networks))
    return max(FEWEST, min(MOST, fits))


def sides(out: int, width: int, most: int) -> tuple[int, int]:
    """Lengths to which a gradient ``[out, width]`` is projected; its own where it is kept as it is.

    Args:
        out: its first length.
        width: its second length.
        most: the largest number of numbers to keep.
    """
    if out * width <= most:
        return out, width
    root = isqrt(most)
    if out <= root:
        return out, max(1, most // out)
    if width <= root:
        return max(1, most // width), width
    return root, root


def signs(like: Tensor, width: int, size: int, number: int) -> Tensor:
    """Random signs ``[width, size]``, the same in every process; dtype and device of ``like``."""
    generator = torch.Generator("cpu").manual_seed(number)
    drawn = torch.randint(0, 2, (width, size), generator=generator, device="cpu")
    return (2 * drawn - 1).to(like)


def projection(like: Tensor, length: int, size: int, number: int) -> Tensor | None:
    """A matrix ``[length, size]`` that keeps inner products in the mean; None for all of it."""
    return None if size == length else signs(like, length, size, number) / size**0.5


def compressed(gradients: Tensor, number: int, most: int = MOST) -> Tensor:
    """Gradients of one parameter, ``[row, *parameter]``, as ``[row, feature]``.

    Args:
        gradients: of any shape; the parameter's first dimension is one side of the projection.
        number: seed of the projection.
        most: the largest number of features to keep.
    """
    rows, numel = len(gradients), gradients[0].numel()
    if numel <= most:
        return gradients.reshape(rows, -1)
    out = gradients.shape[1]
    if gradients.dim() < 3 or out == numel:  # a vector: each number has one sign and one of sums
        generator = torch.Generator("cpu").manual_seed(number)
        place = torch.randint(0, most, (numel,), generator=generator)
        sign = 2 * torch.randint(0, 2, (numel,), generator=generator) - 1
        flat = gradients.reshape(rows, -1) * sign.to(gradients)
        made = torch.zeros(rows, most, dtype=flat.dtype, device=flat.device)
        return made.index_add_(1, place.to(flat.device), flat)
    matrix = gradients.reshape(rows, out, -1)
    tall, wide = sides(out, matrix.shape[2], most)
    left = projection(matrix, out, tall, number)
    right = projection(matrix, matrix.shape[2], wide, number + 1)
    made = matrix if left is None else left.T @ matrix
    return (made if right is None else made @ right).flatten(1)
