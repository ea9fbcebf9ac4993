"""Training of a model as it is found: its modes, its device, and what cannot be trained."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.asserts import assert_same_bits
from tests.zoo import IsolatedDict, IsolatedMLP, loss
from turnover import Recipe, Rows, fit
from turnover.errors import ConversionError, DataError, LossError
from turnover.training import losses_of

COUNT = 11
RECIPE = Recipe(2, 4, 5, lambda p: torch.optim.SGD(p, 0.1))

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")


def rows(kind=IsolatedMLP):
    return Rows(kind.batch(COUNT), torch.arange(COUNT) + 7)


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


class Spied(IsolatedMLP):
    """Notes the modes of its modules in every step."""

    def __init__(self):
        super().__init__()
        self.met = []

    def forward(self, x):
        self.met.append(modes(self))
        return super().forward(x)


@pytest.mark.parametrize("training", [True, False])
def test_training_leaves_the_modes_that_it_found(training):
    model = Spied.make().train(training)
    before = modes(model)
    fit(model, rows(), loss, RECIPE, on_epoch=lambda epoch: model.eval())
    assert modes(model) == before
    assert all(all(met.values()) for met in model.met)


def test_modules_in_evaluation_mode_inside_a_training_model_stay_so():
    model = Spied.make()
    model.second.eval()
    before = modes(model)
    fit(model, rows(), loss, RECIPE, on_epoch=lambda epoch: model.eval())
    assert modes(model) == before
    assert all(met == before for met in model.met)


class Half(Spied):
    """Keeps a module in evaluation mode whenever it is told to train."""

    def train(self, mode=True):
        super().train(mode)
        self.second.eval()
        return self


def test_a_model_decides_what_its_training_mode_is():
    model = Half.make().eval()
    fit(model, rows(), loss, RECIPE)
    assert not any(modes(model).values())
    assert all(met == modes(Half.make().train()) for met in model.met)


def test_an_error_leaves_the_modes_that_were_found():
    model = IsolatedMLP.make().eval()
    with pytest.raises(LossError):
        fit(model, rows(), lambda m, b: loss(m, b).mean(), RECIPE)
    assert not any(modes(model).values())


def test_a_model_in_which_everything_is_frozen_is_refused():
    model = IsolatedMLP.make().requires_grad_(False)
    with pytest.raises(ConversionError, match="Nothing in this IsolatedMLP can be trained"):
        fit(model, rows(), loss, RECIPE)


def test_no_rows_are_refused():
    none = rows().select(slice(0, 0))
    with pytest.raises(DataError, match="no rows to train on"):
        fit(IsolatedMLP.make(), none, loss, RECIPE)
    with pytest.raises(DataError, match="no rows to evaluate"):
        losses_of(IsolatedMLP.make(), loss, none)


@pytest.mark.parametrize(("epochs", "batch_size"), [(-1, 4), (2, 0), (2, -3)])
def test_an_impossible_recipe_is_refused(epochs, batch_size):
    with pytest.raises(DataError, match=f"{epochs} epochs with {batch_size} rows"):
        Recipe(epochs, batch_size)


def test_an_unknown_sub_network_is_refused():
    with pytest.raises(DataError, match="not 'typo'"):
        losses_of(IsolatedMLP.make(), loss, rows(), "typo")


def test_the_default_device_plays_no_part():
    """The meta device computes nothing, so that whatever lands on it is an error."""
    plain, other = IsolatedMLP.make(), IsolatedMLP.make()
    fit(plain, rows(), loss, RECIPE)
    data = rows()
    with torch.device("meta"):
        fit(other, data, loss, RECIPE)
        losses = losses_of(other, loss, data, "unseen")
    assert_same_bits(other, plain)
    assert torch.equal(losses, losses_of(plain, loss, data, "unseen"))


@needs_gpu
@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedDict])
def test_rows_are_moved_to_the_model(kind):
    near, far, data = kind.make(), kind.make().cuda(), rows(kind)
    fit(near, data, loss, RECIPE)
    fit(far, data, loss, RECIPE)
    for which in ("seen", "unseen", "full"):
        found = losses_of(far, loss, data, which)
        assert found.device.type == "cpu"
        # float32 sums in another order, over six steps
        torch.testing.assert_close(found, losses_of(near, loss, data, which), rtol=1e-4, atol=1e-5)


@needs_gpu
def test_a_loss_that_is_no_number_is_named_on_any_device():
    model = IsolatedMLP.make().cuda()
    with pytest.raises(LossError, match="not a finite"):
        fit(model, rows(), lambda m, b: loss(m, b) * torch.inf, RECIPE)


def test_no_step_of_batchnorm_has_a_single_row():
    """BatchNorm knows no spread of one row; other models take as many rows as they are told."""
    sizes = []

    def told(model, batch):
        sizes.append(len(batch[0]))
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    data = Rows((torch.randn(9, 3), torch.arange(9) % 2), torch.arange(9))
    for norm in (nn.Identity(), nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False)):
        fit(nn.Sequential(nn.Linear(3, 2), norm), data, told, replace(RECIPE, epochs=1))
    assert sizes == [4, 4, 1, 5, 4, 5, 4]
