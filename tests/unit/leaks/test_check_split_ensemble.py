"""The audit of a split ensemble: clean when each has modules of its own, and what they share is
named."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows
from turnover.errors import DataError
from turnover.leaks import check_split_ensemble
from turnover.nn import SplitEnsemble
from turnover.training import Recipe, build_split_ensemble, stacks_well

ADAM = partial(torch.optim.AdamW, lr=0.01)
RECIPE = Recipe(7, 16, seed=2, optimizer=ADAM)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed, *middle):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), *middle, nn.Dropout(0.3), nn.Linear(8, 3))


@pytest.fixture
def rows():
    return Rows((torch.randn(32, 5), torch.randint(0, 3, (32,))), torch.arange(32) + 7)


@pytest.mark.parametrize("middle", [nn.ReLU, lambda: nn.BatchNorm1d(8)])
def test_split_ensembles_are_isolated_even_with_batch_norm(rows, middle):
    model = build_split_ensemble(lambda seed: build(seed, middle()), 3, seed=2)
    before = copy.deepcopy(model.state_dict())
    audit = check_split_ensemble(model, rows, loss, RECIPE, instances=2)
    assert audit.ok and audit.instances == 2 and not audit.notes, str(audit)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("stacked", [True, False])
def test_a_module_that_split_ensembles_share_is_named(rows, stacked):
    head = nn.Linear(8, 3)
    made = [nn.Sequential(nn.Linear(5, 8), nn.ReLU(), head) for _ in range(4)]  # one head
    ensemble = SplitEnsemble(made, seed=2)
    audit = check_split_ensemble(ensemble, rows, loss, RECIPE, instances=12, stacked=stacked)
    assert not audit.ok
    assert {leak.parameter.split(".", 2)[2] for leak in audit.leaks} >= {"2.weight", "2.bias"}
    assert "shared with no other" in str(audit) and audit.leaks[0].size_nats > 0


def test_a_training_that_cannot_be_repeated_decides_nothing(rows):
    generator = torch.Generator()

    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(x.shape[0], 3, generator=generator)

    def noisy(seed):
        return nn.Sequential(nn.Linear(5, 5), Noisy(5, 3))

    audit = check_split_ensemble(build_split_ensemble(noisy, 2, seed=2), rows, loss, RECIPE)
    assert not audit.repeatable
    assert "twice gives different bits, first in" in audit.unsteady
    assert "'1'" in audit.unsteady or "1 (Noisy)" in audit.unsteady
    assert audit.unsteady in " ".join(str(audit).split())


def test_an_instance_that_teaches_nothing_is_noted(rows):
    model = build_split_ensemble(build, 2, seed=2)
    audit = check_split_ensemble(model, rows, lambda m, b: loss(m, b) * 0, RECIPE, instances=2)
    assert len(audit.notes) == 2 and "changed no member" in audit.notes[0]


def test_rows_that_are_all_alike_are_refused(rows):
    alike = Rows((torch.ones(32, 5), torch.zeros(32).long()), rows.ids)
    with pytest.raises(DataError, match="all alike"):
        check_split_ensemble(build_split_ensemble(build, 2, seed=2), alike, loss, RECIPE)


def test_what_is_stacked_by_itself():
    assert stacks_well(build(0))
    assert not stacks_well(build(0, nn.BatchNorm1d(8)))
    assert not stacks_well(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()))
