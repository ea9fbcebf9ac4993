"""Is the source found? Queries that were made from known training instances.

A query may be a noisy copy of an instance, a paraphrase, or a fact that some instances state.

    recall at k = mean over queries of the share of its sources among the k most helpful instances
    MRR         = mean over queries of 1 / (place of its first source)

Equal scores have no order: recall counts them with the expectation over a random one, and the
place is the expected one, (ties + 1) / (sources among them + 1) after everything above.

Reference: Akyürek et al. 2022, "Towards Tracing Knowledge in Language Models Back to the Training
Data".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from turnover.errors import DataError
from turnover.evaluation._align import finite, positions, refuse_bad_count
from turnover.masks import as_ids
from turnover.scores import Scores
from turnover.stats import Array, Estimate, Mask, mean_of, top_hits

__all__ = ["Tracing", "tracing"]


@final
@dataclass(frozen=True)
class Tracing:
    """How well the most helpful instances contain the sources of a query.

    Attributes:
        recall: for each k, the share of sources among the k most helpful, mean over queries.
        mrr: mean reciprocal place of the first source.
        queries: number of queries.
        instances: number of instances; ``k / instances`` is the recall of chance.
    """

    recall: dict[int, Estimate]
    mrr: Estimate
    queries: int
    instances: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values; k becomes a string."""
        recall = {str(k): found.to_dict() for k, found in self.recall.items()}
        counts = {"queries": self.queries, "instances": self.instances}
        return {"recall": recall, "mrr": self.mrr.to_dict(), **counts}


def tracing(
    scores: Scores,
    sources: Tensor | Sequence[int] | Sequence[Sequence[int]],
    *,
    k: Iterable[int] = (1, 10),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Tracing:
    """Recall at k and mean reciprocal rank of the instances that queries were made from.

    Args:
        scores: what is judged.
        sources: ``bool [query, train]`` in the order of the scores; or training ids, one for each
            query or several.
        k: how many of the most helpful instances somebody looks at.
        bootstrap: number of resamples of the queries; 0 for no interval.
        seed: of the resamples.

    Raises:
        ScoreError: for scores that are not finite.
        IdError: for a source that has no scores.
        DataError: for sources of another shape, a query without a source, or a k that is too large.
    """
    values = finite(scores)
    truth = _sources(scores, sources)
    count = truth.sum(axis=1)
    if not count.all():
        raise DataError(
            f"Query {int(scores.query_ids[int(count.argmin())])} has no source, as "
            f"{int((count == 0).sum())} of {len(count)} queries, so there is nothing to find. "
            "Leave such queries out."
        )
    recall = {}
    for each in k:
        refuse_bad_count(each, values.shape[1])
        recall[each] = mean_of(top_hits(values, truth, each) / count, bootstrap, seed)
    return Tracing(recall, mean_of(1 / _first(values, truth), bootstrap, seed), *values.shape)


def _first(values: Array, truth: Mask) -> Array:
    """Expected place of the first source, ``[query]``, from 1 on."""
    best = np.where(truth, values, -np.inf).max(axis=1, keepdims=True)
    tied = values == best
    above = (values > best).sum(axis=1)
    place: Array = above + (tied.sum(axis=1) + 1) / ((tied & truth).sum(axis=1) + 1)
    return place


def _sources(scores: Scores, sources: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Mask:
    shape = tuple(scores.values.shape)
    if isinstance(sources, Tensor) and sources.dtype == torch.bool:
        if tuple(sources.shape) != shape:
            raise DataError(
                f"Sources have shape {list(sources.shape)}, but the scores {list(shape)}: one mark "
                "for each query and instance."
            )
        marked: Mask = sources.cpu().numpy()
        return marked
    if len(sources) != shape[0]:
        raise DataError(f"Found the sources of {len(sources)} queries, but scores of {shape[0]}.")
    ids = [as_ids(each).flatten().cpu() for each in sources]
    distinct, which = torch.unique(torch.cat(ids), return_inverse=True)
    places = positions(scores.train_ids, distinct, "training", more=True)
    found = np.zeros(shape, dtype=bool)
    found[np.repeat(np.arange(shape[0]), [len(i) for i in ids]), places[which.numpy()]] = True
    return found
