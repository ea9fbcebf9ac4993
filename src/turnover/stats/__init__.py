"""Statistics that several rooms share: null distributions, multiple testing, ranks, intervals."""

from turnover import _renamed
from turnover.stats._binomial import (
    binomial_interval as binomial_interval,
    mcnemar as mcnemar,
    sign_test as sign_test,
)
from turnover.stats._extras import (
    Array as Array,
    sklearn_metrics as sklearn_metrics,
    stats as stats,
)
from turnover.stats._intervals import (
    Estimate as Estimate,
    Statistic as Statistic,
    bootstrap_draws as bootstrap_draws,
    estimate as estimate,
    mean_of as mean_of,
    resamples as resamples,
    two_way_interval as two_way_interval,
)
from turnover.stats._kendall import weighted_kendall as weighted_kendall
from turnover.stats._paired import (
    LEVEL as LEVEL,
    Paired as Paired,
    compare_paired as compare_paired,
    holm as holm,
)
from turnover.stats._ranks import (
    Mask as Mask,
    Order as Order,
    correlation as correlation,
    ranks as ranks,
    subset_sums as subset_sums,
    top_hits as top_hits,
    weighted_pearson as weighted_pearson,
    weighted_spearman as weighted_spearman,
)
from turnover.stats._significance import (
    EmpiricalNull,
    Significance as Significance,
    benjamini_hochberg,
    testable as testable,
)
from turnover.stats._student import student as student, t_of as t_of

__all__ = ["EmpiricalNull", "benjamini_hochberg"]

__getattr__ = _renamed.old_name(__name__)
