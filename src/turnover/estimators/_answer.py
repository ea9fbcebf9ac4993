"""An answer: the instances that matter for a query, each with its significance."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from turnover._html import block, table
from turnover.errors import ScoreError
from turnover.estimators._agreement import Agreement
from turnover.estimators.kernel._reached import ReadGradients
from turnover.scores import Ranking
from turnover.stats import benjamini_hochberg

__all__ = ["Answer", "PairAgreement", "TopInstances", "rank_scored"]

NOTEBOOK = 5  # queries that a notebook shows
STRONG, FAIR = 0.7, 0.4


@final
@dataclass(frozen=True)
class PairAgreement:
    """Agreement of the pairs of a split ensemble, which were trained independently.

    Attributes:
        pairs: how many; with fewer than two nothing can be tested.
        agreement: correlation between predicted and observed differences within the pairs; see
            :class:`turnover.estimators.FittedKernel`. None for fewer than two pairs.
    """

    pairs: int
    agreement: float | None

    @property
    def tests(self) -> bool:
        """Whether scores have standard errors."""
        return self.pairs > 1

    @property
    def meaning(self) -> str:
        """What the agreement says of the scores, in words; empty without one.

        The limits follow digits and SST-2 (``benchmarks/results/recipe.json``). An agreement of
        0.7 and more went with an LDS of 0.7 and more there.
        """
        if self.agreement is None:
            return ""
        if self.agreement >= STRONG:
            return "That is strong: scores of this kernel say most of what the halves did."
        if self.agreement >= FAIR:
            return "That is fair: trust the order of groups and of the first rows, not of all."
        return "That is weak: single scores of this kernel are mostly chance. Train more pairs."

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"pairs": asdict(self)}


@final
@dataclass(frozen=True)
class TopInstances:
    """The first k instances from one end for every query, best first; all ``[query, k]``.

    Attributes:
        ids: ids of the instances.
        scores: in nats, positive = helped.
        positions: where they stand among the scanned ids.
        z: distance from the scores of null ids, in their standard deviations. For a split ensemble
            the score over its standard error (Student's t); NaN for a single pair, which has none.
        p: two-sided probability of such a score for an instance without influence.
        q: false discovery rate at which the instance counts as a discovery among all instances
            (Benjamini, Hochberg 1995); an upper bound where only the listed p-values are known, as
            of all estimators but kernels.
    """

    ids: Tensor
    scores: Tensor
    positions: Tensor
    z: Tensor
    p: Tensor
    q: Tensor

    def first(self, k: int) -> "TopInstances":
        """The first ``k`` of each query."""
        return TopInstances(*(getattr(self, field.name)[:, :k] for field in fields(self)))

    def _of(self, query: int, sign: int) -> "TopInstances":
        places = torch.nonzero(sign * self.scores[query] > 0).flatten()
        found = (getattr(self, field.name)[query : query + 1, places] for field in fields(self))
        return TopInstances(*found)


@final
@dataclass(frozen=True)
class Answer:
    """What stands behind the queries.

    Attributes:
        helpful: the k highest scores, highest first. Where fewer than k instances helped, the last
            of them did not: :meth:`of` leaves those out.
        harmful: the k lowest scores, lowest first, likewise.
        instances: number of instances that were asked about.
        estimator: ``"first-order"``, ``"exact"`` after re-ranking, or ``"kernel"``.
        agreement: measured agreement of the first-order scores with exact ones; for split
            ensembles, which are not asked by masks, what their pairs say of the kernel's scores.
        weight: of a kernel, the share of the listed instances in Σ abs(score), ``[query]``.
        read: of a kernel, what of the gradients is left out or projected; None where all is read.
    """

    helpful: TopInstances
    harmful: TopInstances
    instances: int
    estimator: str
    agreement: Agreement | PairAgreement
    weight: Tensor | None = None
    read: ReadGradients | None = None

    def of(self, query: int) -> tuple[TopInstances, TopInstances]:
        """The listed instances that helped one query, and those that harmed it; ``[1, at most k]``.

        Raises:
            ScoreError: for a query that does not exist.

        >>> import torch
        >>> ids, scores = torch.tensor([[7, 8]]), torch.tensor([[0.5, -0.1]])
        >>> one = torch.ones(1, 2)
        >>> both = TopInstances(ids, scores, ids, one, one, one)
        >>> answer = Answer(both, both.first(0), 2, "kernel", PairAgreement(2, None))
        >>> answer.of(0)[0].ids
        tensor([[7]])
        """
        if not 0 <= query < len(self.helpful.ids):
            raise ScoreError(
                f"Asked about query {query}; there are {len(self.helpful.ids)} queries, from 0 on."
            )
        return self.helpful._of(query, 1), self.harmful._of(query, -1)

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

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict and tables of the first queries."""
        parts = [] if self.read is None else [block(str(self.read))]
        if isinstance(self.agreement, PairAgreement) and self.agreement.agreement is not None:
            said = f"Agreement of the pairs: {self.agreement.agreement:.2f}."
            parts.append(block(f"{said} {self.agreement.meaning}"))
        for query in range(min(NOTEBOOK, len(self.helpful.ids))):
            parts.append(block(self.verdict(query)))
            for name, found in zip(("helped", "harmed"), self.of(query), strict=True):
                listed = zip(
                    found.ids[0].tolist(),
                    found.scores[0].tolist(),
                    found.q[0].tolist(),
                    strict=True,
                )
                rows = [(id, score, f"{q:.2g}") for id, score, q in listed]
                caption = f"Query {query}: {name} most"
                parts.append(table(caption, ("Id", "Score in nats", "q"), rows))
        return "".join(parts)

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
            return self._nothing(min(float(kind.min()) for kind in kinds), q)
        least = "At least " if any(bool((kind <= q).all()) for kind in kinds) else ""
        shown = ", ".join(map(name, found[:5])) + (", …" if len(found) > 5 else "")
        if isinstance(self.agreement, PairAgreement):
            instances = "instance works" if len(found) == 1 else "instances work"
            return (
                f"The {self.agreement.pairs} pairs of networks agree which way {least.lower()}"
                f"{len(found)} of {self.instances:,} training {instances} on this prediction "
                f"(false discovery rate {q:g}): {shown}.{self._carried(query)}"
            )
        verb = "matters" if len(found) == 1 else "matter"
        return (
            f"{least}{len(found)} of {self.instances:,} training instances {verb} for this "
            f"prediction (false discovery rate {q:g}): {shown}."
        )

    def _carried(self, query: int) -> str:
        if self.weight is None:
            return ""
        listed = torch.cat([self.helpful.ids[query], self.harmful.ids[query]]).unique()
        carry = "The one listed carries" if len(listed) == 1 else f"The {len(listed)} listed carry"
        return f" {carry} {float(self.weight[query]):.0%} of all influence on it."

    def _nothing(self, smallest: float, q: float) -> str:
        if not isinstance(self.agreement, PairAgreement):
            return (
                f"No single training instance matters for this prediction: among "
                f"{self.instances:,} no score stands out from those of instances that were never "
                f"trained (smallest q = {_above(smallest, q)}; discoveries need q ≤ {q:g})."
            )
        if not self.agreement.tests:
            return (
                "How sure these scores are is unknown: it takes two pairs of networks or more, "
                "four are recommended, to see what a score owes to chance."
            )
        return (
            f"No single training instance stands out for this prediction: among {self.instances:,} "
            f"there is no score of which {self.agreement.pairs} pairs of networks are sure "
            f"(smallest q = {_above(smallest, q)}; discoveries need q ≤ {q:g}). More pairs are "
            "surer."
        )


def _above(found: float, limit: float) -> str:
    """A number above a limit, with the digits that it takes to be read so."""
    texts = (f"{found:.{digits}g}" for digits in range(2, 17))
    return next((text for text in texts if float(text) > limit), repr(found))


def rank_scored(
    listed: tuple[Ranking, Ranking], z: Tensor, p: Tensor, tests: int
) -> tuple[TopInstances, TopInstances]:
    """Both lists with q-values; an instance in both of them counts as one test."""
    helpful, harmful = listed
    half = helpful.ids.shape[1]
    twice = harmful.ids.unsqueeze(2) == helpful.ids.unsqueeze(1)
    again = twice.any(dim=2)
    distinct = torch.cat([p[:, :half], p[:, half:].masked_fill(again, 1)], dim=1)
    q = benjamini_hochberg(distinct, tests=max(tests, p.shape[1]))
    same = q[:, :half].gather(1, twice.int().argmax(dim=2))
    q = torch.cat([q[:, :half], torch.where(again, same, q[:, half:])], dim=1)

    def part(ranking: Ranking, side: slice) -> TopInstances:
        kept = (z[:, side], p[:, side], q[:, side])
        return TopInstances(ranking.ids, ranking.scores, ranking.positions, *kept)

    return part(helpful, slice(0, half)), part(harmful, slice(half, None))
