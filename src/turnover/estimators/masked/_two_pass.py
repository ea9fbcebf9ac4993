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

from turnover._rows import (
    Batch,
    Loss,
    count_rows,
    in_memory,
    per_example,
    repeat_rows,
    select_rows,
    to_device_of,
)
from turnover.data import Rows
from turnover.errors import LossError, ScoreError, TurnoverError
from turnover.estimators._estimator import FittedRows, PairwiseEstimator, as_rows
from turnover.estimators._isolation import refuse_mixing
from turnover.estimators.masked._memory import bytes_per_row
from turnover.estimators.masked._scan import checked_ids
from turnover.masks import gates, unique_ids
from turnover.nn import evaluating, full, gated, masked_layers
from turnover.scores import Scores
from turnover.training import losses_of

__all__ = ["TwoPass"]

Progress = Callable[[int, int], None]
PREFIX = {True: "shared", False: "repeated"}


@final
@dataclass(frozen=True)
class TwoPass(PairwiseEstimator):
    """The score of the paper, for every query and every instance.

    Attributes:
        model: a converted model; it is left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        form: ``"seen"`` compares with the seen sub-network (equation 2), ``"full"`` with the full
            network (footnote 4).
        share_prefix: run what precedes the first mask once per query. Models that ``torch.vmap``
            cannot map fall back to whole passes by themselves.
        memory_mb: budget for the activations of one block of pairs.
        check: run two queries alone first. Queries that reach each other are an error.
    """

    model: nn.Module
    loss: Loss
    form: Literal["seen", "full"] = "seen"
    share_prefix: bool = True
    memory_mb: float = 256.0
    check: bool = True

    def __post_init__(self) -> None:
        if self.form not in ("seen", "full"):
            raise ScoreError(f"form is 'seen' or 'full', not {self.form!r}.")

    def scores(
        self,
        queries: Batch | Rows,
        ids: Tensor | range | Rows,
        *,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped.

        Args:
            queries: a batch of any structure, or :class:`Rows`, whose ids are then kept.
            ids: the training rows, or their ids ``[train]``.
            progress: called with the number of finished and of all pairs.

        Raises:
            IdError: for ids that are not distinct 64-bit integers.
            LossError: for losses of a wrong shape, or that are not numbers.
            ConversionError: for a model without turn-over layers, queries that reach each other,
                and a loss that is random in evaluation mode.
        """
        rows = as_rows(queries)
        asked = in_memory(rows.batch)
        train = unique_ids(checked_ids(ids)).cpu()
        values = torch.empty(len(rows), len(train))
        with torch.no_grad(), evaluating(self.model):
            if self.check:
                refuse_mixing(self.model, self.loss, asked)
            row = to_device_of(self.model, select_rows(asked, slice(0, 1)))
            pairs = max(1, int(self.memory_mb * 2**20) // bytes_per_row(self.model, self.loss, row))
            share = self.share_prefix and self._can_be_mapped(row, train[:2])
            for part in _blocks(len(rows), max(1, pairs // (2 * len(train)))):
                batch = to_device_of(self.model, select_rows(asked, part))
                self._fill(values, part, batch, train, pairs=pairs, share=share)
                if progress is not None:
                    progress(min(part.stop, len(rows)) * len(train), values.numel())
        about = {"estimator": "exact", "form": self.form, "prefix": PREFIX[share]}
        return Scores(values, train, rows.ids, about=about)

    def fit(self, rows: Tensor | range | Rows) -> FittedRows:
        """Remember the training rows, or their ids; all work is done for the queries."""
        return FittedRows(self, rows)

    def self_scores(self, rows: Rows) -> Tensor:
        """L(unseen) − L(seen) of every row, ``float32 [train]`` in nats: its memorisation."""
        unseen, seen = (losses_of(self.model, self.loss, rows, w) for w in ("unseen", "seen"))
        return unseen - seen

    def losses(self, queries: Batch, ids: Tensor, *, unseen: bool) -> Tensor:
        """Losses ``[query, train]`` of all queries in the sub-networks of all ids, in nats.

        Raises:
            LossError, ConversionError: as :meth:`scores`.
        """
        with torch.no_grad(), evaluating(self.model):
            if self.check:
                refuse_mixing(self.model, self.loss, queries)
            queries = to_device_of(self.model, queries)
            row = select_rows(queries, slice(0, 1))
            bytes_per_row(self.model, self.loss, row)
            share = self.share_prefix and self._can_be_mapped(row, ids[:2])
            return self._losses(queries, self._gates(ids, unseen), share).T.float()

    def _fill(
        self, values: Tensor, part: slice, queries: Batch, train: Tensor, *, pairs: int, share: bool
    ) -> None:
        whole = self._full_losses(queries) if self.form == "full" else None
        for block in _blocks(len(train), max(1, pairs // (2 * count_rows(queries)))):
            ids = train[block]
            sides = [self._gates(ids, True)] + ([self._gates(ids, False)] if whole is None else [])
            made = {name: torch.cat([side[name] for side in sides]) for name in sides[0]}
            losses = self._losses(queries, made, share)
            seen = losses[len(ids) :] if whole is None else whole
            values[part, block] = _finite(losses[: len(ids)] - seen, ids, part.start).T.float()

    def _gates(self, ids: Tensor, unseen: bool) -> dict[str, Tensor]:
        """Gates ``[train, units]`` of every layer, as precise as the weights."""
        weights = next(self.model.parameters(), torch.empty(0))
        dtype = torch.float64 if weights.dtype == torch.float64 else torch.float32
        return {
            name: gates(
                ids.to(weights.device),
                layer.spec.units,
                seed=layer.seed,
                layer=layer.layer,
                keep=layer.keep,
                unseen=unseen,
                dtype=dtype,
            )
            for name, layer in masked_layers(self.model).items()
        }

    def _losses(self, queries: Batch, made: dict[str, Tensor], share: bool) -> Tensor:
        """L(f^γ, q) for all gates γ and queries, float64 ``[gates, query]``."""
        if share:
            return vmap(lambda gate: self._one(queries, gate))(made).double().cpu()
        return self._whole_passes(queries, made).double().cpu()

    def _can_be_mapped(self, row: Batch, ids: Tensor) -> bool:
        """Whether ``torch.vmap`` can map the model: no branch on values, no change in place."""
        try:
            self._losses(row, self._gates(ids, True), share=True)
        except (TurnoverError, torch.OutOfMemoryError):
            raise
        except RuntimeError:
            return False
        return True

    def _one(self, queries: Batch, gate: dict[str, Tensor]) -> Tensor:
        with gated(self.model, gate):
            return per_example(self.loss(self.model, queries), count_rows(queries))

    def _whole_passes(self, queries: Batch, made: dict[str, Tensor]) -> Tensor:
        rows, count = count_rows(queries), len(next(iter(made.values())))
        repeated = {name: gate.repeat_interleave(rows, 0) for name, gate in made.items()}
        return self._one(repeat_rows(queries, count), repeated).view(count, rows)

    def _full_losses(self, queries: Batch) -> Tensor:
        with full(self.model):
            return per_example(self.loss(self.model, queries), count_rows(queries)).double().cpu()


def _blocks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _finite(scores: Tensor, ids: Tensor, first_query: int) -> Tensor:
    if not torch.isfinite(scores).all():
        z, q = torch.nonzero(~torch.isfinite(scores))[0].tolist()
        raise LossError(
            f"The score of query {first_query + q} and instance {int(ids[z])} is "
            f"{float(scores[z, q])}: the loss of one of the two sub-networks is not a finite "
            "number. Check the query's inputs and label, and whether training diverged."
        )
    return scores
