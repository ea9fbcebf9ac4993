"""The best of very many rows in two stages: few numbers of every row first, all of a few rows then.

Of a row z, a network's landmarks keep m numbers, and H⁻¹ weighs them. A few of their directions, d
of them, nearly give the product with a query:

    φ_qᵀ H⁻¹ φ_z r_z = y_qᵀ y_z r_z ≈ (U_dᵀ y_q)ᵀ (U_dᵀ y_z) r_z,       y = H^{-½} z,

with U_d the principal directions of y r over the rows. Stage one streams d numbers of a row for
each network, in half precision, and keeps the best rows of every query. Stage two gives them the
scores of the whole kernel. ``benchmarks/results/billion.json`` says which rows stage one loses.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover._precise import precise
from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._fitted import FittedKernel
from turnover.estimators.kernel._landmarks import LandmarkRidge, row_blocks, rows_at
from turnover.scores import Kind, Ranking, refuse_other_kinds
from turnover.training import losses_of

__all__ = ["Coarse"]

WIDTH, KEPT = 32, 100_000
STREAMED = 16_384  # rows of stage one that are multiplied at once: more leave the cache
SAMPLED = 16_384  # rows of which directions are taken


@final
@dataclass(frozen=True)
class Coarse:
    """A few numbers of every row of a kernel with landmarks, for its first stage.

    Attributes:
        fitted: the kernel.
        turned: of each network, what a query is multiplied by, ``[landmark, d]``.
        rows: what stage one reads, ``float16 [row, networks · d]``; residuals are in it.
    """

    fitted: FittedKernel
    turned: tuple[Tensor, ...]
    rows: Tensor

    @classmethod
    @precise()
    def of(cls, fitted: FittedKernel, width: int = WIDTH) -> "Coarse":
        """Take d = ``width`` directions of each network, from one pass over what landmarks keep.

        Raises:
            ScoreError: for a kernel that is solved exactly, or a width below 1.
        """
        solves = _solves(fitted)
        if width < 1:
            raise ScoreError(f"Stage one needs at least 1 direction of a network, not {width}.")
        both = [_directions(solve, fitted.residual, width) for solve in solves]
        widths = [directions.shape[1] for _, directions in both]
        rows = torch.empty(len(fitted.train_ids), sum(widths), dtype=torch.float16)
        for solve, (_, directions), own in zip(
            solves, both, rows.split(widths, dim=1), strict=True
        ):
            for place, z in row_blocks(solve.parts):
                own[place] = ((z @ directions) * fitted.residual[place, None]).half()
        if not bool(torch.isfinite(rows).all()):
            raise ScoreError(
                "A row is too large for half precision in stage one. Scale the inputs, or ask the "
                "kernel itself."
            )
        return cls(fitted, tuple(turned for turned, _ in both), rows)

    @property
    def bytes_per_instance(self) -> int:
        """What stage one reads of each row."""
        return self.rows.shape[1] * self.rows.element_size()

    @precise()
    def candidates(self, queries: Batch | Rows, keep: int, kind: Kind = "helpful") -> Tensor:
        """Positions of the rows that stage one keeps, ``int64 [query, keep]``, in their order.

        Raises:
            ScoreError: for another kind, or for ``keep`` below 1.
        """
        refuse_other_kinds(kind)
        if keep < 1:
            raise ScoreError(f"Stage one keeps at least 1 row of each query, not {keep}.")
        asked = torch.cat(
            [z @ t for z, t in zip(self._asked(queries), self.turned, strict=True)], 1
        )
        return best_rows(self.rows, asked if kind == "helpful" else -asked, keep)

    @precise()
    def top(
        self, queries: Batch | Rows, k: int, kind: Kind = "helpful", *, keep: int = KEPT
    ) -> Ranking:
        """The k best rows of every query, among those that stage one keeps.

        Args:
            queries: rows, or a batch.
            k: how many.
            kind: ``"helpful"`` or ``"harmful"``.
            keep: rows of each query that stage one keeps; all rows give the ranking of the kernel.

        Raises:
            ScoreError: for k below 1 or above ``keep`` or the number of rows, or another kind.
        """
        rows, keep = as_rows(queries), min(keep, len(self.rows))
        if not 1 <= k <= keep:
            raise ScoreError(f"k is {k}, but must lie between 1 and the {keep} rows that are kept.")
        where = self.candidates(rows, keep, kind)
        scores = self._accurate(rows, where)
        order = scores.sort(dim=1, descending=kind == "helpful", stable=True).indices[:, :k]
        where = where.gather(1, order)
        return Ranking(self.fitted.train_ids[where], scores.gather(1, order), where)

    def _accurate(self, queries: Rows, where: Tensor) -> Tensor:
        """Scores of the whole kernel of some rows of each query, ``[query, kept]`` in nats."""
        fitted, solves = self.fitted, _solves(self.fitted)
        total, wrong = torch.zeros(where.shape), torch.zeros(len(queries))
        for network, solve, z in zip(fitted.networks, solves, self._asked(queries), strict=True):
            weighed = z @ solve.inverse
            for query, own in enumerate(where):
                total[query] += rows_at(solve.parts, own) @ weighed[query]
            wrong += fitted.config.link.residual(losses_of(network, fitted.config.loss, queries))
        wrong = fitted.config.link.floored(wrong / len(solves))
        return total / len(solves) * fitted.slope * fitted.residual[where] * wrong[:, None]

    def _asked(self, queries: Batch | Rows) -> list[Tensor]:
        """What the landmarks of each network see of the queries, ``[query, landmark]``."""
        rows, fitted = as_rows(queries), self.fitted
        return [
            solve.basis.features(fitted.config.features_of(network, rows)).cpu()
            for network, solve in zip(fitted.networks, _solves(fitted), strict=True)
        ]


def best_rows(rows: Tensor, asked: Tensor, keep: int) -> Tensor:
    """Positions of the largest products with each query ``int64 [query, keep]``, in their order."""
    best = [_Best(keep) for _ in asked]
    for start in range(0, len(rows), STREAMED):
        scores = asked @ rows[start : start + STREAMED].float().T
        for own, row in zip(best, scores, strict=True):
            own.add(row, start)
    return torch.stack([own.positions() for own in best])


class _Best:
    """The largest of a stream of numbers; what is below the least of them so far is never held."""

    def __init__(self, keep: int) -> None:
        self.keep, self.low, self.held = keep, float("-inf"), 0
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, scores: Tensor, start: int) -> None:
        near = torch.nonzero(scores > self.low).flatten()
        self.parts.append((scores[near], near + start))
        self.held += len(near)
        if self.held > 2 * self.keep:
            self._drop()

    def _drop(self) -> None:
        scores, where = (torch.cat(part) for part in zip(*self.parts, strict=True))
        best = scores.topk(min(self.keep, len(scores)))
        self.parts, self.held = [(best.values, where[best.indices])], len(best.values)
        if self.held == self.keep:
            self.low = float(best.values[-1])

    def positions(self) -> Tensor:
        self._drop()
        return self.parts[0][1].sort().values


def _solves(fitted: FittedKernel) -> list[LandmarkRidge]:
    found = [solve for solve in fitted.solves if isinstance(solve, LandmarkRidge)]
    if len(found) != len(fitted.solves):
        raise ScoreError(
            "This kernel is solved exactly, without landmarks, and answers in one stage. Two "
            "stages are for GradientKernel(landmarks=...), above hundreds of thousands of rows."
        )
    return found


def _directions(solve: LandmarkRidge, residual: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Of a query and of a row, ``[landmark, d]``: their products nearly are φ_qᵀ H⁻¹ φ_z.

    The principal directions of H^{-½} z r over some of the rows. Rows have a mean square of 1 in
    them, which half precision keeps best.
    """
    root = torch.linalg.cholesky(solve.inverse.double())
    some = torch.linspace(0, len(residual) - 1, min(SAMPLED, len(residual))).long()
    y = (rows_at(solve.parts, some).double() @ root) * residual[some, None]
    found = torch.linalg.eigh(y.T @ y).eigenvectors[:, -width:].flip(1)
    turned, unit = root @ found, (y @ found).square().mean().sqrt().clamp_min(1e-30)
    return (turned * unit).float(), (turned / unit).float()
