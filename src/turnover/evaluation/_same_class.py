"""Do helpful instances look like the query? The share of its own class among the top k.

    share = mean over queries of the share of instances with the query's label among the k most
            helpful;                     chance = the share of that label among all instances
    AUC   = mean over queries of P(an instance of its class scores higher than another one)

A sanity check, not a measure of truth: an estimator that only compares classes passes it.

Reference: Hanawa, Yokoi, Hara, Inui 2021, "Evaluation of Similarity-based Explanations" (the
identical class test).
"""

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from turnover.errors import DataError, ScoreError
from turnover.evaluation._align import finite, refuse_bad_count
from turnover.scores import Scores
from turnover.stats import Array, Estimate, Mask, mean_of, ranks, top_hits

__all__ = ["SameClass", "same_class"]


@final
@dataclass(frozen=True)
class SameClass:
    """How often the most helpful instances have the query's label.

    Attributes:
        share: among the k most helpful instances, mean over queries.
        chance: share of the query's label among all instances, mean over queries.
        auc: P(an instance of the query's class scores higher than another), mean over queries;
            0.5 is chance.
        k: number of instances per query.
        queries: number of queries.
    """

    share: Estimate
    chance: float
    auc: Estimate
    k: int
    queries: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def same_class(
    scores: Scores,
    query_labels: Tensor,
    train_labels: Tensor | None = None,
    *,
    k: int = 10,
    bootstrap: int = 1000,
    seed: int = 0,
) -> SameClass:
    """Share of the query's class among the k most helpful instances, against chance.

    Equal scores have no order: they count with the expectation over a random one.

    Args:
        scores: what is judged.
        query_labels: ``int64 [query]``.
        train_labels: ``int64 [train]``; by default those that the scores carry.
        k: number of instances per query.
        bootstrap: number of resamples of the queries; 0 for no interval.
        seed: of the resamples.

    Raises:
        ScoreError: for scores that are not finite, or that carry no labels when none are given.
        DataError: for labels of another number, a k that is too large, or a query for which all
            instances, or none, have its label.
        MissingExtra: when SciPy is not installed.
    """
    labels = scores.labels if train_labels is None else train_labels
    if labels is None:
        raise ScoreError("These scores carry no labels to compare; give train_labels.")
    values = finite(scores)
    refuse_bad_count(k, values.shape[1])
    alike = _alike(scores, query_labels, labels)
    share = top_hits(values, alike, k) / k
    return SameClass(
        share=mean_of(share, bootstrap, seed),
        chance=float(alike.mean()),
        auc=mean_of(_auc(values, alike), bootstrap, seed),
        k=k,
        queries=len(values),
    )


def _auc(values: Array, alike: Mask) -> Array:
    """(Σ ranks of the class − C (C + 1) / 2) / (C · others), ``[query]`` (Mann, Whitney 1947)."""
    size, total = alike.sum(axis=1), alike.shape[1]
    summed = (ranks(values) * alike).sum(axis=1)
    area: Array = (summed - size * (size + 1) / 2) / (size * (total - size))
    return area


def _alike(scores: Scores, query_labels: Tensor, labels: Tensor) -> Mask:
    for found, ids, what in (
        (query_labels, scores.query_ids, "queries"),
        (labels, scores.train_ids, "instances"),
    ):
        if found.shape != ids.shape:
            raise DataError(f"Found labels of shape {list(found.shape)} for {len(ids)} {what}.")
    alike: Mask = (query_labels.cpu().unsqueeze(1) == labels.cpu()).numpy()
    size = alike.sum(axis=1)
    if (useless := (size == 0) | (size == alike.shape[1])).any():
        query = int(useless.argmax())
        raise DataError(
            f"{'All' if size[query] else 'None'} of the {alike.shape[1]} training instances have "
            f"the label {query_labels[query].item()} of query {int(scores.query_ids[query])}, as "
            f"for {np.count_nonzero(useless)} of {len(useless)} queries, so that no order could "
            "bring its class to the top. Leave such queries out."
        )
    return alike
