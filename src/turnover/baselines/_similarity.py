"""The control that looks at what lies near: embeddings of query and instance, compared.

    I(q, z) = σ(q, z) cos(h(q), h(z))        or        σ(q, z) h(q)·h(z),

with h the output of one module, and σ = 1, or, when labels are given, +1 for instances of the
query's class and −1 for others: a near instance with another label speaks against the label of q.

Reference: Hanawa, Yokoi, Hara, Inui 2021, "Evaluation of similarity-based explanations".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, blocks_of, select_rows, to_device_of
from turnover.baselines._koh_liang import deployed
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, LossError, ScoreError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["Similarity"]


@final
@dataclass(frozen=True)
class Similarity(PairwiseEstimator):
    """Similarity of embeddings at a named module.

    Attributes:
        model: the trained model; run in evaluation mode, without masks, and left as found.
        loss: (model, batch) → per-example losses; it is called for running the model.
        at: name of the module whose output is the embedding, ``[rows, ...]``, laid out as one
            vector for each row.
        measure: ``"cosine"`` or ``"dot"``.
        labels: from a batch to its labels ``[rows]``; without it, similarity has no sign.
        rows_per_block: rows that are run at once.

    Raises:
        ConversionError: for a name that is no module of the model.
        ScoreError: for another measure.
    """

    model: nn.Module
    loss: Loss
    at: str
    measure: Literal["cosine", "dot"] = "cosine"
    labels: Callable[[Batch], Tensor] | None = None
    rows_per_block: int = 512

    def __post_init__(self) -> None:
        if self.measure not in ("cosine", "dot"):
            raise ScoreError(f"measure is 'cosine' or 'dot', not {self.measure!r}.")
        if self.at not in (names := dict(self.model.named_modules())):
            raise ConversionError(
                f"No module of this {type(self.model).__name__} is called {self.at!r}. It has "
                f"{sorted(names)[1:]}."
            )

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``, without a unit, positive = alike.

        Raises:
            ConversionError: when the model never reaches the module, or it puts out no tensor with
                one entry for each row.
            DataError: for no queries or rows, or labels of a wrong shape.
            LossError: for embeddings that are not finite.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        values = self._embeddings(asked) @ self._embeddings(rows).T
        if self.labels is not None:
            same = self._labels_of(asked)[:, None] == self._labels_of(rows)[None, :]
            values = torch.where(same, values, -values)
        plan = {"measure": self.measure, "at": self.at, "signed": self.labels is not None}
        about = {"estimator": "similarity", **plan}
        return Scores(values, rows.ids, asked.ids, about=about)

    def self_scores(self, rows: Rows) -> Tensor:
        """h(z)·h(z) of every row, ``float32 [train]``; of cosines, one."""
        return self._embeddings(as_rows(rows)).square().sum(dim=1)

    @torch.no_grad()
    def _embeddings(self, rows: Rows) -> Tensor:
        """h(z) of every row, ``float32 [rows, features]``, of length 1 for cosines."""
        caught: list[object] = []
        module = self.model.get_submodule(self.at)
        hook = module.register_forward_hook(lambda module, args, output: caught.append(output))
        parts = []
        try:
            with deployed(self.model):
                for start in range(0, len(rows), self.rows_per_block):
                    block = select_rows(rows.batch, slice(start, start + self.rows_per_block))
                    caught.clear()
                    self.loss(self.model, to_device_of(self.model, block))
                    parts.append(self._checked(caught, rows.ids[start:][: self.rows_per_block]))
        finally:
            hook.remove()
        found = torch.cat(parts)
        return nn.functional.normalize(found, dim=1) if self.measure == "cosine" else found

    def _checked(self, caught: list[object], ids: Tensor) -> Tensor:
        output = caught[-1] if caught else None
        if not isinstance(output, Tensor) or output.dim() < 1 or len(output) != len(ids):
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConversionError(
                f"The embedding at {self.at!r} is to be a tensor with {len(ids)} rows, one for "
                f"each row of the batch, but the module put out {found}. Name another module."
            )
        flat = output.reshape(len(ids), -1).float().cpu()
        if not (fine := torch.isfinite(flat).all(dim=1)).all():
            raise LossError(
                f"The embedding at {self.at!r} of the row with id {int(ids[~fine][0])} is not "
                "finite. Check its inputs, and whether training diverged."
            )
        return flat

    def _labels_of(self, rows: Rows) -> Tensor:
        assert self.labels is not None
        labels = torch.cat([self.labels(block).cpu() for block in blocks_of(rows.batch)])
        if labels.shape != rows.ids.shape:
            raise DataError(f"Found labels of shape {list(labels.shape)} for {len(rows)} rows.")
        return labels
