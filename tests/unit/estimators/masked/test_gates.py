"""Gate gradients: central differences of every unit, whatever the model, its masks and blocks."""

import pytest
import torch
from torch import nn

from tests.reference import gates as reference
from tests.zoo import (
    UNITS,
    Embedded,
    IsolatedAdapter,
    IsolatedCNN,
    IsolatedDict,
    IsolatedMLP,
    IsolatedNorms,
    IsolatedSequence,
    IsolatedTanh,
    loss,
)
from turnover.errors import ConversionError, LossError
from turnover.estimators import gate_gradients
from turnover.estimators.masked import _gates
from turnover.nn import convert, masked_layers

QUERIES = 3
MODELS = [
    *(IsolatedMLP, IsolatedCNN, IsolatedNorms, IsolatedSequence, IsolatedDict),
    *(IsolatedAdapter, IsolatedTanh, Embedded),
]


def double(queries):
    if isinstance(queries, dict):
        return {key: double(value) for key, value in queries.items()}
    if isinstance(queries, tuple):
        return tuple(double(value) for value in queries)
    return queries.double() if queries.is_floating_point() else queries


def in_double(kind, **options):
    """A model of the zoo and queries in float64, so that differences of losses mean something."""
    model, queries = kind.make(**options).double(), double(kind.batch(QUERIES))
    with torch.no_grad():
        loss(model, queries)  # tells the layers their units
    return model, queries


def assert_close(found, wanted):
    """Gradients are returned in float32, and a loss that bends is off by (10⁻⁵)² of its slope."""
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 2**-22 * theirs.abs().max() + 1e-9


@pytest.mark.parametrize("masks", [0, 1, 4])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_central_differences(kind, masks):
    model, queries = in_double(kind)
    specs, found = gate_gradients(model, loss, queries, masks=masks)
    assert specs == tuple(layer.spec for layer in masked_layers(model).values())
    assert_close(found, reference.gradients(model, loss, queries, QUERIES, masks))


@pytest.mark.parametrize("keep", [0.3, 0.75])
def test_masks_keep_their_probability(keep):
    model, queries = in_double(IsolatedMLP, keep=keep)
    _, found = gate_gradients(model, loss, queries, masks=3)
    assert_close(found, reference.gradients(model, loss, queries, QUERIES, 3))


@pytest.mark.parametrize("block", [1, 2, 5, 1000])
def test_blocks_do_not_matter(block, monkeypatch):
    model, queries = in_double(IsolatedMLP)
    _, wanted = gate_gradients(model, loss, queries, masks=4)
    monkeypatch.setattr(_gates, "BLOCK", block)
    _, found = gate_gradients(model, loss, queries, masks=4)
    # Four masks are summed in float32, and products of other shapes round otherwise in float64.
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine - theirs).abs().max() <= 8 * 2**-24 * theirs.abs().max()


def test_pairs_of_complements_cancel_the_even_orders():
    """Where the loss is quadratic in the gates, γ and 2 − γ average to the full network's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, UNITS), nn.Tanh(), nn.Linear(UNITS, 2, bias=False)).double()
    convert(model, "1", seed=1)

    def squared(model, batch):
        return (model(batch) - 1).square().sum(1)

    queries = torch.randn(4, 3).double()
    (_, (full,)), (_, (pair,)) = (
        gate_gradients(model, squared, queries, masks=masks) for masks in (0, 2)
    )
    assert (pair - full).abs().max() <= 2**-22 * full.abs().max()
    (_, (one,)) = gate_gradients(model, squared, queries, masks=1)
    assert (one - full).abs().max() > 0.01 * full.abs().max()


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails):
    model, queries = IsolatedMLP.make(dropout=0.5), IsolatedMLP.batch(QUERIES)
    model.train()
    model.second.eval()
    model.first.weight.grad = torch.full_like(model.first.weight, 7.0)
    before, weights = modes(model), [keep.clone() for keep in model.parameters()]
    if fails:
        with pytest.raises(LossError):
            gate_gradients(model, lambda m, b: loss(m, b) * torch.nan, queries)
    else:
        gate_gradients(model, loss, queries, masks=2)
    assert modes(model) == before
    assert all(layer.ids is None and layer.gate is None for layer in masked_layers(model).values())
    assert (model.first.weight.grad == 7).all()
    assert all(keep.grad is None for n, keep in model.named_parameters() if n != "first.weight")
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_gradients_flow_within_no_grad_and_past_frozen_weights():
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    _, wanted = gate_gradients(model, loss, queries)
    model.requires_grad_(False)
    with torch.no_grad():
        _, found = gate_gradients(model, loss, queries)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_ordinary_dropout_plays_no_part():
    model, queries = IsolatedMLP.make(dropout=0.5), IsolatedMLP.batch(QUERIES)
    model.train()
    (_, first), (_, second) = (gate_gradients(model, loss, queries) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def constant(model, batch):
    """Forgets the graph, as a metric does."""
    return loss(model, batch).detach()


def before_the_masks(model, batch):
    model(batch[0])
    return model.first(batch[0]).sum(1)


def clipped(model, batch):
    return (loss(model, batch) * torch.tensor([1.0, 0.0, 1.0])[: len(batch[1])]).clamp(min=0)


@pytest.mark.parametrize("dead", [constant, before_the_masks])
def test_a_loss_beside_the_masks_says_so(dead):
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    with pytest.raises(LossError, match=r"query 0 does not depend on any masked unit.*act1.*act2"):
        gate_gradients(model, dead, queries)


def test_a_saturated_query_has_no_gradient_and_leaves_the_others_theirs():
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    found, wanted = (gate_gradients(model, f, queries)[1] for f in (clipped, loss))
    for mine, theirs in zip(found, wanted, strict=True):
        assert not mine[1].any() and mine[0].any()
        assert torch.equal(mine[[0, 2]], theirs[[0, 2]])


@pytest.mark.parametrize("masks", [0, 4])
def test_a_loss_that_is_no_number_is_named(masks, monkeypatch):
    monkeypatch.setattr(_gates, "BLOCK", 2)
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch(5)
    x[3] = torch.nan
    with pytest.raises(LossError, match=r"query 3 is nan.*diverged"):
        gate_gradients(model, loss, (x, y), masks=masks)


def test_a_mean_loss_is_refused():
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    with pytest.raises(LossError, match="reduction='none'"):
        gate_gradients(model, lambda m, b: loss(m, b).mean(), queries)


def test_a_model_without_masks_is_refused():
    with pytest.raises(ConversionError):
        gate_gradients(IsolatedMLP(), loss, IsolatedMLP.batch(QUERIES))
