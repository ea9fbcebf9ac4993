"""An answer: the instances that matter for a query, each with its significance."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from turnover._errors import ScoreError
from turnover._rows import Batch, select_rows
from turnover.estimation._agreement import Agreement
from turnover.estimation._exact import Exact
from turnover.estimation._linear import LinearScores
from turnover.estimation._mask_null import MaskNull
from turnover.scores import GhostNull, Ranking, benjamini_hochberg

__all__ = ["Answer", "Found", "rank_exact", "rank_linear", "rank_scored"]


@final
@dataclass(frozen=True)
class Found:
    """The first k instances of one kind for every query, best first; all ``[query, k]``.

    Attributes:
        ids: ids of the instances.
        scores: in nats, positive = helped.
        positions: where they stand among the scanned ids.
        z: distance from the scores of ghosts, in their standard deviations.
        p: two-sided probability of such a score for an instance without influence.
        q: false discovery rate at which the instance counts as a discovery among all instances
            (Benjamini, Hochberg 1995); an upper bound, since only the listed p-values are known.
    """

    ids: Tensor
    scores: Tensor
    positions: Tensor
    z: Tensor
    p: Tensor
    q: Tensor

    def first(self, k: int) -> "Found":
        """The first ``k`` of each query."""
        return Found(*(getattr(self, field.name)[:, :k] for field in fields(self)))


@final
@dataclass(frozen=True)
class Answer:
    """What stands behind the queries.

    Attributes:
        helpful: highest scores first.
        harmful: lowest scores first.
        instances: number of instances that were asked about.
        estimator: ``"first-order"``, ``"exact"`` after re-ranking, or ``"kernel"``.
        agreement: measured agreement of the first-order scores with exact ones.
    """

    helpful: Found
    harmful: Found
    instances: int
    estimator: str
    agreement: Agreement

    def significant(self, query: int, q: float = 0.1) -> list[int]:
        """Ids of the listed instances that matter for a query at false discovery rate ``q``.

        Raises:
            ScoreError: for a query that does not exist, or a rate outside (0, 1).
        """
        if not 0 <= query < len(self.helpful.ids) or not 0 < q < 1:
            raise ScoreError(
                f"Asked about query {query} at false discovery rate {q}; there are "
                f"{len(self.helpful.ids)} queries, from 0 on, and a rate lies between 0 and 1."
            )
        ids = torch.cat([self.helpful.ids[query], self.harmful.ids[query]])
        passed = torch.cat([self.helpful.q[query], self.harmful.q[query]]) <= q
        return list(dict.fromkeys(ids[passed].tolist()))

    def verdict(self, query: int, q: float = 0.1, name: Callable[[int], str] = str) -> str:
        """One sentence: which instances matter, or that none does by itself.

        Args:
            query: number of the query.
            q: false discovery rate.
            name: what to call the instance with an id.

        Raises:
            ScoreError: for a query that does not exist, or a rate outside (0, 1).
        """
        found = self.significant(query, q)
        kinds = (self.helpful.q[query], self.harmful.q[query])
        if not found:
            smallest = min(float(kind.min()) for kind in kinds)
            return (
                f"No single training instance matters for this prediction: among "
                f"{self.instances:,} no score stands out from those of instances that were never "
                f"trained (smallest q = {smallest:.2g}; discoveries need q ≤ {q:g})."
            )
        least = "At least " if any(bool((kind <= q).all()) for kind in kinds) else ""
        shown = ", ".join(map(name, found[:5])) + (", …" if len(found) > 5 else "")
        verb = "matters" if len(found) == 1 else "matter"
        return (
            f"{least}{len(found)} of {self.instances:,} training instances {verb} for this "
            f"prediction (false discovery rate {q:g}): {shown}."
        )


def rank_linear(
    linear: LinearScores, listed: tuple[Ranking, Ranking], instances: int, measured: Agreement
) -> Answer:
    """Significance of a short list from the distribution of linear scores over masks."""
    null = MaskNull(linear)
    scores = torch.cat([ranking.scores for ranking in listed], dim=1)
    found = rank_scored(listed, scores, null.z(scores), null.p(scores), instances)
    return Answer(*found, instances, "first-order", measured)


def rank_exact(
    exact: Exact,
    queries: Batch,
    listed: tuple[Ranking, Ranking],
    *,
    k: int,
    instances: int,
    ghosts: Tensor,
    measured: Agreement,
) -> Answer:
    """Exact scores of a short list, ranked again; significance from exact scores of ghosts."""
    ids = torch.cat([ranking.ids for ranking in listed], dim=1)
    scored = torch.stack(
        [
            _scored(exact, select_rows(queries, slice(q, q + 1)), torch.cat([row, ghosts]))
            for q, row in enumerate(ids)
        ]
    )
    null = GhostNull(scored[:, ids.shape[1] :])
    again = []
    sides = scored[:, : ids.shape[1]].chunk(2, dim=1)
    for ranking, side, largest in zip(listed, sides, (True, False), strict=True):
        values, order = side.sort(dim=1, descending=largest, stable=True)
        again.append(
            Ranking(ranking.ids.gather(1, order), values, ranking.positions.gather(1, order))
        )
    scores = torch.cat([ranking.scores for ranking in again], dim=1)
    found = rank_scored((again[0], again[1]), scores, null.z(scores), null.p(scores), instances)
    helpful, harmful = (kind.first(k) for kind in found)
    return Answer(helpful, harmful, instances, "exact", measured)


def _scored(exact: Exact, query: Batch, ids: Tensor) -> Tensor:
    """Exact scores ``[id]`` of one query; an id may stand in several places."""
    distinct, place = torch.unique(ids, return_inverse=True)
    return exact.scores(query, distinct).values[0, place]


def rank_scored(
    listed: tuple[Ranking, Ranking], scores: Tensor, z: Tensor, p: Tensor, tests: int
) -> tuple[Found, Found]:
    """Both lists with q-values; an instance in both of them counts as one test."""
    helpful, harmful = listed
    half = helpful.ids.shape[1]
    twice = harmful.ids.unsqueeze(2) == helpful.ids.unsqueeze(1)
    again = twice.any(dim=2)
    distinct = torch.cat([p[:, :half], p[:, half:].masked_fill(again, 1)], dim=1)
    q = benjamini_hochberg(distinct, tests=max(tests, p.shape[1]))
    same = q[:, :half].gather(1, twice.int().argmax(dim=2))
    q = torch.cat([q[:, :half], torch.where(again, same, q[:, half:])], dim=1)

    def part(ranking: Ranking, side: slice) -> Found:
        kept = (z[:, side], p[:, side], q[:, side])
        return Found(ranking.ids, ranking.scores, ranking.positions, *kept)

    return part(helpful, slice(0, half)), part(harmful, slice(half, None))
