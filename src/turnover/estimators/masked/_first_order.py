"""First-order scores: all instances from one backward pass per query, nothing stored.

A mask is a perturbation of the gates, and the score is odd in it for p = 1/2, so that all even
orders cancel and

    I(q, z) ≈ ⟨∂L(q)/∂γ, γ_unseen(z) − γ_seen(z)⟩ = −2 ⟨s_z, ∂L(q)/∂γ⟩,     s_z ∈ {−1, +1},

with the gradient at the full network or averaged over K random masks. How well this agrees with
the exact scores is measured on a sample of ids, and K is raised while that helps.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, select_rows
from turnover.data import Rows
from turnover.estimators._agreement import Agreement, agreement
from turnover.estimators._answer import Answer, rank_linear, rank_two_pass
from turnover.estimators.masked._gates import Gradients, gate_gradients, saturated
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._scan import checked_ids, scan
from turnover.estimators.masked._topk import Keep, extremes
from turnover.estimators.masked._two_pass import TwoPass
from turnover.masks import null_ids
from turnover.scores import Scores

__all__ = ["FirstOrder", "LowAgreementWarning", "SaturatedQueryWarning"]

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
        batch = queries.batch if isinstance(queries, Rows) else queries
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
        rows = queries if isinstance(queries, Rows) else Rows(queries)
        linear, measured = self.linear(rows, ids)
        ids = checked_ids(ids)
        train = torch.arange(ids.start, ids.stop, ids.step) if isinstance(ids, range) else ids
        about = {"estimator": "first-order", **measured.to_dict()}
        return Scores(scan(linear, train), train, rows.ids, about=about)

    def ask(
        self,
        queries: Batch | Rows,
        ids: Tensor | range | Rows,
        k: int = 10,
        *,
        rerank: int = 0,
        nulls: int = 2000,
        keep: Keep | None = None,
        checkpoint: Path | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Answer:
        """The k most helpful and the k most harmful instances of every query, with significance.

        Never holds a ``[query, train]`` array. Without re-ranking, the null distribution of a
        score follows from the mask bits; with it, from exact scores of null ids.

        Args:
            queries: a batch of any structure, or :class:`Rows`.
            ids: the training rows, or their ids; a range is never written out in full.
            k: how many of each kind.
            rerank: score the first ``rerank`` of each kind exactly and rank them again.
            nulls: ids never trained on, scored exactly for significance when re-ranking.
            keep: filter of instances, as in :func:`turnover.estimators.top`. Their q-values still
                count every id as a test, which is conservative.
            checkpoint: file from which an interrupted scan resumes.
            progress: called with the number of scanned ids and of all.

        Raises:
            ScoreError: for k above the number of ids that pass the filter.
            LossError, IdError: as :meth:`linear`.
        """
        batch = queries.batch if isinstance(queries, Rows) else queries
        ids = checked_ids(ids)
        linear, measured = self.linear(batch, ids)
        listed = extremes(
            linear,
            ids,
            max(k, min(rerank, len(ids))),
            least=k,
            keep=keep,
            checkpoint=checkpoint,
            progress=progress,
        )
        if not rerank:
            return rank_linear(linear, listed, len(ids), measured)
        exact = TwoPass(self.model, self.loss)
        return rank_two_pass(
            exact,
            batch,
            listed,
            k=k,
            instances=len(ids),
            nulls=null_ids(nulls, _near_null_ids(ids, nulls)),
            measured=measured,
        )


def _near_null_ids(ids: Tensor | range, nulls: int) -> Tensor:
    """The ids that might be taken for null ids: all of a tensor, few or none of a range."""
    if isinstance(ids, Tensor):
        return ids
    rising = ids if ids.step > 0 else ids[::-1]
    first = int(null_ids(1)[0])
    window = range(first, first + 2 * nulls)
    near = rising[max(0, -((rising.start - window.start) // rising.step)) :]
    near = near[: max(0, -((near.start - window.stop) // near.step))]
    return torch.tensor(list(near), dtype=torch.int64)


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
        "far from linear in the gates; re-rank the short list with rerank=100, or use Exact."
    )


def _zero(queries: Tensor) -> str:
    numbers = torch.nonzero(queries).flatten().tolist()
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return (
        f"The loss of {len(numbers)} of {len(queries)} queries does not depend on any masked unit "
        f"(query {shown}): it is saturated, and all scores for it are zero. Ask about another "
        "label, or use Exact, which needs no gradient."
    )
