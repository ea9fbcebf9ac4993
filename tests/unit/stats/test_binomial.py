"""Exact intervals and tests, against SciPy and against their definitions."""

import itertools

import pytest
from scipy import stats

from turnover.errors import DataError
from turnover.stats import binomial_interval, mcnemar, sign_test

ROUNDING = 1e-9  # of a sum of a dozen float64 products, by its inverse


@pytest.mark.parametrize("trials", [1, 3, 8, 20])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_those_of_scipy(trials, level):
    for successes in range(trials + 1):
        found = binomial_interval(successes, trials, level)
        wanted = stats.binomtest(successes, trials).proportion_ci(level, "exact")
        assert found.value == successes / trials
        assert found.low == pytest.approx(wanted.low, abs=ROUNDING)
        assert found.high == pytest.approx(wanted.high, abs=ROUNDING)


def test_an_interval_covers_at_least_as_often_as_it_says():
    ends = [binomial_interval(successes, 8) for successes in range(9)]
    for share in (0.05, 0.3, 0.5, 0.9):
        chance = stats.binom(8, share).pmf
        assert sum(chance(x) for x, e in enumerate(ends) if e.low <= share <= e.high) >= 0.95


def test_mcnemar_counts_every_way_the_differing_pairs_could_have_gone():
    ours, theirs = [True] * 5 + [False, True, False], [False] * 5 + [True, True, False]
    signs = list(itertools.product([1, -1], repeat=6))
    as_far = sum(abs(sum(each)) >= 4 for each in signs)
    assert mcnemar(ours, theirs) == pytest.approx(as_far / len(signs), abs=ROUNDING)
    assert mcnemar(ours, ours) == 1


@pytest.mark.parametrize(("above", "below"), [(8, 0), (3, 5), (0, 1), (4, 4)])
def test_sign_test_is_that_of_scipy(above, below):
    wanted = stats.binomtest(above, above + below).pvalue
    found = sign_test([0.5] * above + [-2.0] * below + [0.0])
    assert found == pytest.approx(wanted, abs=ROUNDING)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_shares_that_are_none_are_refused(successes, trials):
    with pytest.raises(DataError, match="no share"):
        binomial_interval(successes, trials)


def test_outcomes_without_a_partner_are_refused():
    with pytest.raises(DataError, match="paired"):
        mcnemar([True], [True, False])
