"""Ranks of resamples: exact sums, ties, and slow twins that really copy and sort."""

import numpy as np
import pytest

from tests.reference import evaluation as slow
from turnover.errors import DataError
from turnover.stats import (
    Order,
    correlation,
    mean_of,
    resamples,
    subset_sums,
    top_hits,
    two_way_interval,
    weighted_kendall,
    weighted_pearson,
    weighted_spearman,
)

stats = pytest.importorskip("scipy.stats")
metrics = pytest.importorskip("sklearn.metrics")

# Sums of at most 60 products of standardised values or half integers.
ROUNDING = 1e-12
KINDS = {
    "all different": lambda g, n: g.standard_normal(n),
    "many ties": lambda g, n: g.integers(0, 4, n).astype(float),
    "mostly zero": lambda g, n: g.integers(0, 9, n) // 8 * 1.0,
    "tiny": lambda g, n: 1e-200 * g.standard_normal(n),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=[3, 7, 60])
def case(request, kind):
    """x, y and 100 resamples."""
    g = np.random.default_rng(request.param)
    x = kind(g, request.param)
    y = x + kind(g, request.param)
    for constant in (v for v in (x, y) if np.ptp(v) == 0):
        constant[0] += 1
    return x, y, next(resamples(request.param, 100, seed=1))


@pytest.mark.parametrize(
    ("fast", "twin"),
    [
        (weighted_pearson, stats.pearsonr),
        (weighted_spearman, stats.spearmanr),
        (weighted_kendall, lambda x, y: stats.kendalltau(x, y, method="asymptotic")),
    ],
    ids=["pearson", "spearman", "kendall"],
)
def test_correlations_of_resamples_are_those_of_copies(case, fast, twin):
    x, y, counts = case
    if fast is weighted_pearson:  # SciPy's own squares vanish for tiny values
        x, y = (v / max(np.abs(v).max(), 1e-290) for v in (x, y))
    found = fast(x, y, counts)
    wanted = slow.in_resamples(lambda a, b: twin(a, b).statistic, x, y, counts)
    assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True)


def test_ranks_of_resamples_are_those_of_copies(case):
    x, _, counts = case
    found = Order(x).ranks(counts)
    for column, resample in zip(found.T, counts.T, strict=True):
        copies = np.repeat(np.arange(len(x)), resample.astype(int))
        wanted = stats.rankdata(x[copies])
        assert column[copies] == pytest.approx(wanted, abs=ROUNDING)


def test_areas_of_resamples_are_those_of_copies(case):
    x, _, counts = case
    relevant = np.arange(len(x)) % 3 == 0
    order = Order(x)
    for resample in counts.T:
        copies = np.repeat(np.arange(len(x)), resample.astype(int))
        if 0 < relevant[copies].sum() < len(copies):
            wanted = metrics.roc_auc_score(relevant[copies], x[copies])
            found = order.auc(resample[:, None], relevant)
            assert found == pytest.approx([wanted], abs=ROUNDING)


def test_tied_places_are_shared_out(kind):
    """Against 4,000 shuffles: the standard error of a share is below 0.008."""
    g = np.random.default_rng(0)
    values, relevant = kind(g, 20), g.random(20) < 0.4
    wanted = slow.over_random_ties(values, g, 4000, lambda o: np.cumsum(relevant[o]))
    for k in range(1, 21):
        found = top_hits(values[None], relevant[None], k)[0]
        assert found == pytest.approx(wanted[k - 1], abs=0.1)
        once = np.ones((20, 1))
        assert Order(values).precision(once, relevant, k)[0] * k == pytest.approx(found)


def test_precision_of_a_resample_is_that_of_copies(case):
    x, _, counts = case
    relevant = np.arange(len(x)) % 2 == 0
    k = len(x) // 2
    found = Order(x).precision(counts, relevant, k)
    for share, resample in zip(found, counts.T, strict=True):
        copies = np.repeat(np.arange(len(x)), resample.astype(int))
        wanted = top_hits(x[copies][None], relevant[copies][None], k)[0] / k
        assert share == pytest.approx(wanted)


def test_equal_sums_tie_whatever_their_order():
    g = np.random.default_rng(0)
    members = g.random((50, 1001)).argsort(axis=1) < 500
    for constant in (0.1, 1 / 3, 1e-300, -7e250):
        assert np.ptp(subset_sums(np.full((1, 1001), constant), members)) == 0
    whole = g.integers(-1, 2, (3, 1001)).astype(float)
    sums = subset_sums(whole / 3, members)
    for found, wanted in zip(sums, whole @ members.T, strict=True):
        assert np.array_equal(stats.rankdata(found), stats.rankdata(wanted))


def test_sums_keep_twelve_digits():
    g = np.random.default_rng(0)
    values, members = g.standard_normal((4, 300)), g.random((20, 300)) < 0.5
    found, wanted = subset_sums(values, members), values @ members.T
    for row, exact in zip(found, wanted, strict=True):
        factor = (row @ exact) / (exact @ exact)
        assert row / factor == pytest.approx(exact, abs=1e-10)


def test_a_correlation_with_a_constant_is_not_a_number():
    a = np.array([[1.0, 2, 3], [1, 1, 1], [1, 2, 4]])
    b = np.array([[1.0, 2, 3], [1, 2, 3], [5, 5, 5]])
    assert correlation(a, b) == pytest.approx([1, np.nan, np.nan], nan_ok=True)


# Resamples and intervals


def test_resamples_do_not_depend_on_the_size_of_blocks(monkeypatch):
    whole = np.concatenate(list(resamples(7, 120, seed=3)), axis=1)
    monkeypatch.setattr("turnover.stats._intervals.ELEMENTS", 70)
    blocks = list(resamples(7, 120, seed=3))
    assert len(blocks) == 12
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)


def test_a_resample_holds_as_many_items_as_the_sample():
    counts = next(resamples(9, 5000, seed=0))
    assert counts.shape == (9, 5000) and (counts.sum(axis=0) == 9).all()
    # A count is binomial (9, 1/9): its mean over 5,000 resamples has a standard error of 0.013.
    assert counts.mean(axis=1) == pytest.approx(np.ones(9), abs=0.06)
    assert counts.var(axis=1) == pytest.approx(np.full(9, 8 / 9), abs=0.1)


def test_streams_are_drawn_independently():
    a, b = (next(resamples(50, 200, 0, stream)) for stream in (0, 1))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04


def test_a_mean_has_the_interval_of_its_standard_error():
    values = np.random.default_rng(0).standard_normal(400)
    found = mean_of(values, 4000, 0)
    reach = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), abs=0.01
    )


def test_a_single_query_and_no_bootstrap_give_no_interval():
    for found in (mean_of(np.array([0.3]), 1000, 0), mean_of(np.array([0.3, 0.3]), 0, 0)):
        assert found.to_dict() == {"value": 0.3, "low": None, "high": None}
    assert two_way_interval(np.array([0.3]), np.empty((1, 0)), 5).low is None


def test_the_variance_counts_what_both_samples_share_once():
    """t_q* = a_q + b + e_q with variances 1, 0.01, 0.04: V = (1 + 0.04) / Q + 0.01."""
    g = np.random.default_rng(0)
    queries, count = 2000, 2000
    a, e = g.standard_normal(queries), 0.2 * g.standard_normal(queries)
    draws = a[:, None] + e[:, None] + 0.1 * g.standard_normal(count)
    draws = draws + 0.2 * g.standard_normal(draws.shape)
    found = two_way_interval(a + e, draws, items=10**6, limit=None)
    wanted = 1.96 * ((1 + 0.04) / queries + 0.01) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(wanted, rel=0.05)


def test_an_undefined_resample_counts_as_the_statistic_itself():
    per_query = np.array([0.2, 0.4, 0.7])
    draws = per_query[:, None] + 0.1 * np.random.default_rng(0).standard_normal((3, 200))
    filled = draws.copy()
    draws[1, :50], filled[1, :50] = np.nan, 0.4
    assert two_way_interval(per_query, draws, 9) == two_way_interval(per_query, filled, 9)


@pytest.mark.parametrize("count", [-5, 1, 99])
def test_an_interval_needs_resamples(count):
    with pytest.raises(DataError, match=f"{count} resamples"):
        mean_of(np.array([1.0, 2.0]), count, 0)
