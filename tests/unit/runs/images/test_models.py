"""Networks for pictures: shapes, places of masks, equal weights, and what the leak check says."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.errors import ConversionError, DataError, MissingExtra
from turnover.leaks import check
from turnover.nn import is_converted, masked_layers, seen
from turnover.runs.images import ARCHITECTURES, build_network, layers_of, maskable

SMALL = ["cnn", "vgg11-slim"]
HUGE = {"vgg19"}  # a second of weights each time
EVERY = [pytest.param(n, marks=[pytest.mark.slow] if n in HUGE else []) for n in ARCHITECTURES]
SLOW_TO_AUDIT = ["cnn", pytest.param("vgg11-slim", marks=pytest.mark.slow)]


def pictures(rows=4, channels=3, size=32):
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(1))


def audit(model, **options):
    batch = {"x": pictures(size=8), "y": torch.tensor([0, 1, 2, 1])}

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    small = lambda parameters: torch.optim.SGD(parameters, lr=0.01)  # noqa: E731
    return check(model, batch, loss, optimizer=small, instances=1, **options)


def weights(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("name", EVERY)
def test_layers_are_what_has_weights(name):
    model = build_network(name, classes=3, seed=0)
    assert len(weights(model)) == layers_of(name) == len(maskable(name)) + 1
    assert model(pictures(2)).shape == (2, 3)


@pytest.mark.parametrize("name", EVERY)
def test_masks_stand_after_the_first_layer_and_all_later_ones(name):
    begin = ARCHITECTURES[name].first
    assert len(masked_layers(build_network(name, classes=3, seed=0))) == layers_of(name) - begin
    for first in (1, layers_of(name) - 1):
        layers = masked_layers(build_network(name, classes=3, seed=0, first=first))
        assert len(layers) == layers_of(name) - first
        expected = [f"drop{n}" for n in range(first, layers_of(name))]
        assert [full.rpartition(".")[2] for full in layers] == expected


def test_vgg19_is_the_papers():
    model = build_network("vgg19", classes=10, seed=0)
    kinds = [type(module) for module in model]
    assert kinds.count(nn.Conv2d) == 16 and kinds.count(nn.MaxPool2d) == 5
    assert next(iter(masked_layers(model))) == "drop11"
    assert [w.out_channels for w in weights(model)[:16]] == [64] * 2 + [128] * 2 + [256] * 4 + [
        512
    ] * 8


@pytest.mark.parametrize("name", EVERY)
def test_equal_seeds_give_equal_weights_with_and_without_masks(name):
    state = torch.random.get_rng_state()
    one, other = (build_network(name, classes=3, seed=5, turnover=on) for on in (True, False))
    third = build_network(name, classes=3, seed=6)
    assert torch.equal(state, torch.random.get_rng_state())
    assert is_converted(one) and not is_converted(other)
    mine, theirs = one.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert not torch.equal(weights(one)[0].weight, weights(third)[0].weight)
    x = pictures(2)
    assert torch.equal(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", EVERY)
def test_ordinary_dropout_stands_at_the_same_places(name):
    plain = build_network(name, classes=3, seed=0, turnover=False, dropout=0.3)
    found = {n: m.p for n, m in plain.named_modules() if isinstance(m, nn.Dropout)}
    masked = masked_layers(build_network(name, classes=3, seed=0, dropout=0.3))
    assert found == {n: layer.dropout for n, layer in masked.items()} and set(found.values()) == {
        0.3
    }


@pytest.mark.parametrize("name", EVERY)
def test_a_mask_drops_channels_as_a_whole(name):
    model = build_network(name, classes=3, seed=0, first=1).eval()
    found = {}
    layer = masked_layers(model)["drop1"]
    layer.register_forward_hook(lambda _, x, y: found.update(x=x[0], y=y))
    with seen(model, [3, 8]), torch.no_grad():
        model(pictures(2))
    kept = (found["y"] != 0).flatten(2).any(2)
    alive = (found["x"] != 0).flatten(2).any(2)
    assert not torch.equal(kept[0], kept[1])
    for row in range(2):
        expected = torch.where(kept[row, :, None, None], 2 * found["x"][row], 0.0)
        assert torch.equal(found["y"][row], expected)
    assert 0.2 < float(kept[alive].float().mean()) < 0.8


@pytest.mark.parametrize("name", SLOW_TO_AUDIT)
def test_the_audit_is_clean_where_all_layers_are_masked(name):
    audit(build_network(name, classes=3, seed=0)).raise_if_leaky()


@pytest.mark.parametrize("name", SLOW_TO_AUDIT)
def test_the_audit_names_the_layers_before_the_first_mask(name):
    found = audit(build_network(name, classes=3, seed=0, first=3))
    leaking = {leak.parameter.partition(".")[0] for leak in found.leaks}
    assert leaking == {"conv1", "conv2"}


@pytest.mark.slow
def test_the_audit_names_batchnorm():
    found = audit(build_network("resnet9", classes=3, seed=0, first=1))
    assert {leak.kind for leak in found.leaks} == {"BatchNorm2d"}


@pytest.mark.parametrize("size", [8, 28, 40, 64])
@pytest.mark.parametrize("name", [*SMALL, "resnet9"])
def test_any_size_and_gray_pictures(name, size):
    model = build_network(name, classes=3, channels=1, size=size, seed=0)
    assert model.eval()(pictures(2, 1, size)).shape == (2, 3)


@pytest.mark.parametrize("first", [0, 5, -1])
def test_no_mask_follows_the_output(first):
    with pytest.raises(ConversionError, match="layers 1 to 4 of cnn"):
        build_network("cnn", classes=3, seed=0, first=first)


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"channels": 0}, {"size": 7}])
def test_pictures_that_no_network_takes(wrong):
    with pytest.raises(DataError, match="at least"):
        build_network("cnn", **{"classes": 3, "seed": 0} | wrong)
    with pytest.raises(ConversionError, match="dropout is 1"):
        build_network("cnn", classes=3, seed=0, dropout=1, turnover=False)


class Stages(nn.Module):
    """What the networks of timm have in common."""

    feature_info = ({"module": "stem"}, {"module": "stage"})

    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 3)
        self.stage = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, classes)

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)).mean((2, 3)))


@pytest.fixture
def timm(monkeypatch):
    def create(name, *, num_classes, in_chans):
        return Stages(num_classes, in_chans)

    module = SimpleNamespace(is_model=lambda name: name == "stages", create_model=create)
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("timm")
def test_networks_of_timm_are_masked_after_their_stages_and_before_their_output():
    assert layers_of("stages") == 4 and list(maskable("stages")) == [1, 2, 3]
    model = build_network("stages", classes=3, seed=0)
    assert list(masked_layers(model)) == ["stage.2.turnover", "fc.input.turnover"]
    assert len(masked_layers(build_network("stages", classes=3, seed=0, first=1))) == 3
    assert model.fc.linear.bias is None
    x = pictures(3)
    plain = build_network("stages", classes=3, seed=0, turnover=False, dropout=0.5)
    assert torch.equal(plain.eval()(x), model.eval()(x))
    plain.train()
    torch.manual_seed(0)
    assert not torch.equal(plain(x), plain(x))
    with pytest.raises(ConversionError, match="places for masks 1 to 3"):
        build_network("stages", classes=3, seed=0, first=4)
    with pytest.raises(DataError, match=r"no network 'stagse'.*cnn, resnet9"):
        build_network("stagse", classes=3, seed=0)


def test_other_names_need_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"'resnet18' is none of cnn, .*'timm'"):
        build_network("resnet18", classes=3, seed=0)
    with pytest.raises(MissingExtra):
        layers_of("resnet18")
