"""The answer of first-order scores: one scan of all ids, of which only the best are kept.

The null distribution of a first-order score follows from the mask bits. When the short list is
ranked again by two-pass scores, two-pass scores of null ids are the null distribution.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from turnover._rows import Batch, in_memory, select_rows
from turnover.data import Rows
from turnover.estimators._agreement import Agreement
from turnover.estimators._answer import Answer, rank_scored
from turnover.estimators.masked._first_order import FirstOrder
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._mask_null import MaskNull
from turnover.estimators.masked._scan import checked_ids
from turnover.estimators.masked._topk import Keep, extremes
from turnover.estimators.masked._two_pass import TwoPass
from turnover.masks import null_ids
from turnover.scores import Ranking
from turnover.stats import EmpiricalNull

__all__ = ["against_null", "explain_streamed", "near_null_ids"]


def explain_streamed(
    estimator: FirstOrder,
    queries: Batch | Rows,
    rows: Tensor | range | Rows,
    k: int,
    *,
    rerank: int,
    nulls: int,
    keep: Keep | None,
    checkpoint: Path | None,
    progress: Callable[[int, int], object] | None,
) -> Answer:
    """See :func:`turnover.explain`; never holds a ``[query, train]`` array."""
    batch = in_memory(queries.batch if isinstance(queries, Rows) else queries)
    ids = checked_ids(rows)
    linear, measured = estimator.linear(batch, ids)
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
        return _rank_linear(linear, listed, len(ids), measured)
    return _rank_two_pass(
        TwoPass(estimator.model, estimator.loss),
        batch,
        listed,
        k=k,
        instances=len(ids),
        nulls=null_ids(nulls, near_null_ids(ids, nulls)),
        measured=measured,
    )


def near_null_ids(ids: Tensor | range, nulls: int) -> Tensor:
    """The ids that might be taken for null ids: all of a tensor, few or none of a range."""
    if isinstance(ids, Tensor):
        return ids
    rising = ids if ids.step > 0 else ids[::-1]
    first = int(null_ids(1)[0])
    window = range(first, first + 2 * nulls)
    near = rising[max(0, -((rising.start - window.start) // rising.step)) :]
    near = near[: max(0, -((near.start - window.stop) // near.step))]
    return torch.tensor(list(near), dtype=torch.int64)


def _rank_linear(
    linear: LinearScores, listed: tuple[Ranking, Ranking], instances: int, measured: Agreement
) -> Answer:
    """Significance of a short list from the distribution of linear scores over masks."""
    null = MaskNull(linear)
    scores = torch.cat([ranking.scores for ranking in listed], dim=1)
    found = rank_scored(listed, null.z(scores), null.p(scores), instances)
    return Answer(*found, instances, "first-order", measured)


def _rank_two_pass(
    exact: TwoPass,
    queries: Batch,
    listed: tuple[Ranking, Ranking],
    *,
    k: int,
    instances: int,
    nulls: Tensor,
    measured: Agreement,
) -> Answer:
    """Exact scores of a short list, ranked again; significance from exact scores of null ids."""
    ids = torch.cat([ranking.ids for ranking in listed], dim=1)
    scored = torch.stack(
        [
            _scored(exact, select_rows(queries, slice(q, q + 1)), torch.cat([row, nulls]))
            for q, row in enumerate(ids)
        ]
    )
    chance = scored[:, ids.shape[1] :]
    again = []
    sides = scored[:, : ids.shape[1]].chunk(2, dim=1)
    for ranking, side, largest in zip(listed, sides, (True, False), strict=True):
        values, order = side.sort(dim=1, descending=largest, stable=True)
        again.append(
            Ranking(ranking.ids.gather(1, order), values, ranking.positions.gather(1, order))
        )
    scores = torch.cat([ranking.scores for ranking in again], dim=1)
    z, p = against_null(scores, chance)
    found = rank_scored((again[0], again[1]), z, p, instances)
    helpful, harmful = (kind.first(k) for kind in found)
    return Answer(helpful, harmful, instances, "exact", measured)


def _scored(exact: TwoPass, query: Batch, ids: Tensor) -> Tensor:
    """Exact scores ``[id]`` of one query; an id may stand in several places."""
    distinct, place = torch.unique(ids, return_inverse=True)
    return exact.scores(query, distinct).values[0, place]


def against_null(scores: Tensor, nulls: Tensor) -> tuple[Tensor, Tensor]:
    """z and p; 0 and 1 for queries whose null ids all score alike, unless all queries do."""
    vary = nulls.amax(dim=1) > nulls.amin(dim=1)
    if not vary.any():
        vary = torch.ones_like(vary)
    null = EmpiricalNull(nulls[vary])
    z, p = torch.zeros_like(scores, dtype=torch.float64), torch.ones_like(scores).double()
    z[vary], p[vary] = null.z(scores[vary]), null.p(scores[vary])
    return z, p
