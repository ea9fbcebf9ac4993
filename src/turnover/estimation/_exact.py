"""Exact turn-over scores: two forward passes per query and instance.

    I(q, z) = L(f^m̃(z), q) − L(f^m(z), q)                                              equation (2)

or, with the full network in place of the seen one (footnote 4), L(f^m̃(z), q) − L(f, q).
The gates of many instances enter as one mapped dimension, so that the part of the network before
the first turn-over layer runs once per query, and the rest once per pair.

Reference: Kobayashi, Yokoi, Suzuki, Inui 2020, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.func import vmap

from turnover._errors import LossError, ScoreError
from turnover._rows import Batch, Loss, count_rows, per_example, repeat_rows, select_rows
from turnover.data import Rows
from turnover.estimation._memory import bytes_per_row
from turnover.masks import gates, unique_ids
from turnover.nn import evaluating, full, gated, masked_layers
from turnover.scores import Scores

__all__ = ["Exact"]

Progress = Callable[[int, int], None]


@final
@dataclass(frozen=True)
class Exact:
    """The score of the paper, for every query and every instance.

    Attributes:
        model: a converted model; it is left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        form: ``"seen"`` compares with the seen sub-network (equation 2), ``"full"`` with the full
            network (footnote 4).
        share_prefix: run what precedes the first mask once per query. Models that ``torch.vmap``
            cannot map fall back to whole passes by themselves.
        memory_mb: budget for the activations of one block of pairs.
    """

    model: nn.Module
    loss: Loss
    form: Literal["seen", "full"] = "seen"
    share_prefix: bool = True
    memory_mb: float = 256.0

    def __post_init__(self) -> None:
        if self.form not in ("seen", "full"):
            raise ScoreError(f"form is 'seen' or 'full', not {self.form!r}.")

    def scores(
        self, queries: Batch | Rows, ids: Tensor | range, *, progress: Progress | None = None
    ) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped.

        Args:
            queries: a batch of any structure, or :class:`Rows`, whose ids are then kept.
            ids: ids of the training instances, ``[train]``.
            progress: called with the number of finished and of all pairs.

        Raises:
            IdError: for ids that are not distinct 64-bit integers.
            LossError: for losses of a wrong shape, or that are not numbers.
            ConversionError: for a model without turn-over layers.
        """
        rows = queries if isinstance(queries, Rows) else Rows(queries)
        train = unique_ids(ids)
        block = self._queries_per_block(rows.batch)
        values = torch.empty(len(rows), len(train))
        with torch.no_grad(), evaluating(self.model):
            for start in range(0, len(rows), block):
                part = slice(start, start + block)
                self._fill(values, part, select_rows(rows.batch, part), train, progress)
        return Scores(values, train, rows.ids, about={"estimator": "exact", "form": self.form})

    def losses(self, queries: Batch, ids: Tensor, *, unseen: bool) -> Tensor:
        """Losses ``[query, train]`` of all queries in the sub-networks of all ids, in nats."""
        with torch.no_grad(), evaluating(self.model):
            self._reach_layers(queries)
            return self._losses(queries, ids, unseen=unseen).T

    def _fill(
        self, values: Tensor, part: slice, queries: Batch, train: Tensor, progress: Progress | None
    ) -> None:
        out = values[part]
        step = max(1, self._pairs_per_block(queries) // len(out))
        if self.form == "full":
            reference = self._full_losses(queries)
        for start in range(0, len(train), step):
            ids = train[start : start + step]
            unseen = self._losses(queries, ids, unseen=True)
            seen = reference if self.form == "full" else self._losses(queries, ids, unseen=False)
            out[:, start : start + step] = _finite(unseen - seen, ids, part.start).T
            if progress is not None:
                here = len(out) * min(start + step, len(train))
                progress(part.start * len(train) + here, values.numel())

    def _losses(self, queries: Batch, ids: Tensor, *, unseen: bool) -> Tensor:
        """L(f^m(z), q) for all pairs, ``[train, query]``."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        made = {
            name: gates(
                ids.to(device),
                layer.spec.units,
                seed=layer.seed,
                layer=layer.layer,
                p=layer.p,
                unseen=unseen,
            )
            for name, layer in masked_layers(self.model).items()
        }
        if self.share_prefix:
            try:
                return vmap(lambda gate: self._one(queries, gate))(made).cpu()
            except RuntimeError:
                pass
        return self._whole_passes(queries, made, len(ids)).cpu()

    def _one(self, queries: Batch, gate: dict[str, Tensor]) -> Tensor:
        with gated(self.model, gate):
            return per_example(self.loss(self.model, queries), count_rows(queries)).float()

    def _whole_passes(self, queries: Batch, made: dict[str, Tensor], count: int) -> Tensor:
        rows = count_rows(queries)
        repeated = {name: gate.repeat_interleave(rows, 0) for name, gate in made.items()}
        return self._one(repeat_rows(queries, count), repeated).view(count, rows)

    def _full_losses(self, queries: Batch) -> Tensor:
        with full(self.model):
            return per_example(self.loss(self.model, queries), count_rows(queries)).float().cpu()

    def _reach_layers(self, queries: Batch) -> int:
        return bytes_per_row(self.model, self.loss, select_rows(queries, slice(0, 1)))

    def _pairs_per_block(self, queries: Batch) -> int:
        return max(1, int(self.memory_mb * 2**20) // self._reach_layers(queries))

    def _queries_per_block(self, queries: Batch) -> int:
        with torch.no_grad(), evaluating(self.model):
            return max(1, min(count_rows(queries), self._pairs_per_block(queries)))


def _finite(scores: Tensor, ids: Tensor, first_query: int) -> Tensor:
    if not torch.isfinite(scores).all():
        z, q = torch.nonzero(~torch.isfinite(scores))[0].tolist()
        raise LossError(
            f"The score of query {first_query + q} and instance {int(ids[z])} is "
            f"{float(scores[z, q])}: the loss of one of the two sub-networks is not a finite "
            "number. Check the query's inputs and label, and whether training diverged."
        )
    return scores
