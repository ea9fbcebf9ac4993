"""Influence functions: the change of a query's loss when an instance gets a little less weight.

    I(q, z) = ∇L(q)ᵀ (H + λI)⁻¹ ∇L(z) / N,        H = ∇² (1/N) Σ_z L(z),

all derivatives with respect to the trainable parameters, at the trained model. Without z, the
minimum of the damped loss moves by (H + λI)⁻¹ ∇L(z) / N to first order, and the loss of q by I.
A weight decay of λ in training is the damping of that value.

References: Koh, Liang 2017, "Understanding black-box predictions via influence functions"; Martens
2020, "New insights and perspectives on the natural gradient method" (Gauss-Newton in place of H).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, select_rows
from turnover.baselines._derivatives import (
    Progress,
    gauss_newton_products,
    gradients,
    hessian_products,
)
from turnover.baselines._losses import finite_losses
from turnover.baselines._solvers import CG, Solver, SolverStatus, summary
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.nn import evaluating, full
from turnover.scores import Scores

__all__ = ["KohLiang", "deployed"]

PRODUCTS = {"true": hessian_products, "gauss-newton": gauss_newton_products}


@final
@dataclass(frozen=True)
class KohLiang(PairwiseEstimator):
    """Influence functions with the Hessian of the training loss, inverted by CG or LiSSA.

    Memory: one vector of all parameters for every query, and a few more for ``queries_at_once`` of
    them. Time: products with the Hessian, ``queries_at_once`` in one pass over the rows.

    Attributes:
        model: the trained model; run in evaluation mode, without masks, and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        solver: :class:`CG` or :class:`LiSSA`.
        damping: λ. It matters more than anything else: choose it on queries that are not reported.
        hessian: ``"true"`` for H, as in the paper, or ``"gauss-newton"`` for the part of it without
            negative curvature. The second needs less damping where a network is no minimum of its
            loss. It asks for a loss that calls the model once, and a tensor as its output.
        queries_at_once: right-hand sides that are solved side by side.
        rows_per_block: rows whose graph or gradients are held at once.
    """

    model: nn.Module
    loss: Loss
    solver: Solver = field(default_factory=CG)
    damping: float = 0.01
    hessian: Literal["true", "gauss-newton"] = "true"
    queries_at_once: int = 64
    rows_per_block: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.damping < float("inf"):
            raise ScoreError(
                f"The damping is {self.damping}, but H + λI has an inverse of use only for a "
                "number λ ≥ 0."
            )
        if self.hessian not in PRODUCTS:
            raise ScoreError(f"hessian is 'true' or 'gauss-newton', not {self.hessian!r}.")

    def scores(
        self, queries: Batch | Rows, rows: Rows, *, progress: Progress | None = None
    ) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped; ``about["stops"]`` says why.

        Args:
            queries: a batch of any structure, or :class:`Rows`, whose ids are then kept.
            rows: the whole training set.
            progress: called with the number of solved and of all queries.

        Raises:
            DataError: for no queries or rows.
            ConversionError: for a model in which nothing can be trained, or whose output the
                Gauss-Newton part cannot use.
            LossError: for losses of a wrong shape, or losses or gradients that are not finite.
            ScoreError: when LiSSA diverges, or products with the Hessian are not finite.

        Warns:
            CurvatureWarning: when CG meets negative curvature.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        finite_losses(self.model, self.loss, rows)
        solved, stops = [], []
        with deployed(self.model):
            for _, answer, stop in self._solved(asked, rows):
                solved.append(answer)
                stops += stop
                if progress is not None:
                    progress(sum(map(len, solved)), len(asked))
            left = torch.cat(solved)
            blocks = gradients(self.model, self.loss, rows, self.rows_per_block)
            values = torch.cat([(left @ g.T).float().cpu() for g in blocks], dim=1)
        return Scores(values / len(rows), rows.ids, asked.ids, about=self._about(stops))

    def self_scores(self, rows: Rows, *, progress: Progress | None = None) -> Tensor:
        """I(z, z) of every row, ``float32 [train]``: as many solutions as rows.

        A large one is an instance that the model knows from nothing but itself.

        Raises, Warns:
            As :meth:`scores`.
        """
        rows = as_rows(rows)
        finite_losses(self.model, self.loss, rows)
        values, stops = [], []
        with deployed(self.model):
            for gradient, answer, stop in self._solved(rows, rows):
                values.append((gradient * answer).sum(dim=1).float().cpu())
                stops += stop
                if progress is not None:
                    progress(sum(map(len, values)), len(rows))
        summary(stops)
        return torch.cat(values) / len(rows)

    def _solved(
        self, asked: Rows, rows: Rows
    ) -> Iterator[tuple[Tensor, Tensor, list[SolverStatus]]]:
        """(gradients, (H + λI)⁻¹ gradients, stops), in blocks of ``queries_at_once``."""
        operator = _Damped(self, rows)
        for gradient in gradients(self.model, self.loss, asked, self.queries_at_once):
            yield gradient, *self.solver.solve(operator, gradient)

    def _about(self, stops: list[SolverStatus]) -> dict[str, object]:
        settings = asdict(self.solver)  # type: ignore[call-overload]
        solver = {"name": type(self.solver).__name__, **settings}
        return {
            "estimator": "koh-liang",
            "damping": self.damping,
            "hessian": self.hessian,
            "solver": solver,
            "stops": summary(stops),
        }


@contextmanager
def deployed(model: nn.Module) -> Iterator[None]:
    """Within the block the model is what is deployed: in evaluation mode, without masks."""
    with evaluating(model), full(model):
        yield


class _Damped:
    """V ↦ (H + λI) V, with H over all training rows or over some of them."""

    def __init__(self, estimator: KohLiang, training: Rows) -> None:
        self._estimator, self._training = estimator, training
        self.damping, self.rows = estimator.damping, len(training)

    def __call__(self, vectors: Tensor, positions: Tensor | None = None) -> Tensor:
        mine = self._estimator
        found = self.damping * vectors
        among = torch.arange(self.rows, device="cpu") if positions is None else positions
        for part in among.split(mine.rows_per_block):
            batch = select_rows(self._training.batch, part)
            sums = PRODUCTS[mine.hessian](mine.model, mine.loss, batch, vectors)
            found = found + sums / len(among)
        return found
