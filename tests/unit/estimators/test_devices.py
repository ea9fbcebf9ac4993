"""Models on a device, rows and files on the CPU: no operation mixes the two, and bits are equal."""

import copy

import pytest
import torch
from torch import nn

from tests.elsewhere import ELSEWHERE, Device, Held, MixedDevices, sent
from turnover.data import Rows
from turnover.estimators import FirstOrder, GateKernel, GradientKernel, TwoPass, scan, top
from turnover.estimators.masked._linear import LinearScores
from turnover.masks import MaskSpec
from turnover.nn import convert
from turnover.training import Recipe, fit_split_ensemble

CLASSES, WIDTH = 3, 6


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def masked():
    return convert(network(0), after("1"), seed=0).model


def loss(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def rows(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, WIDTH, generator=generator)
    return Rows((x, x[:, :CLASSES].argmax(dim=1)))


TRAIN, QUERIES = rows(), rows(4, seed=1)


@pytest.fixture(scope="module")
def ensemble():
    return fit_split_ensemble(network, TRAIN, loss, Recipe(2, batch_size=8), pairs=2)


def there(model):
    return sent(copy.deepcopy(model))


KERNELS = {
    "exact": {"landmarks": 0},
    "landmarks": {"landmarks": 12},
    "classes": {"landmarks": 0, "link": "classes"},
    "classes, landmarks": {"landmarks": 12, "link": "classes"},
}


@pytest.fixture
def device(monkeypatch):
    """The device is there; torch has no autocast for it."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)
    with Device():
        yield


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "folder"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_on_a_device_give_the_scores_of_the_cpu(name, stored, ensemble, tmp_path, device):
    how = KERNELS[name]
    wanted = GradientKernel(ensemble, loss, **how).fit(TRAIN)
    kernel = GradientKernel(there(ensemble), loss, **how)
    each = [kernel.fit(TRAIN, folder=tmp_path / "index" if stored else None)]
    if stored:
        each.append(kernel.open(tmp_path / "index"))
    for fitted in each:
        assert torch.equal(fitted.scores(QUERIES).values, wanted.scores(QUERIES).values)
        assert torch.equal(fitted.self_scores(), wanted.self_scores())
