"""The linear datamodeling score: do sums of scores rank subsets as re-training does?

    LDS = mean over queries q of Spearman_S( Σ_{z∈S} score(q, z), −mean over seeds of L(θ(S), q) )

over the random subsets S of a :class:`turnover.baselines.Truth`. 1 is a perfect order, 0 is none;
what can be reached is the ceiling, below 1 since re-training is random itself.

Reference: Park, Georgiev, Ilyas, Leclerc, Mądry 2023, "TRAK: Attributing Model Behavior at Scale".
"""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from turnover.baselines import Truth
from turnover.errors import DataError, ScoreError
from turnover.evaluation._align import aligned
from turnover.evaluation._reliability import reliability
from turnover.scores import Scores
from turnover.stats import (
    Array,
    Estimate,
    Mask,
    bootstrap_draws,
    correlation,
    ranks,
    resamples,
    subset_sums,
    two_way_interval,
    weighted_spearman,
)

__all__ = ["Lds", "lds", "lds_difference"]


@final
@dataclass(frozen=True, eq=False)
class Lds:
    """A linear datamodeling score with its interval and its ceiling.

    Attributes:
        value: mean over the queries.
        low: where the 95 % interval over queries and subsets begins; None without a bootstrap.
        high: where it ends; None without a bootstrap.
        ceiling: what a perfect estimator would reach; None for a truth of one seed.
        reliability: of the truth; None for a truth of one seed.
        per_query: rank correlations, ``float64 [query]``.
        query_ids: ``int64 [query]``, in the truth's order, without queries left out.
        subsets: number of subsets.
        seeds: number of seeds.
        left_out: number of queries without a defined rank correlation, which were left out.
        uncovered: number of instances whose score nothing here can test.
    """

    value: float
    low: float | None
    high: float | None
    ceiling: float | None
    reliability: float | None
    per_query: Tensor
    query_ids: Tensor
    subsets: int
    seeds: int
    left_out: int
    uncovered: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single queries, as plain JSON values."""
        names = ("value", "low", "high", "ceiling", "reliability")
        counts = ("subsets", "seeds", "left_out", "uncovered")
        return {n: getattr(self, n) for n in names + counts} | {"queries": len(self.query_ids)}


def lds(
    scores: Scores,
    truth: Truth,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    allow_undefined: bool = False,
    allow_uncovered: bool = False,
) -> Lds:
    """Linear datamodeling score of an estimator.

    Args:
        scores: what is judged; the order of its ids does not matter.
        truth: losses after re-training on subsets.
        bootstrap: number of resamples of the subsets, from which follows the interval over queries
            and subsets; 0 for none. It takes the seeds of the truth as they are.
        seed: of the resamples. Two estimators with one seed and truth share their resamples.
        allow_undefined: leave out queries whose truth or predictions are the same for all subsets,
            and count them, instead of raising an error.
        allow_uncovered: accept instances that are in no subset, or in all of them, and count them.

    Raises:
        IdError: when scores and truth are not about the same ids.
        ScoreError: for scores that are not finite, or sums that are the same for all subsets.
        DataError: for a truth that is the same for all subsets, or subsets that do not cover.
        MissingExtra: when SciPy is not installed.
    """
    case = _case(scores, truth, allow_undefined, allow_uncovered)
    found = two_way_interval(case.per_query(), case.draws(bootstrap, seed), len(truth.members))
    noise = reliability(truth.select(torch.from_numpy(np.flatnonzero(case.kept))), seed=seed)
    return Lds(
        value=found.value,
        low=found.low,
        high=found.high,
        ceiling=noise.ceiling,
        reliability=noise.value,
        per_query=torch.from_numpy(case.per_query()),
        query_ids=truth.query_ids[torch.from_numpy(case.kept)],
        subsets=len(truth.members),
        seeds=truth.losses.shape[1],
        left_out=int((~case.kept).sum()),
        uncovered=case.uncovered,
    )


def lds_difference(
    first: Scores,
    second: Scores,
    truth: Truth,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    allow_undefined: bool = False,
    allow_uncovered: bool = False,
) -> Estimate:
    """LDS of the first estimator minus LDS of the second, with the interval of the difference.

    Both meet the same queries and subsets, which tells the difference better than either score. Two
    estimators may differ for certain while their own intervals overlap.

    Args:
        first: scores of one estimator.
        second: scores of another one.
        truth: losses after re-training on subsets.
        bootstrap: number of resamples of the subsets, the same ones for both; 0 for no interval.
        seed: of the resamples.
        allow_undefined: as for :func:`lds`; a query is left out for both or for none.
        allow_uncovered: as for :func:`lds`.

    Raises:
        TurnoverError: as :func:`lds`.
    """
    a, b = (_case(s, truth, allow_undefined, allow_uncovered) for s in (first, second))
    both = a.kept & b.kept
    _refuse_nothing_left(both)
    a, b = replace(a, kept=both), replace(b, kept=both)
    gains = a.draws(bootstrap, seed) - b.draws(bootstrap, seed)
    return two_way_interval(a.per_query() - b.per_query(), gains, len(truth.members), None)


@dataclass(frozen=True, eq=False)
class _Case:
    """Predictions and outputs ``[query, subset]``, and which queries have a defined correlation."""

    predictions: Array
    outputs: Array
    kept: Mask
    uncovered: int

    def per_query(self) -> Array:
        """Rank correlation of the queries kept."""
        return correlation(ranks(self.predictions[self.kept]), ranks(self.outputs[self.kept]))

    def draws(self, count: int, seed: int) -> Array:
        """The same in resamples of the subsets, ``[query, resample]``."""
        blocks = list(resamples(self.outputs.shape[1], count, seed))
        predictions, outputs = self.predictions[self.kept], self.outputs[self.kept]
        return bootstrap_draws(weighted_spearman, predictions, outputs, blocks)


def _case(scores: Scores, truth: Truth, allow_undefined: bool, allow_uncovered: bool) -> _Case:
    values = aligned(scores, truth.query_ids, truth.train_ids)
    uncovered = _uncovered(truth, allow_uncovered)
    predictions = subset_sums(values, truth.members.cpu().numpy())
    outputs = truth.outputs.detach().cpu().double().numpy().T
    flat_truth, flat_scores = (np.ptp(v, axis=1) == 0 for v in (outputs, predictions))
    if not allow_undefined and flat_truth.any():
        raise DataError(
            f"The truth of query {int(truth.query_ids[flat_truth.argmax()])} is the same for every "
            f"subset, as for {flat_truth.sum()} of {len(flat_truth)} queries: no score can rank "
            "equal losses. Perhaps the loss is saturated, or training did not happen. Leave such "
            "queries out with allow_undefined=True, which counts them, or with truth.select."
        )
    if not allow_undefined and flat_scores.any():
        raise ScoreError(
            f"The scores of query {int(truth.query_ids[flat_scores.argmax()])} have the same sum "
            f"over every subset, as those of {flat_scores.sum()} of {len(flat_scores)} queries "
            "(equal scores, such as zeros, and subsets of one size?), so that they rank nothing. "
            "Leave such queries out with allow_undefined=True, which counts them."
        )
    _refuse_nothing_left(kept := ~(flat_truth | flat_scores))
    return _Case(predictions, outputs, kept, uncovered)


def _refuse_nothing_left(kept: Mask) -> None:
    if not kept.any():
        raise DataError(
            f"For none of {len(kept)} queries do both truth and scores differ between subsets, so "
            "there is no rank correlation to average."
        )


def _uncovered(truth: Truth, allow: bool) -> int:
    """Number of instances that are in no subset or in all of them."""
    times = truth.members.sum(dim=0)
    never, always = times == 0, times == len(truth.members)
    lost = torch.nonzero(never | always).flatten()
    if len(lost) and not allow:
        first = int(lost[0])
        raise DataError(
            f"Training id {int(truth.train_ids[first])} is in {'no' if never[first] else 'every'} "
            f"subset, as {len(lost)} of {len(times)} instances are in none or in all "
            f"{len(truth.members)}. Whatever its score, it changes no order of subsets, so the "
            "LDS says nothing about it. Train on more subsets, or accept that with "
            "allow_uncovered=True, which counts such instances."
        )
    return len(lost)
