"""Influence functions (Koh & Liang 2017) by conjugate gradients and by Arnoldi, by dattri.

    score = ∇ℓ_qᵀ (H + λI)⁻¹ ∇ℓ_z

H is the Hessian of the mean loss, λ the damping. CG takes ``iterations`` steps for every query;
Arnoldi projects on the ``dimension`` eigenvalues of largest size, and has no scores if one of them
is negative after damping. ``rows`` > 0 estimates H from that many training rows only, evenly
spaced, which shortens CG. Scores of several networks are averaged.

The library's own loop repeats the inversion for every batch of training rows, so its steps are
taken here in the better order: queries once, then training rows. Its EK-FAC is left out, since
version 0.3.0 takes the gradients of all weights, then all biases, for rows that end with a bias.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from dattri.algorithm.influence_function import IFAttributorArnoldi, IFAttributorCG
from dattri.task import AttributionTask
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers._adapter import Clock, Found, Method, batches, mean, run
from benchmarks.peers._case import Case, build

FLOAT = 4  # bytes


def _task(case: Case) -> AttributionTask:
    model = build(case.model).eval()

    def loss(parameters: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
        x, y = rows
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    return AttributionTask(loss, model, case.states)


def _all_in_one(case: Case, rows: int) -> DataLoader:
    """Training rows for the Hessian as the one batch that the library expects."""
    x, y = case.train
    kept = torch.linspace(0, len(y) - 1, min(rows or len(y), len(y))).long()
    return DataLoader(TensorDataset(x[kept], y[kept]), batch_size=len(kept))


def cg(
    case: Case,
    clock: Clock,
    *,
    iterations: int = 10,
    rows: int = 0,
    batch: int = 50,
    query_batch: int = 10,
) -> "Answer":
    """Conjugate gradients: all work is done for the queries."""

    def make(damping: float) -> IFAttributorCG:
        attributor = IFAttributorCG(_task(case), max_iter=iterations, regularization=damping)
        attributor.cache(_all_in_one(case, rows))
        return attributor

    return Answer(case, clock, make, (query_batch, batch), kept=0)


def arnoldi(
    case: Case,
    clock: Clock,
    *,
    dimension: int = 50,
    iterations: int = 100,
    rows: int = 0,
    batch: int = 50,
) -> "Answer":
    """Arnoldi: the damping is part of the Krylov space, so nothing is shared between dampings."""

    def make(damping: float) -> IFAttributorArnoldi:
        attributor = IFAttributorArnoldi(
            _task(case), proj_dim=dimension, max_iter=iterations, regularization=damping
        )
        attributor.cache(_all_in_one(case, rows))
        return attributor

    return Answer(case, clock, make, (batch, batch), kept=dimension * FLOAT * len(case.states))


class Answer:
    """Scores with one damping, network after network."""

    def __init__(
        self,
        case: Case,
        clock: Clock,
        make: Callable[[float], IFAttributorCG | IFAttributorArnoldi],
        sizes: tuple[int, int],
        kept: int,
    ) -> None:
        self.case, self.clock, self.make, self.sizes, self.kept = case, clock, make, sizes, kept

    @torch.no_grad()  # or the graph of every step is kept
    def __call__(self, damping: float | None) -> Found:
        with self.clock("cache"):
            self.attributor = self.make(damping or 0.0)
        return Found(mean([self._scores(k) for k in range(len(self.case.states))]), None, self.kept)

    def _scores(self, k: int) -> Tensor:
        """[query, train] of network k; what can be kept of training rows is made first."""
        known = []
        if self.kept:
            with self.clock("cache"):
                known = list(self._train(k))
        with self.clock("query"):
            asked = torch.cat(list(self._asked(k)))
            return torch.cat([asked @ part.T for part in known or self._train(k)], dim=1)

    def _asked(self, k: int) -> Iterator[Tensor]:
        for rows in batches(self.case.queries, self.sizes[0]):
            gradients = self.attributor.generate_test_rep(k, _wrapped(rows))
            yield self.attributor.transform_test_rep(k, gradients)

    def _train(self, k: int) -> Iterator[Tensor]:
        for rows in batches(self.case.train, self.sizes[1]):
            gradients = self.attributor.generate_train_rep(k, _wrapped(rows))
            yield self.attributor.transform_train_rep(k, gradients)


def _wrapped(rows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Rows with the leading dimension of 1 that the library maps over."""
    return tuple(part.unsqueeze(0) for part in rows)


METHODS: dict[str, Method] = {"Arnoldi": arnoldi, "IF-CG": cg}

if __name__ == "__main__":
    run(METHODS, "dattri")
