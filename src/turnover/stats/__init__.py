"""Statistics that several rooms share: null distributions, multiple testing, ranks, intervals."""

from turnover.stats._binomial import binomial_interval, mcnemar, sign_test
from turnover.stats._intervals import Estimate
from turnover.stats._paired import Paired, compare_paired, holm
from turnover.stats._significance import EmpiricalNull, Significance, benjamini_hochberg, testable
from turnover.stats._student import student as student

__all__ = [
    "EmpiricalNull",
    "Estimate",
    "Paired",
    "Significance",
    "benjamini_hochberg",
    "binomial_interval",
    "compare_paired",
    "holm",
    "mcnemar",
    "sign_test",
    "testable",
]
