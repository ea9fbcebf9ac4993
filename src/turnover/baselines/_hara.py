"""SGD-influence: the training walked back, step by step, from the query to the instances.

What if z had been left out of the batches S_t ∋ z, with everything else as it was? To first order
the loss of q changes by a sum over these steps. For plain SGD, θ ← θ − η_t g_t,

    u_T = ∇L(q; θ_T),        I(q, z) = Σ_{t: z ∈ S_t} η_t / |S_t| ⟨u_{t+1}, ∇L(z; θ_t)⟩,
    u_t = u_{t+1} − η_t H_t u_{t+1},

with g_t and H_t the gradient and Hessian of the mean loss over S_t. With momentum μ and weight
decay λ as in torch.optim.SGD, a step is

    g = ∇ mean L + λθ,        v' = μv + g,        θ' = θ − η (a g + b v'),

where (a, b) = (0, 1), with Nesterov (1, μ), without momentum (1, 0). Its adjoint, for the
derivatives u of L(q) with respect to θ and w with respect to v, from u' and w' after the step:

    c = w' − η b u',        e = c − η a u',        w = μ c,        u = u' + (H_t + λ) e,

and z adds −⟨e, ∇L(z; θ_t)⟩ / |S_t| to I(q, z).

Reference: Hara, Nitanda, Maehara 2019, "Data cleansing for models trained with SGD" (without
momentum). |S_t| divides the Hessian once, as in the paper; a part of the published code does so
twice.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from turnover._functional import Parameters, trainable
from turnover._rows import Batch, Loss
from turnover.baselines._derivatives import Progress, gradients, hessian_products, split
from turnover.baselines._koh_liang import deployed
from turnover.baselines._trace import Step, TrainingTrace
from turnover.data import Rows
from turnover.errors import DataError, IdError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["SgdInfluence"]


@final
@dataclass(frozen=True)
class SgdInfluence(PairwiseEstimator):
    """Influence through every step of a recorded training.

    The steps are walked back in evaluation mode. Ordinary dropout is left out there, which makes
    the result of a training with dropout an approximation of another kind.

    Memory: two vectors of all parameters for each of ``queries_at_once``, beside the trace. Time:
    a product with the Hessian of every batch of the training, for every query.

    Attributes:
        model: of the same architecture as the recorded one; its own parameters play no part.
        loss: (model, batch) → per-example losses ``[rows]`` in nats, as in the training.
        trace: what :func:`record_training` kept of the training.
        queries_at_once: queries with which the steps are walked back together.
    """

    model: nn.Module
    loss: Loss
    trace: TrainingTrace
    queries_at_once: int = 64

    def scores(
        self, queries: Batch | Rows, rows: Rows, *, progress: Progress | None = None
    ) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped.

        Args:
            queries: a batch of any structure, or :class:`Rows`, whose ids are then kept.
            rows: the rows of the training, in any order.
            progress: called with the number of walked and of all steps, for all queries.

        Raises:
            DataError: for no queries or rows, or a trace of another model.
            IdError: for rows that were not trained on.
            LossError: for losses of a wrong shape, or gradients that are not finite.
            RunError: for a trace on disk that cannot be read.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        self._refuse_others(rows)
        values = torch.zeros(len(asked), len(rows), dtype=torch.float64)
        starts = range(0, len(asked), self.queries_at_once)
        total, steps = len(starts) * len(self.trace.steps), self.trace.steps
        with deployed(self.model):
            for number, start in enumerate(starts):
                part = slice(start, start + self.queries_at_once)
                u = self._first(asked.select(part))
                w = torch.zeros_like(u)
                for back in range(len(steps)):
                    step = steps[len(steps) - 1 - back]
                    u, w = self._back(step, rows, (u, w), values[part])
                    if progress is not None:
                        progress(number * len(steps) + back + 1, total)
        about = {"estimator": "sgd-influence", "steps": len(steps)}
        about |= {"momentum": self.trace.momentum, "weight_decay": self.trace.weight_decay}
        return Scores(values.float(), rows.ids, asked.ids, about=about)

    def _first(self, asked: Rows) -> Tensor:
        """∇L(q; θ_T), ``[query, parameters]``."""
        at = self._at(self.trace.final)
        return torch.cat(list(gradients(self.model, self.loss, asked, parameters=at)))

    def _back(
        self, step: Step, rows: Rows, after: tuple[Tensor, Tensor], values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """u and w before the step; what its instances add goes to ``values [query, train]``."""
        trace, (u, w) = self.trace, after
        a = 1.0 if trace.nesterov or not trace.momentum else 0.0
        b = trace.momentum if trace.nesterov else 1.0 if trace.momentum else 0.0
        positions = rows.rows_of(step.ids)
        batch, at = rows.select(positions), self._at(step.parameters)
        c = w - step.lr * b * u
        e = c - step.lr * a * u
        for_each = torch.cat(list(gradients(self.model, self.loss, batch, parameters=at)))
        values[:, positions] -= (e @ for_each.T).double().cpu() / len(batch)
        sums = hessian_products(self.model, self.loss, batch.batch, e, parameters=at)
        return u + sums / len(batch) + trace.weight_decay * e, trace.momentum * c

    def _at(self, parameters: Tensor) -> Parameters:
        like = trainable(self.model)
        first = next(iter(like.values()))
        return split(parameters.to(first.device, first.dtype), like)

    def _refuse_others(self, rows: Rows) -> None:
        wanted = sum(value.numel() for value in trainable(self.model).values())
        if self.trace.final.numel() != wanted:
            raise DataError(
                f"The trace holds {self.trace.final.numel()} parameters at each step, but this "
                f"{type(self.model).__name__} has {wanted} that can be trained: it is the trace of "
                "another model, or other parameters were frozen."
            )
        mine, recorded = rows.ids.sort().values, self.trace.train_ids.sort().values
        if not torch.equal(mine, recorded):
            raise IdError(
                f"The training that was recorded had {len(recorded)} rows, and their ids are not "
                f"those of the {len(mine)} rows given. Hand over the rows of the training."
            )
