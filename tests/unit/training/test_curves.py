"""Losses of sub-networks: those of a loop over rows, each in its own half."""

import pytest
import torch

from tests.reference import training as reference
from tests.zoo import IsolatedCNN, IsolatedDict, IsolatedMLP, loss
from turnover import Rows
from turnover.errors import LossError
from turnover.nn import full, seen, unseen
from turnover.training import _curves, losses_of, measure

IDS = torch.tensor([5, 2**40, -7, 0, 11, 6, -(2**63)])
BLOCKS = {"seen": seen, "unseen": unseen, "full": lambda model, id_: full(model)}

# Losses are of order one, and float32 sums of at most 200 products come in another order.
TOLERANCE = 1e-5


@pytest.fixture(params=[1, 3, 512])
def block_size(request, monkeypatch):
    monkeypatch.setattr(_curves, "BLOCK", request.param)


def rows_of(kind, **options):
    return Rows(kind.batch(len(IDS)), IDS, **options)


@pytest.mark.parametrize("which", BLOCKS)
@pytest.mark.parametrize("groups", [None, [1, 1, 1, 2, 2, 3, 3]])
@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedCNN, IsolatedDict])
def test_losses_are_those_of_the_loop(kind, which, groups, block_size):
    model, rows = kind.make(keep=0.3, dropout=0.5), rows_of(kind, groups=groups)
    model.train()
    found = losses_of(model, loss, rows, which)
    assert all(module.training for module in model.modules())
    model.eval()
    wanted = reference.losses(model, loss, rows, BLOCKS[which])
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
    assert not found.requires_grad


def test_an_ordinary_model_is_its_own_full_network():
    model, rows = IsolatedMLP(), rows_of(IsolatedMLP)
    assert torch.equal(losses_of(model, loss, rows), loss(model, rows.batch).detach())


def test_measure_takes_the_means_of_both_sets():
    model = IsolatedMLP.make()
    train, test = rows_of(IsolatedMLP).select(slice(0, 4)), rows_of(IsolatedMLP).select(slice(4, 7))
    model.eval()
    wanted = {
        f"{half}_{name}": float(reference.losses(model, loss, rows, BLOCKS[half]).mean())
        for name, rows in {"train": train, "test": test}.items()
        for half in ("seen", "unseen", "full")
    }
    point = measure(model, loss, train, test, 17)
    assert point.epoch == 17
    for name in ("seen_train", "unseen_train", "seen_test", "unseen_test", "full_test"):
        assert getattr(point, name) == pytest.approx(wanted[name], abs=TOLERANCE)
    means = list(wanted.values())
    apart = min(abs(a - b) for i, a in enumerate(means) for b in means[:i])
    assert apart > 2 * TOLERANCE, "means this close could be exchanged"


def test_a_mean_loss_is_refused():
    with pytest.raises(LossError, match="reduction='none'"):
        losses_of(IsolatedMLP.make(), lambda m, b: loss(m, b).mean(), rows_of(IsolatedMLP))
