"""Solvers of (H + λI) x = v for many v at once, which say why they stopped.

``CG``, conjugate gradients, takes products with the Hessian of all rows and ends at a residual;
``LiSSA`` takes products with the Hessians of random batches and ends after a number of steps:

    x ← v + x − (H_B + λI) x / s,        answer: x / s, averaged over repeats.

References: Hestenes, Stiefel 1952 (CG); Agarwal, Bullins, Hazan 2017, "Second-order stochastic
optimization for machine learning in linear time" (LiSSA), with the scale s of Koh, Liang 2017.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from turnover.errors import ScoreError

__all__ = ["CG", "CurvatureWarning", "LiSSA", "Operator", "Solver", "SolverStatus", "summary"]

CONVERGED, EXHAUSTED, BENT = "converged", "max iterations", "negative curvature"
MUCH_OF_THE_DAMPING = 0.5
TOO_FAR, HUGE = 10.0, 1e30


class CurvatureWarning(UserWarning):
    """The curvature is negative where the damping cannot make up for it: no inverse to rely on."""


@final
@dataclass(frozen=True)
class SolverStatus:
    """Why the solver stopped, for all right-hand sides for which it was the same reason.

    Attributes:
        reason: ``"converged"``, ``"max iterations"`` or ``"negative curvature"``.
        vectors: number of right-hand sides.
        iterations: the largest number of iterations among them.
        residual: the largest ‖(H + λI) x − v‖ / ‖v‖ among them; of ``LiSSA``, an estimate.
    """

    reason: str
    vectors: int
    iterations: int
    residual: float


class Operator(Protocol):
    """V ↦ (H + λI) V for vectors ``[vectors, parameters]``."""

    damping: float
    rows: int

    def __call__(self, vectors: Tensor, positions: Tensor | None = None) -> Tensor:
        """The product; with H over the rows at ``positions``, or over all of them."""


class Solver(Protocol):
    """What finds (H + λI)⁻¹ v."""

    def solve(self, operator: Operator, vectors: Tensor) -> tuple[Tensor, list[SolverStatus]]:
        """Solutions ``[vectors, parameters]``, and why each group of them stopped."""


@final
@dataclass(frozen=True)
class CG:
    """Conjugate gradients, for all right-hand sides side by side.

    A right-hand side that meets a direction d in which the negative curvature of H takes away half
    of the damping, dᵀHd ≤ −½λ‖d‖², keeps the answer so far. At the first step that is its gradient,
    divided by the size of the curvature. A ``CurvatureWarning`` says so: the network is no minimum
    of its loss, and further steps would follow that direction without end.

    Attributes:
        tolerance: stop at ‖(H + λI) x − v‖ ≤ tolerance · ‖v‖.
        max_iterations: stop after so many products with the Hessian.
    """

    tolerance: float = 1e-4
    max_iterations: int = 100

    def __post_init__(self) -> None:
        if not self.tolerance >= 0 or self.max_iterations < 1:
            raise ScoreError(
                f"CG cannot stop at tolerance {self.tolerance} or after {self.max_iterations} "
                "iterations: a tolerance is at least 0, and there is at least one iteration."
            )

    def solve(self, operator: Operator, vectors: Tensor) -> tuple[Tensor, list[SolverStatus]]:
        """Solutions ``[vectors, parameters]``, and why each group of them stopped.

        Raises:
            ScoreError: for products that are not finite, or without any curvature or damping.
        """
        x, r, d = torch.zeros_like(vectors), vectors.clone(), vectors.clone()
        norms = vectors.norm(dim=1)
        goal, least = self.tolerance * norms, MUCH_OF_THE_DAMPING * operator.damping
        iterations = torch.zeros(len(vectors), dtype=torch.int64)
        reasons = [CONVERGED] * len(vectors)
        alive = torch.nonzero(norms > 0).flatten()
        for step in range(1, self.max_iterations + 1):
            if not len(alive):
                break
            rr, direction = r[alive].square().sum(dim=1), d[alive]
            product = _finite(operator(direction))
            curvature = (direction * product).sum(dim=1)
            bent = curvature <= least * direction.square().sum(dim=1)
            if bent.any():
                _note_bent(reasons, alive[bent])
                if step == 1:
                    x[alive[bent]] = _steepest(rr[bent], curvature[bent], direction[bent])
            lr = torch.where(bent, 0, rr / curvature).unsqueeze(1)
            x[alive] += lr * direction
            r[alive] -= lr * product
            again = r[alive].square().sum(dim=1)
            d[alive] = r[alive] + (again / rr).unsqueeze(1) * direction
            iterations[alive.cpu()] = step
            alive = alive[~bent & (again.sqrt() > goal[alive])]
        for left in alive.tolist():
            reasons[left] = EXHAUSTED
        return x, _stops(reasons, iterations, _relative(r, norms))


@final
@dataclass(frozen=True)
class LiSSA:
    """The stochastic recursion, for all right-hand sides side by side.

    It ends "converged" when the mean residual over the last quarter of the steps is at most
    ``tolerance``. Many implementations damp by x ← v + (1 − δ) x − H x / s, which is λ = δ · s
    here.

    Attributes:
        scale: s, at least half the largest eigenvalue of H_B + λI over all batches.
        depth: steps of the recursion.
        repeats: independent recursions that are averaged.
        batch_size: rows in B, drawn with replacement.
        tolerance: of the residual that is called converged; it does not stop the recursion.
        seed: of the batches.
    """

    scale: float = 10.0
    depth: int = 1000
    repeats: int = 1
    batch_size: int = 64
    tolerance: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.depth, self.repeats, self.batch_size)
        if not self.scale > 0 or min(counts) < 1:
            raise ScoreError(
                f"LiSSA cannot run with {asdict(self)}: the scale is positive, and depth, repeats "
                "and batch_size are at least 1."
            )

    def solve(self, operator: Operator, vectors: Tensor) -> tuple[Tensor, list[SolverStatus]]:
        """Solutions ``[vectors, parameters]``, and why each group of them stopped.

        Raises:
            ScoreError: when the recursion diverges.
        """
        generator = torch.Generator("cpu").manual_seed(self.seed)
        norms = vectors.norm(dim=1)
        answer, drift = torch.zeros_like(vectors), torch.zeros_like(vectors)
        for _ in range(self.repeats):
            x, step = self._recursion(operator, vectors, norms, generator)
            answer += x / (self.scale * self.repeats)
            drift += step / self.repeats
        residual = _relative(drift, norms)
        reasons = [CONVERGED if r <= self.tolerance else EXHAUSTED for r in residual.tolist()]
        return answer, _stops(reasons, torch.full((len(vectors),), self.depth), residual)

    def _recursion(
        self, operator: Operator, v: Tensor, norms: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The last x, and the mean of its last changes, which are residuals of x / s."""
        x, last = v.clone(), max(1, self.depth // 4)
        bound = norms * _largest_answer(self.scale, operator.damping)
        earlier = x
        for step in range(self.depth):
            if step == self.depth - last:
                earlier = x
            batch = torch.randint(
                operator.rows, (self.batch_size,), generator=generator, device="cpu"
            )
            x = v + x - operator(x, batch) / self.scale
            if not (x.norm(dim=1) <= bound).all():
                raise ScoreError(self._diverged(step + 1, operator.damping))
        return x, (x - earlier) / last

    def _diverged(self, step: int, damping: float) -> str:
        return (
            f"LiSSA diverged at step {step} of {self.depth}, with scale {self.scale:g} and damping "
            f"{damping:g}: its answer is larger than any inverse can make it. Either an eigenvalue "
            "of the Hessian of some batch is above twice the scale (raise the scale, and the depth "
            "with it, or the batch size), or one is below −damping (raise the damping)."
        )


def summary(stops: Sequence[SolverStatus]) -> list[dict[str, Any]]:
    """Stops of several blocks of right-hand sides, one for each reason, as plain values.

    Warns:
        CurvatureWarning: when any of them met negative curvature.
    """
    merged: dict[str, SolverStatus] = {}
    for stop in stops:
        other = merged.get(stop.reason, SolverStatus(stop.reason, 0, 0, 0.0))
        merged[stop.reason] = SolverStatus(
            stop.reason,
            stop.vectors + other.vectors,
            max(stop.iterations, other.iterations),
            max(stop.residual, other.residual),
        )
    if BENT in merged:
        warnings.warn(
            f"CG met negative curvature for {merged[BENT].vectors} of "
            f"{sum(stop.vectors for stop in stops)} gradients, whose scores come from the answer "
            "so far. The model is no minimum of its loss: raise the damping, train further, or "
            "take the Gauss-Newton part, KohLiang(..., hessian='gauss-newton').",
            CurvatureWarning,
            stacklevel=3,
        )
    return [asdict(stop) for stop in merged.values()]


def _stops(reasons: Sequence[str], iterations: Tensor, residuals: Tensor) -> list[SolverStatus]:
    """One stop for each reason."""
    found = []
    for reason in dict.fromkeys(reasons):
        of = torch.tensor([other == reason for other in reasons])
        found.append(
            SolverStatus(
                reason, int(of.sum()), int(iterations[of].max()), float(residuals[of].max())
            )
        )
    return found


def _relative(residuals: Tensor, norms: Tensor) -> Tensor:
    """‖r‖ / ‖v‖, or 0 for v = 0, on the CPU."""
    sizes = residuals.norm(dim=1)
    return torch.where(norms > 0, sizes / norms, 0).cpu()


def _note_bent(reasons: list[str], which: Tensor) -> None:
    for place in which.tolist():
        reasons[place] = BENT


def _steepest(rr: Tensor, curvature: Tensor, direction: Tensor) -> Tensor:
    """The gradient over the size of its curvature."""
    if (curvature == 0).any():
        raise ScoreError(
            "The Hessian has no curvature along the gradient of a query, and there is no damping, "
            "so that nothing can be inverted: set a damping above 0."
        )
    return (rr / curvature.abs()).unsqueeze(1) * direction


def _finite(product: Tensor) -> Tensor:
    if not torch.isfinite(product).all():
        raise ScoreError(
            "A product with the Hessian is not finite. Check the training rows for losses that "
            "are not finite, or use float64."
        )
    return product


def _largest_answer(scale: float, damping: float) -> float:
    """Far above s / λ, the largest norm that x can have for ‖v‖ = 1 and a Hessian ⪰ 0."""
    return TOO_FAR * max(scale / damping, 1) if damping > 0 else HUGE
