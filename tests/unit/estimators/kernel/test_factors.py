"""Factors of gradients: the same numbers as one backward pass for every example."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover._functional import per_example_gradients
from turnover.errors import ConversionError, LossError
from turnover.estimators.kernel import _features
from turnover.estimators.kernel._factors import factors, unchecked
from turnover.estimators.kernel._features import blocks_of, kernel, numbers, stacked

# Sums of up to a thousand float64 products, in another order.
ROUNDING = {"atol": 1e-10, "rtol": 1e-8}


def loss(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(1), batch[1], reduction="none")


class Twice(nn.Module):
    """One module in two places, and a change in place behind it."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(6, 6), nn.Linear(6, 3, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.head(self.relu(self.linear(self.relu(self.linear(x)))))


class Tokens(nn.Module):
    """Sequences: every position shares the weights."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.first(x))).mean(dim=1))


def conv(**options):
    return nn.Sequential(nn.Conv2d(2, 3, 3, **options), nn.ReLU(inplace=True), nn.Flatten())


def partly_frozen(*names):
    """Only the named parameters are trained."""
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


MODELS = {
    "only biases": (partly_frozen("0.bias", "1.bias", "2.bias"), (6,)),
    "only weights": (partly_frozen("0.weight", "1.weight", "2.weight"), (6,)),
    "one of each": (partly_frozen("0.bias", "1.weight", "2.weight"), (6,)),
    "norm without bias": (nn.Sequential(nn.LayerNorm(6, bias=False), nn.Linear(6, 3)), (6,)),
    "norm of an image": (
        nn.Sequential(nn.LayerNorm((2, 3)), nn.Flatten(), nn.Linear(6, 3)),
        (2, 3),
    ),
    "mlp": (nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (6,)),
    "no bias": (nn.Sequential(nn.Linear(6, 3, bias=False)), (6,)),
    "twice": (Twice(), (6,)),
    "tokens": (Tokens(), (7, 4)),
    "conv": (conv(), (2, 5, 5)),
    "stride": (conv(stride=2, padding=1), (2, 6, 5)),
    "dilation": (conv(dilation=2, padding=(2, 1)), (2, 7, 6)),
    "same": (conv(padding="same"), (2, 4, 4)),
    "circular": (conv(padding=1, padding_mode="circular"), (2, 4, 4)),
    "conv1d": (nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.Flatten()), (2, 7)),
    "conv1d same": (nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.Flatten()), (2, 7)),
}


@pytest.fixture(params=MODELS)
def case(request):
    torch.manual_seed(1)
    model, shape = MODELS[request.param]
    model = model.double()
    return model, (torch.randn(6, *shape).double(), torch.randint(0, 3, (6,)))


def twin(model, batch):
    """Per-example gradients by torch.func, with the inner products of their rows."""
    gradients = torch.cat(list(per_example_gradients(model, loss, batch)))
    return gradients, gradients @ gradients.T


def test_inner_products_are_those_of_gradients(case):
    model, batch = case
    found, losses = factors(model, loss, batch, torch.ones_like)
    _, wanted = twin(model, batch)
    torch.testing.assert_close(kernel(blocks_of(found), blocks_of(found)), wanted, **ROUNDING)
    torch.testing.assert_close(losses, loss(model, batch).detach())


def test_explicit_gradients_have_the_same_norm(case):
    model, batch = case
    found, _ = factors(model, loss, batch, torch.ones_like)
    total = sum(factor.explicit().square().sum(dim=1) for factor in found)
    torch.testing.assert_close(total, twin(model, batch)[0].square().sum(dim=1), **ROUNDING)


def test_the_scale_multiplies_each_gradient(case):
    model, batch = case
    plain, _ = factors(model, loss, batch, torch.ones_like)
    scaled, losses = factors(model, loss, batch, lambda losses: 2 * losses)
    weights = 2 * losses[:, None] * 2 * losses
    wanted = kernel(blocks_of(plain), blocks_of(plain)) * weights
    torch.testing.assert_close(kernel(blocks_of(scaled), blocks_of(scaled)), wanted, **ROUNDING)


def test_parts_below_each_other_are_the_whole(case):
    model, batch = case
    whole = blocks_of(factors(model, loss, batch, torch.ones_like)[0])
    parts = [
        blocks_of(factors(model, loss, [b[i : i + 2] for b in batch], torch.ones_like)[0])
        for i in (0, 2, 4)
    ]
    joined = stacked(parts, 6)
    torch.testing.assert_close(kernel(joined, joined), kernel(whole, whole), **ROUNDING)
    assert numbers(joined) == numbers(whole)


def test_large_gradients_of_sequences_are_projected(monkeypatch):
    monkeypatch.setattr(_features, "sides", lambda out, width, most: (512, 512))
    torch.manual_seed(0)
    model, batch = Tokens(), (torch.randn(6, 7, 4), torch.randint(0, 3, (6,)))
    found, _ = factors(model, loss, batch, torch.ones_like)
    _, wanted = twin(model, batch)
    blocks = blocks_of(found)
    scale = wanted.diagonal().sqrt()
    error = (kernel(blocks, blocks) - wanted) / (scale * scale[:, None])
    assert 0 < error.abs().max() < 0.3, "projected, both sides with errors of about √(2/512)"


def test_frozen_modules_are_left_out():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    found, _ = factors(
        model, loss, (torch.randn(4, 6), torch.zeros(4, dtype=torch.long)), torch.ones_like
    )
    assert [factor.g.shape[-1] for factor in found] == [3]
    assert all(p.grad is None for p in model.parameters())


def test_parameters_that_factors_must_not_read_are_named():
    model = nn.Sequential(nn.Linear(6, 3), nn.PReLU())
    found = unchecked(model, frozenset({"1.weight"}))
    assert (found.modules, found.by_row, found.share) == (("0",), ("1.weight",), 21 / 22)
    with pytest.raises(ConversionError, match="Nothing in this Sequential can be trained"):
        unchecked(model.requires_grad_(False))


def test_losses_that_are_no_numbers_are_refused():
    model = nn.Sequential(nn.Linear(6, 3))
    x = torch.randn(4, 6)
    x[2] = torch.nan
    with pytest.raises(LossError, match="row 2"):
        factors(model, loss, (x, torch.zeros(4, dtype=torch.long)), torch.ones_like)
