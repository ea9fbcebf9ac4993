"""Statistics that several rooms share: null distributions, multiple testing, ranks, intervals."""

from turnover.stats._binomial import (
    binomial_interval as binomial_interval,
    mcnemar as mcnemar,
    sign_test as sign_test,
)
from turnover.stats._intervals import Estimate
from turnover.stats._paired import Paired as Paired, compare_paired as compare_paired, holm as holm
from turnover.stats._significance import (
    EmpiricalNull,
    Significance,
    benjamini_hochberg,
    testable as testable,
)
from turnover.stats._student import student as student

__all__ = ["EmpiricalNull", "Estimate", "Significance", "benjamini_hochberg"]
