"""Models on a device, rows and files on the CPU: no operation mixes the two, and bits are equal."""

import copy
import threading

import pytest
import torch
from torch import nn

from tests.elsewhere import ELSEWHERE, Device, Held, MixedDevices, sent
from turnover._precise import precise
from turnover.data import Rows
from turnover.estimators import FirstOrder, GateKernel, GradientKernel, TwoPass, scan, top
from turnover.estimators.kernel import _landmarks
from turnover.estimators.masked._linear import LinearScores
from turnover.masks import MaskSpec
from turnover.nn import after, convert
from turnover.training import (
    Recipe,
    build_split_ensemble,
    fit,
    fit_split_ensemble,
    train_split_ensemble,
)

CLASSES, WIDTH = 3, 6


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def masked():
    model = network(0)
    convert(model, after("1"), seed=0)
    return model


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


def test_features_wait_in_pinned_memory_while_others_are_multiplied(
    ensemble, tmp_path, device, monkeypatch
):
    """The device of make-believe stands for CUDA: each block is pinned once, in another thread."""
    for place in ("turnover._rows", "turnover.estimators.kernel._landmarks"):
        monkeypatch.setattr(f"{place}.PINNED", ("cuda", ELSEWHERE.type))
    monkeypatch.setattr(_landmarks, "SENT", 16)
    pinned = []

    def pin(tensor):
        assert not isinstance(tensor, Held) and tensor.dtype == torch.float16
        pinned.append((len(tensor), threading.current_thread() is threading.main_thread()))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    wanted = GradientKernel(ensemble, loss, landmarks=12).fit(TRAIN, folder=tmp_path)
    fitted = GradientKernel(there(ensemble), loss, landmarks=12).open(tmp_path)
    assert torch.equal(fitted.scores(QUERIES).values, wanted.scores(QUERIES).values)
    assert pinned == 4 * [(16, False), (16, False), (8, False)]
    assert torch.equal(fitted.self_scores(), wanted.self_scores())


@pytest.mark.parametrize("estimator", [TwoPass, FirstOrder, GateKernel])
def test_masked_networks_on_a_device_give_the_scores_of_the_cpu(estimator, device):
    wanted = estimator(masked(), loss).scores(QUERIES, TRAIN)
    assert torch.equal(
        estimator(there(masked()), loss).scores(QUERIES, TRAIN).values, wanted.values
    )


@pytest.mark.parametrize("ids", ["range", "tensor"])
def test_scans_on_a_device_give_the_bits_of_the_cpu(ids, device):
    specs = [MaskSpec(130, seed=1), MaskSpec(64, layer=1, keep=0.25)]
    slopes = [torch.randn(3, spec.units) for spec in specs]
    linear = LinearScores.from_gradients(specs, slopes)
    moved = LinearScores.from_gradients(specs, [Held(slope) for slope in slopes])
    given, asked = range(5, 3000), range(5, 3000)
    if ids == "tensor":
        given, asked = torch.arange(5, 3000), Held(torch.arange(5, 3000))
    assert torch.equal(scan(moved, asked).cpu(), scan(linear, given))
    best, wanted = top(moved, asked, 7), top(linear, given, 7)
    assert torch.equal(best.ids.cpu(), wanted.ids)
    assert torch.equal(best.scores.cpu(), wanted.scores)


def test_masks_have_the_same_bits_on_a_device(device):
    ids = torch.tensor([0, 1, -7, 2**62])
    for keep in (0.5, 0.3):
        spec = MaskSpec(300, seed=5, keep=keep)
        assert torch.equal(spec.mask(Held(ids)).cpu(), spec.mask(ids))


def test_masked_networks_train_on_a_device_with_the_bits_of_the_cpu(device):
    here, elsewhere = masked(), there(masked())
    for model in (here, elsewhere):
        fit(model, TRAIN, loss, Recipe(2, batch_size=8))
    assert all(
        torch.equal(value, elsewhere.state_dict()[name].cpu())
        for name, value in here.state_dict().items()
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_split_ensembles_train_on_a_device_with_the_bits_of_the_cpu(stacked, device):
    here, elsewhere = (build_split_ensemble(network, 2) for _ in "ab")
    sent(elsewhere)
    for model in (here, elsewhere):
        train_split_ensemble(model, TRAIN, loss, Recipe(2, batch_size=8), stacked=stacked)
    assert all(
        torch.equal(value, elsewhere.state_dict()[name].cpu())
        for name, value in here.state_dict().items()
    )


def test_fast_products_do_not_decide_scores(ensemble):
    """Where bfloat16 is allowed, products of a kernel are in single precision all the same."""
    x = torch.randn(512, 512)
    exact, wanted = x @ x, GradientKernel(ensemble, loss).fit(TRAIN).scores(QUERIES).values
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        fitted = GradientKernel(ensemble, loss).fit(TRAIN)
        assert torch.equal(fitted.scores(QUERIES).values, wanted)
        assert torch.get_float32_matmul_precision() == "medium"
        with precise():
            assert torch.equal(x @ x, exact)
    finally:
        torch.set_float32_matmul_precision(allowed)


def test_what_comes_next_is_made_ahead_in_order_and_errors_come_in_their_place():
    begun = []

    def make(number):
        begun.append(number)
        return 6 // (3 - number)

    found = _landmarks.ahead(make, iter(range(6)))
    assert next(found) == 2
    assert next(found) == 3
    assert max(begun) <= 2, "one ahead, and no more"
    assert next(found) == 6
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert list(_landmarks.ahead(make, [])) == []


def test_the_make_believe_device_refuses_to_mix():
    there, here = Held(torch.ones(2)), torch.ones(2)
    with Device():
        assert there.device == ELSEWHERE
        assert float((there + there.to(ELSEWHERE)).sum()) == 4
        with pytest.raises(MixedDevices, match="add of tensors"):
            there + here
        with pytest.raises(MixedDevices, match="mm of tensors"):
            torch.mm(here[None], there[:, None])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "folder"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_on_cuda_agree_with_the_cpu(name, stored, ensemble, tmp_path):
    how = {**KERNELS[name], "damping": 0.3}
    wanted = GradientKernel(ensemble, loss, **how).fit(TRAIN).scores(QUERIES).values
    kernel = GradientKernel(copy.deepcopy(ensemble).cuda(), loss, **how)
    fitted = kernel.fit(TRAIN, folder=tmp_path / "index" if stored else None)
    found = fitted.scores(QUERIES).values
    # Sums in another order, of single precision, through a solve: 1e-3 of the largest score.
    assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_masks_have_the_same_bits_on_cuda():
    ids = torch.arange(-1000, 1000)
    spec = MaskSpec(300, seed=5, keep=0.3)
    assert torch.equal(spec.mask(ids.cuda()).cpu(), spec.mask(ids))
    slopes = torch.randn(3, 300)
    linear = LinearScores.from_gradients([spec], [slopes])
    moved = LinearScores.from_gradients([spec], [slopes.cuda()])
    # Reading order of the tables is the same; a mean of slopes in double precision may round anew.
    assert torch.allclose(scan(moved, range(4000)).cpu(), scan(linear, range(4000)), atol=1e-4)
