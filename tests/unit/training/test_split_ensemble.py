"""What a budget buys, and what the length of a training means to the kernel."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows
from turnover.errors import ConfigError
from turnover.estimators import GradientKernel
from turnover.training import Recipe, fit_split_ensemble, within

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def rows():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    return Rows((torch.randn(60, 4) + F.one_hot(y, 4), y))


@pytest.mark.parametrize("budget", [1, 2, 4.5, 8])
@pytest.mark.parametrize("epochs", [2, 3, 7, 10, 15, 31])
def test_a_budget_is_not_exceeded_and_not_left_unused(budget, epochs):
    shorter, pairs = within(budget, Recipe(epochs))
    cost = pairs * shorter.epochs / epochs
    assert budget - shorter.epochs / epochs < cost <= budget
    assert pairs >= 2, "one pair cannot choose the damping"
    assert abs(shorter.epochs - epochs / 2) <= 0.5


def test_what_no_budget_buys_is_refused():
    with pytest.raises(ConfigError, match="too small"):
        within(0.5, Recipe(10))
    with pytest.raises(ConfigError, match="half as long"):
        within(2, Recipe(1))
    with pytest.raises(ConfigError, match="leave out pairs"):
        fit_split_ensemble(build, rows(), loss, Recipe(6), pairs=2, budget=4)


def test_an_ensemble_of_a_budget_is_that_of_its_recipe():
    recipe = Recipe(6, 20, seed=3, optimizer=SGD)
    bought = fit_split_ensemble(build, rows(), loss, recipe, budget=2)
    shorter = Recipe(3, 20, seed=3, optimizer=SGD)
    wanted = fit_split_ensemble(build, rows(), loss, shorter, pairs=4)
    assert bought.pairs == 4 and bought.length == 0.5 and wanted.length == 1.0
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(bought.state_dict()[name], tensor), name


def test_damping_that_pairs_choose_is_that_of_the_whole_training():
    model = fit_split_ensemble(build, rows(), loss, Recipe(6, 20, optimizer=SGD), pairs=3)
    own = GradientKernel(model, loss).fit(rows()).damping
    model.length = 0.5
    assert GradientKernel(model, loss).fit(rows()).damping == own / 2
    assert GradientKernel(model, loss, damping=0.7).fit(rows()).damping == 0.7
