"""Leave-one-out agreement: do scores match what happened when single instances were left out?

    measured(q, z) = L(θ(D − z), q) − L(θ(D), q)      in nats, positive = z helped
    agreement      = mean over queries of corr_z( score(q, z), measured(q, z) )

by Pearson (Koh, Liang 2017), Spearman, and Kendall's τ-b (Hara et al. 2019). One instance moves
the loss of a deep network less than the seed of its training does, so that even the definition
agrees little with itself there: average many seeds, or trust the linear datamodeling score.

References: Koh, Liang 2017; Hara, Nitanda, Maehara 2019; Kendall 1945.
"""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from turnover.errors import DataError, ScoreError
from turnover.evaluation._align import aligned
from turnover.scores import Scores
from turnover.stats import (
    Array,
    Estimate,
    Statistic,
    bootstrap_draws,
    correlation,
    ranks,
    resamples,
    stats,
    two_way_interval,
    weighted_kendall,
    weighted_pearson,
    weighted_spearman,
)

__all__ = ["LooAgreement", "loo_agreement"]

FEWEST_INSTANCES = 3


@final
@dataclass(frozen=True, eq=False)
class LooAgreement:
    """Agreement of scores with measured leave-one-out differences, mean over queries.

    Attributes:
        pearson: correlation of the values; single large ones weigh much.
        spearman: correlation of the ranks.
        kendall: τ-b, probability of the same order minus probability of the opposite one.
        per_query: rank correlations (Spearman), ``float64 [query]``.
        query_ids: ``int64 [query]``, without queries left out.
        instances: number of instances that were left out of training, one by one.
        left_out: number of queries without a defined correlation, which were left out.
    """

    pearson: Estimate
    spearman: Estimate
    kendall: Estimate
    per_query: Tensor
    query_ids: Tensor
    instances: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single queries, as plain JSON values."""
        kinds = {n: getattr(self, n).to_dict() for n in ("pearson", "spearman", "kendall")}
        counts = {"instances": self.instances, "left_out": self.left_out}
        return kinds | counts | {"queries": len(self.query_ids)}


def loo_agreement(
    scores: Scores,
    measured: Scores,
    *,
    bootstrap: int = 200,
    seed: int = 0,
    allow_undefined: bool = False,
) -> LooAgreement:
    """Agreement of an estimator with leave-one-out re-training.

    Args:
        scores: what is judged. They may be about more instances than were left out one by one.
        measured: the differences of losses, such as ``LeaveOneOut`` of :mod:`turnover.baselines`
            returns.
        bootstrap: number of resamples of instances, from which follow intervals over queries and
            instances; 0 for none. From 200, a standard error is within about 5 %.
        seed: of the resamples.
        allow_undefined: leave out queries for which all scores or all differences are equal, and
            count them, instead of raising an error.

    Raises:
        IdError: when a measured id has no scores, or the queries are not the same.
        ScoreError: for values that are not finite, or the same for all instances.
        DataError: for fewer than three instances.
        MissingExtra: when SciPy is not installed.
    """
    found = aligned(scores, measured.query_ids, measured.train_ids, more=True)
    wanted = aligned(measured, measured.query_ids, measured.train_ids)
    instances = wanted.shape[1]
    if instances < FEWEST_INSTANCES:
        raise DataError(f"{instances} instances give no correlation; leave out at least three.")
    constant = (np.ptp(found, axis=1) == 0) | (np.ptp(wanted, axis=1) == 0)
    if constant.all() or (constant.any() and not allow_undefined):
        raise ScoreError(
            f"For query {int(measured.query_ids[constant.argmax()])} all scores, or all measured "
            f"differences, are equal, as for {constant.sum()} of {len(constant)} queries, so that "
            "no correlation is defined. Leave such queries out with allow_undefined=True, which "
            "counts them; some must remain."
        )
    a, b = found[~constant], wanted[~constant]
    blocks = list(resamples(instances, bootstrap, seed))

    def estimate(per_query: Array, statistic: Statistic) -> Estimate:
        return two_way_interval(per_query, bootstrap_draws(statistic, a, b, blocks), instances)

    spearman = correlation(ranks(a), ranks(b))
    return LooAgreement(
        pearson=estimate(correlation(a, b), weighted_pearson),
        spearman=estimate(spearman, weighted_spearman),
        kendall=estimate(_taus(a, b), weighted_kendall),
        per_query=torch.from_numpy(spearman),
        query_ids=measured.query_ids[torch.from_numpy(~constant)],
        instances=instances,
        left_out=int(constant.sum()),
    )


def _taus(a: Array, b: Array) -> Array:
    tau = stats().kendalltau
    return np.array([tau(x, y, method="asymptotic").statistic for x, y in zip(a, b, strict=True)])
