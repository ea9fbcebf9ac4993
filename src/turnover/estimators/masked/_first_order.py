"""First-order scores: all instances from one backward pass per query, nothing stored.

A mask is a perturbation of the gates, and the score is odd in it for p = 1/2, so that all even
orders cancel and

    I(q, z) ≈ ⟨∂L(q)/∂γ, γ_unseen(z) − γ_seen(z)⟩ = −2 ⟨s_z, ∂L(q)/∂γ⟩,     s_z ∈ {−1, +1},

with the gradient at the full network or averaged over K random masks. How well this agrees with
the exact scores is measured on a sample of ids, and K is raised while that helps.
"""

import warnings
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover import _renamed
from turnover._rows import Batch, Loss, in_memory, select_rows
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._agreement import Agreement, agreement
from turnover.estimators._estimator import as_rows
from turnover.estimators.masked._gates import Gradients, gate_gradients, saturated
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._scan import checked_ids, scan
from turnover.estimators.masked._topk import top
from turnover.estimators.masked._two_pass import TwoPass
from turnover.scores import Kind, Ranking, Scores, refuse_other_kinds

__all__ = ["FirstOrder", "FittedFirstOrder", "LowAgreementWarning", "SaturatedQueryWarning"]

RERANKED = (0, 8, 32)
GAIN, GOOD, LOW = 0.01, 0.99, 0.8
SAMPLE_IDS, SAMPLE_QUERIES = 200, 8


class LowAgreementWarning(UserWarning):
    """First-order scores of this model agree poorly with the exact ones."""


class SaturatedQueryWarning(UserWarning):
    """The losses of some queries have no gradient, so that all their scores are zero."""


@final
@dataclass(frozen=True)
class FirstOrder:
    """The estimator for every day.

    A query whose loss is saturated (so near to 0 that no gate has a gradient) has scores of exactly
    zero, z = 0 and p = 1, and a :class:`SaturatedQueryWarning` names it.

    Attributes:
        model: a converted model; it is left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        masks: how many random masks K the gradient is averaged over; 0 takes the full network,
            ``"auto"`` raises K from 0 to 8 and 32 while agreement with exact scores improves.
    """

    model: nn.Module
    loss: Loss
    masks: int | Literal["auto"] = "auto"

    def linear(
        self, queries: Batch | Rows, ids: Tensor | range | Rows
    ) -> tuple[LinearScores, Agreement]:
        """Scores as a linear function of mask bits, and their measured agreement with exact ones.

        Args:
            queries: a batch of any structure, or :class:`Rows`.
            ids: the training rows, or their ids, of which 200 are sampled.

        Raises:
            LossError: for losses that are not finite, or of which none depends on a masked layer.
            IdError: for an empty range of ids, or ids that are not 64-bit integers.
        """
        batch = in_memory(queries.batch if isinstance(queries, Rows) else queries)
        sample = _sample(checked_ids(ids))
        ladder = RERANKED if self.masks == "auto" else (self.masks,)
        whole = gate_gradients(self.model, self.loss, batch, masks=ladder[0])
        alive = torch.nonzero(~saturated(whole[1])).flatten()[:SAMPLE_QUERIES]
        few = select_rows(batch, alive)
        exact = TwoPass(self.model, self.loss).scores(few, sample).values
        best: tuple[Gradients, Agreement] | None = None
        for masks in ladder:
            found = gate_gradients(self.model, self.loss, few, masks=masks)
            measured = agreement(scan(LinearScores.from_gradients(*found), sample), exact, masks)
            if best is not None and measured.spearman < best[1].spearman + GAIN:
                break
            best = (found, measured)
            if measured.spearman >= GOOD:
                break
        assert best is not None
        measured = best[1]
        if measured.spearman < LOW and measured.ids > 1:
            warnings.warn(_low(measured), LowAgreementWarning, stacklevel=2)
        if measured.masks != ladder[0]:
            whole = gate_gradients(self.model, self.loss, batch, masks=measured.masks)
        if bool((zero := saturated(whole[1])).any()):
            warnings.warn(_zero(zero), SaturatedQueryWarning, stacklevel=2)
        return LinearScores.from_gradients(*whole), measured

    def scores(self, queries: Batch | Rows, ids: Tensor | range | Rows) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped; arguments as :meth:`linear`."""
        rows = as_rows(queries)
        linear, measured = self.linear(rows, ids)
        ids = checked_ids(ids)
        train = torch.arange(ids.start, ids.stop, ids.step) if isinstance(ids, range) else ids
        about = {"estimator": "first-order", **measured.to_dict()}
        return Scores(scan(linear, train), train, rows.ids, about=about)

    ask = _renamed.old_method("FirstOrder.ask", "turnover.explain(estimator, queries, rows, k)")

    def fit(self, rows: Tensor | range | Rows) -> "FittedFirstOrder":
        """Remember the training set; its ids are all that first-order scores need.

        Args:
            rows: the training rows, or their ids; a range is never written out in full.
        """
        return FittedFirstOrder(self, rows)

    def self_scores(self, rows: Rows) -> Tensor:
        """Influence of every row on its own loss, ``float32 [train]`` in nats."""
        return self.scores(rows, rows).values.diagonal()


@final
@dataclass(frozen=True)
class FittedFirstOrder:
    """First-order scores of one training set.

    Attributes:
        estimator: the settings.
        rows: the training rows, or their ids.
    """

    estimator: FirstOrder
    rows: Tensor | range | Rows

    def scores(self, queries: Batch | Rows) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped."""
        return self.estimator.scores(queries, self.rows)

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        """The k best instances of every query, without ever holding all ``[query, train]`` scores.

        Raises:
            ScoreError: for k below 1 or above the number of instances, or another kind.
            LossError, IdError: as :meth:`FirstOrder.linear`.
        """
        refuse_other_kinds(kind)
        linear, _ = self.estimator.linear(queries, self.rows)
        return top(linear, checked_ids(self.rows), k, largest=kind == "helpful")

    def self_scores(self) -> Tensor:
        """Influence of every instance on itself, ``float32 [train]`` in nats.

        Raises:
            ScoreError: when only the ids of the training set are known.
        """
        if not isinstance(self.rows, Rows):
            raise ScoreError(
                "Only the ids of the training set were given, and an instance's influence on "
                "itself needs its row. Fit FirstOrder to Rows."
            )
        return self.estimator.self_scores(self.rows)


def _sample(ids: Tensor | range) -> Tensor:
    """Evenly spaced ids from the first to the last; Python's integers, since floats end at 2⁵³."""
    count, last = min(len(ids), SAMPLE_IDS), len(ids) - 1
    chosen = [last * place // max(1, count - 1) for place in range(count)]
    if isinstance(ids, range):
        return torch.tensor([ids[place] for place in chosen])
    return ids[chosen].cpu()


def _low(measured: Agreement) -> str:
    return (
        f"First-order scores agree with exact ones only to a rank correlation of "
        f"{measured.spearman:.2f} (sign {measured.sign:.0%}, {measured.masks} masks). The loss is "
        "far from linear in the gates; let explain re-rank the short list with rerank=100, or use "
        "TwoPass."
    )


def _zero(queries: Tensor) -> str:
    numbers = torch.nonzero(queries).flatten().tolist()
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return (
        f"The loss of {len(numbers)} of {len(queries)} queries does not depend on any masked unit "
        f"(query {shown}): it is saturated, and all scores for it are zero. Ask about another "
        "label, or use TwoPass, which needs no gradient."
    )
