from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.zoo import Batchnormed, IsolatedChannelsLast, IsolatedMLP, IsolatedSeries
from turnover.errors import ConversionError, MaskError
from turnover.nn import TurnoverDropout, after, convert, instead_of_dropout, masked_layers, seen


def mlp(*extra):
    return nn.Sequential(
        nn.Linear(3, 8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(8, 8),
        nn.ReLU(),
        nn.Dropout(),
        *extra,
    )


def names(conversion):
    return [change.module for change in conversion.changes]


def test_every_change_is_reported():
    report = convert(mlp(), ("1", instead_of_dropout("2")))
    assert str(report) == "layer 0: after 1 (ReLU)\nlayer 1: instead of 2 (Dropout p=0.1)"
    assert len(report) == 2


@pytest.mark.parametrize(
    ("dim", "units"), [(None, ", channels"), (1, ", channels"), (-1, ""), (2, ", dimension 2")]
)
def test_the_dimension_of_the_units_is_reported(dim, units):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    assert str(convert(model, "1", dim=dim)) == f"layer 0: after 1 (ReLU){units}"


def test_state_dict_and_parameters_stay():
    model = mlp(nn.GroupNorm(2, 8))
    keys, parameters = list(model.state_dict()), list(model.parameters())
    convert(model, after("1", "4", "6"))
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    model.load_state_dict(mlp(nn.GroupNorm(2, 8)).state_dict())


def test_patterns_cross_dots_and_order_is_that_of_the_model():
    model = nn.ModuleDict({"a": mlp(), "b": nn.ModuleList([mlp(), mlp()])})
    assert names(convert(model, after("a.1", "b.*.1"))) == ["a.1", "b.0.1", "b.1.1"]


def test_only_from_the_kth_on():
    model = nn.Sequential(*(nn.ReLU() for _ in range(16)))
    assert names(convert(model, after("?", "??", first=11))) == ["11", "12", "13", "14", "15"]
    model = mlp()
    assert names(convert(model, instead_of_dropout(first=1))) == ["5"]
    assert isinstance(model[2], nn.Dropout)


def test_a_sequential_is_masked_at_its_last_child():
    model = nn.ModuleDict(
        {"block": nn.Sequential(mlp(), nn.Sequential(nn.Linear(8, 8), nn.Tanh()))}
    )
    assert names(convert(model, "block")) == ["block.1.1"]


def test_the_last_child_may_be_used_before():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Sequential(shared, nn.Linear(8, 8), shared))
    assert names(convert(model, "0")) == ["0.0 = 0.2"]


def test_dropout_is_replaced_at_every_use():
    shared = nn.Dropout()
    model = nn.Sequential(nn.Linear(3, 8), shared, nn.Linear(8, 4), shared)
    assert names(convert(model, instead_of_dropout())) == ["1", "3"]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    assert [layer.layer for layer in masked_layers(model).values()] == [0, 1]
    block = nn.Sequential(nn.Dropout())
    assert names(convert(nn.ModuleList([block, block]), instead_of_dropout())) == ["0.0 = 1.0"]


@pytest.mark.parametrize("where", ["1", "3", "[13]"])
def test_a_shared_module_is_reported_and_found_by_all_its_names(where):
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 8), shared, nn.Linear(8, 8), shared, nn.Linear(8, 2))
    assert str(convert(model, where)) == "layer 0: after 1 = 3 (ReLU)"


def test_a_shared_module_is_one_match():
    shared = nn.Dropout()
    model = nn.Sequential(nn.Linear(3, 8), shared, nn.Linear(8, 8), shared)
    for where in (("1", "3"), ("1", instead_of_dropout("3"))):
        with pytest.raises(ConversionError, match="matched twice"):
            convert(model, where)
    assert not any(isinstance(module, TurnoverDropout) for module in model.modules())


def test_later_conversions_go_on_counting():
    model = mlp()
    convert(model, "1")
    assert str(convert(model, "4")) == "layer 1: after 4 (ReLU)"
    assert [layer.layer for layer in masked_layers(model).values()] == [0, 1]


def test_options_reach_the_layers():
    model = mlp().eval()
    convert(model, "1", keep=0.25, seed=7, dropout=0.4, dim=-1)
    layer = model[1].turnover
    assert (layer.keep, layer.seed, layer.dropout, layer.dim) == (0.25, 7, 0.4, -1)
    assert "the turn-over layer at 1" in layer.name
    assert not layer.training


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("7", "No module of this Sequential matches 7.*0, 1, 2"),
        (after("1", first=1), "from match 1 on"),
        (("1", "1"), "matched twice"),
        (("1", "?"), "matched twice"),
        (instead_of_dropout("1"), "No ordinary dropout module"),
    ],
)
def test_places_that_are_none(where, message):
    model = mlp()
    with pytest.raises(ConversionError, match=message):
        convert(model, where)
    assert not any(isinstance(module, TurnoverDropout) for module in model.modules())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep": 1.5}, MaskError),
        ({"keep": 0.0}, MaskError),
        ({"seed": -1}, MaskError),
        ({"seed": 2**63}, MaskError),
        ({"dropout": 3.0}, ConversionError),
        ({"dropout": 1.0}, ConversionError),
        ({"dropout": -0.1}, ConversionError),
        ({"dropout": float("nan")}, ConversionError),
        ({"dim": 0}, ConversionError),
    ],
)
def test_impossible_options_leave_the_model_as_it_was(options, error):
    model = mlp()
    before = list(model.named_modules())
    with pytest.raises(error):
        convert(model, ("1", instead_of_dropout()), **options)
    assert list(model.named_modules()) == before
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.GRU(3, 3), "returns a tuple"),
        (nn.LSTM(3, 3), "returns a tuple"),
        (nn.MultiheadAttention(4, 2), "returns a tuple"),
        (nn.ModuleList([nn.ReLU()]), "never called"),
        (nn.ModuleDict({"a": nn.ReLU()}), "never called"),
        (nn.Softmax(-1), "probabilities"),
        (nn.LogSoftmax(-1), "log-probabilities"),
        (nn.Sequential(nn.ReLU(), nn.Softmax(-1)), "probabilities"),
    ],
)
def test_modules_that_no_mask_can_follow(module, message):
    with pytest.raises(ConversionError, match=message):
        convert(nn.ModuleDict({"odd": module}), "odd")


def test_a_mask_twice_at_one_place_is_refused_and_nothing_done():
    model = mlp()
    convert(model, "4")
    with pytest.raises(ConversionError, match="already"):
        convert(model, after("1", "4"))
    assert len(masked_layers(model)) == 1


def test_batchnorm_is_refused_unless_accepted():
    with pytest.raises(ConversionError, match="norm is a BatchNorm1d"):
        convert(Batchnormed(), "act*")
    assert len(convert(Batchnormed(), "act*", allow_batchnorm=True)) == 2
    assert len(convert(mlp(nn.InstanceNorm1d(8)), "1")) == 1


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_a_tuple_is_refused_when_it_comes():
    model = nn.Sequential(Pair())
    convert(model, "0")
    with pytest.raises(ConversionError, match="the turn-over layer at 0 received a tuple"):
        model(torch.ones(2, 3))


def test_a_module_in_places_of_different_width_is_refused():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 8), shared, nn.Linear(8, 4), shared)
    convert(model, "1")
    with pytest.raises(ConversionError, match=r"masked 8 units .* meets 4.*several places.*dim="):
        model(torch.ones(2, 3))


def test_copies_are_independent():
    model = IsolatedMLP.make()
    x, _ = IsolatedMLP.batch()
    copy = deepcopy(model)
    with seen(model, torch.arange(6)):
        expected = model(x)
        full = copy(x)
        inside = deepcopy(model)
    assert torch.equal(full, model(x))
    with seen(copy, torch.arange(6)):
        assert torch.equal(copy(x), expected)
    assert torch.equal(inside(x), expected)


@pytest.mark.parametrize(
    ("module", "shape", "dim"),
    [
        (nn.Linear(6, 6), (2, 6), 1),
        (nn.Linear(6, 6), (2, 3, 6), 2),
        (nn.Linear(6, 6), (2, 3, 4, 6), 3),
        (nn.LayerNorm(6), (2, 3, 4, 6), 3),
        (nn.Conv1d(6, 6, 1), (2, 6, 4), 1),
        (nn.Conv2d(6, 6, 1), (2, 6, 4, 4), 1),
        (nn.Conv3d(6, 6, 1), (2, 6, 3, 3, 3), 1),
        (nn.GroupNorm(2, 6), (2, 6, 4), 1),
        (nn.MaxPool1d(1), (2, 6, 4), 1),
        (nn.ReLU(), (2, 6), 1),
        (nn.ReLU(), (2, 3, 6), 2),
        (nn.ReLU(), (2, 6, 3, 3), 1),
        (nn.ReLU(), (2, 6, 3, 3, 3), 1),
    ],
)
def test_the_units_of_each_kind_of_module(module, shape, dim):
    model = nn.Sequential(module)
    convert(model, "0")
    with torch.no_grad():
        plain = model(torch.rand(shape) + 0.1)
        with seen(model, [5, 6]):
            masked = model(torch.rand(shape) + 0.1)
    layer = masked_layers(model)["0.turnover"]
    assert layer.units == 6 == plain.shape[dim]
    mask = layer.spec.mask(torch.tensor([5, 6]))
    others = [d for d in range(1, masked.dim()) if d != dim]
    alive = masked.ne(0).sum(others).ne(0) if others else masked.ne(0)
    assert torch.equal(alive, mask)


def test_the_dimension_can_be_given():
    model = nn.Sequential(nn.Conv1d(6, 6, 1), nn.ReLU())
    convert(model, "1", dim=1)
    with seen(model, [5, 6]):
        model(torch.rand(2, 6, 9))
    assert model[1].turnover.units == 6


def turned(first, second):
    """Swaps two dimensions, as a functional call between modules does."""

    class Turned(nn.Module):
        def forward(self, x):
            return x.transpose(first, second)

    return Turned()


class LayerNorm2d(nn.LayerNorm):
    """Normalises channels first, as torchvision's does."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


UNKNOWN = [nn.ELU(), nn.GELU(), nn.Dropout(0.0), nn.Identity(), nn.Sequential(nn.Tanh())]


@pytest.mark.parametrize("unknown", UNKNOWN, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize(
    ("before", "shape", "dim"),
    [
        ([nn.Conv1d(6, 6, 1)], (2, 6, 9), 1),
        ([nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6)], (2, 6, 9), 1),
        ([nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(3)], (2, 6, 5, 5), 1),
        ([nn.Conv3d(6, 6, 1)], (2, 6, 3, 4, 5), 1),
        ([nn.Linear(6, 6)], (2, 4, 5, 6), 3),
        ([nn.Conv2d(6, 6, 1), turned(1, 3), nn.LayerNorm(6), nn.Linear(6, 6)], (2, 6, 4, 5), 3),
        ([nn.Linear(6, 6), turned(1, 3), nn.Conv2d(6, 6, 1)], (2, 4, 5, 6), 1),
        ([LayerNorm2d(6)], (2, 6, 4, 5), 1),
        ([nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Sigmoid()], (2, 3, 4, 5, 6), 4),
        ([nn.Conv2d(6, 6, 1), nn.Flatten()], (2, 6, 4, 5), 1),
    ],
)
def test_an_unknown_module_masks_the_units_of_the_last_known_one(before, shape, dim, unknown):
    model = nn.Sequential(*before, deepcopy(unknown)).eval()
    convert(model, str(len(before)), allow_batchnorm=True)
    with seen(model, [5, 6]), torch.no_grad():
        y = model(torch.rand(shape))
    (layer,) = masked_layers(model).values()
    assert layer.units == y.shape[dim]
    kept = (y != 0).movedim(dim, -1).flatten(1, -2) if y.dim() > 2 else (y != 0).unsqueeze(1)
    assert torch.equal(kept.any(1), layer.spec.mask(torch.tensor([5, 6])))


@pytest.mark.parametrize(("kind", "dim"), [(IsolatedChannelsLast, -1), (IsolatedSeries, 1)])
def test_activations_of_the_zoo_are_masked_at_their_units(kind, dim):
    model = kind.make()
    assert {layer.dim for layer in masked_layers(model).values()} == {dim}


def test_a_block_has_the_units_of_its_last_known_module():
    blocks = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 1), "block": Embedder()})
    convert(blocks, "block")
    assert blocks["block"].turnover.dim == -1


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act = nn.Linear(8, 8), nn.ReLU()


@pytest.mark.parametrize("width", [16, 8])
def test_tokens_made_of_feature_maps_are_refused_unless_the_dimension_is_given(width):
    def tokens():
        steps = nn.Conv2d(3, width, 1), nn.Flatten(2), turned(1, 2), nn.Dropout(0.0)
        return nn.Sequential(*steps)

    x = torch.ones(2, 3, 2, 4)
    model = tokens()
    convert(model, instead_of_dropout())
    with pytest.raises(ConversionError, match=f"{width} units.*dimension 1.*dim="):
        model(x)
    model = tokens()
    convert(model, instead_of_dropout(), dim=-1)
    assert model(x).shape == (2, 8, width)
    assert model[3].units == width


def test_units_that_moved_are_refused():
    model = nn.Sequential(nn.Linear(6, 5), turned(1, 3), nn.ReLU())
    convert(model, "2")
    with pytest.raises(ConversionError, match="would mask the 3 units of dimension 3"):
        model(torch.ones(2, 3, 4, 6))


def test_a_sequence_as_long_as_another_width_is_no_reason_for_doubt():
    model = nn.ModuleDict({"up": nn.Linear(4, 9), "down": nn.Linear(9, 4), "act": nn.ReLU()})
    convert(model, "act")
    assert model["act"](model["up"](torch.ones(2, 4, 4))).shape == (2, 4, 9)


def test_a_dimension_that_activations_lack_is_refused():
    model = nn.Sequential(nn.ReLU())
    convert(model, "0", dim=3)
    with pytest.raises(ConversionError, match=r"masks dimension 3 but received \[2, 3\]"):
        model(torch.ones(2, 3))


def test_a_mask_on_positions_is_told_when_their_number_changes():
    model = nn.Sequential(nn.ReLU())
    convert(model, "0", dim=1)
    model(torch.ones(2, 9, 6))
    with pytest.raises(ConversionError, match=r"masked 9 units before and now meets 7.*dim="):
        model(torch.ones(2, 7, 6))
