"""Queries without any gradient: zero scores, p = 1, a warning, and the others are as ever."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover import FirstOrder, Rows, convert, explain
from turnover.cleansing import first_order_totals
from turnover.errors import LossError
from turnover.estimators import GateKernel, SaturatedQueryWarning, TwoPass

pytestmark = pytest.mark.filterwarnings("ignore::turnover.estimators.LowAgreementWarning")

IDS = torch.arange(300)
FAR = 1e7  # logits so far apart that float32 knows no loss and no gradient


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2, bias=False))
    convert(made, "1", seed=3)
    return made


def queries(model, saturated, rows=12):
    """Rows of which some lie so far out that the model is sure of their label."""
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))
    x[saturated] *= FAR
    return Rows((x, model(x).argmax(dim=1).detach()))


def test_their_scores_are_zero_and_the_others_are_as_ever(model):
    asked = queries(model, [0, 3])
    with pytest.warns(SaturatedQueryWarning, match=r"2 of 12 .*query 0, 3\)"):
        found = FirstOrder(model, loss, 0).scores(asked, IDS).values
    assert not found[[0, 3]].any()
    others = torch.tensor([row for row in range(12) if row not in (0, 3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaturatedQueryWarning)
        wanted = FirstOrder(model, loss, 0).scores(asked.select(others), IDS).values
    torch.testing.assert_close(found[others], wanted, atol=1e-6, rtol=1e-5)  # rows of a matmul


def test_none_of_them_is_a_discovery(model):
    with pytest.warns(SaturatedQueryWarning):
        found = explain(FirstOrder(model, loss), queries(model, [1]), IDS, 3)
    assert (found.helpful.p[1] == 1).all() and (found.harmful.q[1] == 1).all()
    assert not found.helpful.z[1].any()
    assert "No single training instance" in found.verdict(1)
    assert found.helpful.scores[0].all()


def test_exact_scores_rank_beside_them(model):
    def sure(model, batch):
        return loss(model, batch) * torch.where(batch[0][:, 0].abs() > 100, 0.0, 1.0)

    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    x[2] = 500.0
    asked = Rows((x, torch.arange(4) % 2))
    with pytest.warns(SaturatedQueryWarning):
        found = explain(FirstOrder(model, sure), asked, IDS, 3, rerank=10, nulls=200)
    assert (found.helpful.p[2] == 1).all() and not found.helpful.z[2].any()
    assert (found.helpful.p[1] < 1).all()
    exact = TwoPass(model, sure).scores(asked, IDS).values
    assert not exact[2].any()


def test_many_of_them_at_the_beginning_hide_no_other(model):
    asked = queries(model, list(range(10)))
    with pytest.warns(SaturatedQueryWarning, match="10 of 12 .*query 0, 1, 2, 3, 4, …"):
        found, measured = FirstOrder(model, loss).linear(asked, IDS)
    assert measured.queries == 2, "agreement is that of queries which have scores"
    assert (found.std > 0).tolist() == [False] * 10 + [True] * 2


def test_all_of_them_are_an_error(model):
    with pytest.raises(LossError, match="nor does that of any other"):
        explain(FirstOrder(model, loss), queries(model, list(range(12))), IDS, 3)


def test_totals_and_gate_kernels_bear_them(model):
    train = Rows((torch.randn(40, 5), torch.arange(40) % 2), torch.arange(40))
    asked = queries(model, [2])
    others = asked.select(torch.tensor([row for row in range(12) if row != 2]))
    found, wanted = (first_order_totals(model, loss, part, train) for part in (asked, others))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not GateKernel(model, loss).scores(asked, train).values[2].any()
