"""Agreement: rank correlation as SciPy computes it, and the share of equal signs."""

import pytest
import torch

from turnover.estimators import agreement
from turnover.estimators._agreement import spearman

stats = pytest.importorskip("scipy.stats")

# Ranks are summed in float64 and the result is rounded to float32.
TOLERANCE = 2**-23


@pytest.mark.parametrize("ids", [2, 3, 50, 2000])
def test_spearman_is_that_of_scipy(ids):
    a = torch.randn(5, ids)
    b = 0.5 * a + torch.randn(5, ids)
    wanted = [stats.spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert (spearman(a, b).double() - torch.tensor(wanted)).abs().max() <= TOLERANCE


def test_only_ranks_count():
    a = torch.randn(3, 40)
    assert torch.equal(spearman(a, a.exp()), torch.ones(3))
    assert torch.equal(spearman(a, -(a**3)), -torch.ones(3))


def test_few_ties_move_it_little():
    """Ties rank by place, not by their mean: of 200 values, 5 pairs of ties shift single ranks."""
    a, b = torch.randn(1, 200), torch.randn(1, 200)
    a[0, 100:105] = a[0, :5]
    wanted = stats.spearmanr(a[0].numpy(), b[0].numpy()).statistic
    assert abs(float(spearman(a, b)) - wanted) < 1e-3


@pytest.mark.parametrize("flat", [torch.ones(2, 9), torch.zeros(2, 9)])
def test_a_row_without_spread_agrees_with_nothing(flat):
    some = torch.randn(2, 9)
    assert spearman(flat, some).tolist() == spearman(some, flat).tolist() == [0, 0]


def test_one_id_has_no_rank_correlation():
    assert spearman(torch.ones(2, 1), torch.ones(2, 1)).tolist() == [0, 0]


def test_an_agreement_says_what_it_was_measured_on():
    fast = torch.tensor([[1.0, -2.0, 3.0, 0.5], [1.0, 2.0, 3.0, 4.0]])
    exact = torch.tensor([[5.0, -1.0, 2.0, -0.1], [1.0, 2.0, 3.0, 4.0]])
    found = agreement(fast, exact, masks=8)
    assert (found.masks, found.ids, found.queries) == (8, 4, 2)
    assert found.sign == 7 / 8
    assert found.spearman == pytest.approx((0.8 + 1) / 2, abs=1e-6)
    assert found.to_dict()["agreement"]["masks"] == 8
