import sys

import numpy as np
import pytest
import torch

from turnover.errors import DataError, MissingExtra
from turnover.stats import compare_paired, holm

stats = pytest.importorskip("scipy.stats")


def test_holm_agrees_with_a_worked_case():
    # Holm's step-down by hand: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.06 since p̃ never falls.
    assert holm([0.01, 0.03, 0.04, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_p_value_over_seeds_is_the_paired_t_test():
    a, b = torch.rand(8, 50), torch.rand(8, 50)
    found = compare_paired(a, b)
    wanted = stats.ttest_rel(a.double().mean(1).numpy(), b.double().mean(1).numpy())
    assert found.p_seeds == pytest.approx(wanted.pvalue)
    assert found.mean == pytest.approx(float((a - b).mean()), rel=1e-5)


def test_the_other_way_round_is_the_mirror_image():
    a, b = torch.rand(5, 30), torch.rand(5, 30)
    one, two = compare_paired(a, b), compare_paired(b, a)
    assert (one.mean, one.low, one.high) == pytest.approx((-two.mean, -two.high, -two.low))
    assert (one.p, one.p_seeds) == pytest.approx((two.p, two.p_seeds))


def test_equal_tables_do_not_differ():
    same = torch.rand(3, 4) > 0.5
    found = compare_paired(same, same)
    assert (found.mean, found.low, found.high, found.p, found.p_seeds) == (0, 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("of_seeds", "of_rows", "of_both"), [(1, 1, 1), (0, 1, 1), (1, 0, 1), (0.2, 3, 5), (0, 0, 1)]
)
def test_false_alarms_are_as_rare_as_promised(of_seeds, of_rows, of_both):
    """Differences without an effect, with spread over seeds, over rows and over both."""
    random = np.random.default_rng(0)
    seeds, rows, times = 10, 60, 1000
    alarms = 0
    for _ in range(times):
        d = (
            of_seeds * random.normal(size=(seeds, 1)) / 8
            + of_rows * random.normal(size=(1, rows)) / 3
            + of_both * random.normal(size=(seeds, rows))
        )
        d = torch.from_numpy(d)
        alarms += compare_paired(d, torch.zeros_like(d)).p <= 0.05
    # Four standard deviations of a binomial count above 5 %; fewer alarms are no harm.
    assert alarms / times <= 0.05 + 4 * (0.05 * 0.95 / times) ** 0.5


def test_an_effect_is_seen():
    random = torch.Generator().manual_seed(0)
    base = torch.rand(10, 500, generator=random)
    better = base + 0.05 + 0.1 * torch.randn(10, 500, generator=random)
    found = compare_paired(better, base)
    assert found.p < 0.001 and 0.03 < found.low < 0.05 < found.high < 0.07


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (5,)])
def test_too_few_are_refused(shape):
    with pytest.raises(DataError, match=r"\[seed, test row\]"):
        compare_paired(torch.rand(shape), torch.rand(shape))


def test_scipy_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"turnover\[eval\]"):
        compare_paired(torch.rand(2, 2), torch.rand(2, 2))
