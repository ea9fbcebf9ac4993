"""H⁻¹ Σ_q c_q φ_q as one direction in the space of gradients: rows are scored and not kept.

Each solve writes it as a sum over rows that it has, Σ_t b_t φ_t. That sum has the size of one
gradient, however many rows there are, and its product with φ_z is the score of any row z.
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from turnover.estimators.kernel._classes import ClassRidge
from turnover.estimators.kernel._features import Block, kernel
from turnover.estimators.kernel._landmarks import LandmarkRidge
from turnover.estimators.kernel._ridge import Ridge

__all__ = ["along", "direction"]

Direction = list[Tensor]


def direction(solve: Any, queries: Sequence[Block], weights: Tensor) -> Direction:
    """H⁻¹ Σ_q c_q φ_q, one tensor for each block.

    Args:
        solve: the factorised H of one network.
        queries: φ_q.
        weights: c ``[query]``.
    """
    return _direction(solve, queries, weights.to(queries[0].a))


def along(found: Direction, rows: Sequence[Block]) -> Tensor:
    """The product of a direction with φ of each row, ``[row]``."""
    total = torch.zeros(len(rows[0].a), dtype=torch.float64, device=rows[0].a.device)
    for part, block in zip(found, rows, strict=True):
        a = block.a.double()
        total += a @ part if block.g is None else ((block.g.double() @ part) * a).sum(dim=1)
    return total


@singledispatch
def _direction(solve: Any, queries: Sequence[Block], weights: Tensor) -> Direction:
    raise TypeError(f"No direction is known of a {type(solve).__name__}.")


@_direction.register
def _of_ridge(solve: Ridge, queries: Sequence[Block], weights: Tensor) -> Direction:
    if not solve.dual:
        asked = weights @ torch.cat([block.a for block in queries], dim=1)
        found = torch.cholesky_solve(asked[:, None], solve.factor)[:, 0].double()
        return list(found.split([block.a.shape[1] for block in queries]))
    product = (weights @ kernel(queries, solve.blocks)) * solve.root
    taken = torch.cholesky_solve(product[:, None], solve.factor)[:, 0] * solve.root
    return _left(_summed(queries, weights), _summed(solve.blocks, taken), float(solve.ridge))


@_direction.register
def _of_classes(solve: ClassRidge, queries: Sequence[Block], weights: Tensor) -> Direction:
    product = weights @ kernel(queries, solve.curved)
    taken = torch.cholesky_solve(product[:, None], solve.factor)[:, 0]
    return _left(_summed(queries, weights), _summed(solve.curved, taken), float(solve.ridge))


@_direction.register
def _of_landmarks(solve: LandmarkRidge, queries: Sequence[Block], weights: Tensor) -> Direction:
    asked = weights @ solve.basis.features(queries)
    place = solve.basis.root @ (solve.inverse.to(asked) @ asked)
    return _summed(solve.basis.blocks, place)


def _left(whole: Direction, taken: Direction, ridge: float) -> Direction:
    """(H − Σ w φ φᵀ)⁻¹ is 1 / λ: what is left of a direction without what rows explain of it."""
    return [(one - other) / ridge for one, other in zip(whole, taken, strict=True)]


def _summed(blocks: Sequence[Block], coefficients: Tensor) -> Direction:
    """Σ_t b_t φ_t of each block: ``[feature]``, and ``[out, in]`` of one that is a product."""
    found = []
    for block in blocks:
        b = coefficients.to(block.a).double()
        if block.g is None:
            found.append(b @ block.a.double())
        else:
            found.append((block.g.double() * b[:, None]).T @ block.a.double())
    return found
