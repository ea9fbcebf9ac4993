"""What the models of the zoo are made of: short builders, and modules that do odd things."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks._zoo._case import CLASSES, WIDTH


class Of(nn.Module):
    """Modules by name and a forward pass of one's own."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: Any) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        """The forward pass that was given."""
        return self.run(self, x)


class Doubled(nn.Linear):
    """A subclass that does not compute what a Linear computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the layer."""
        return 2 * super().forward(x)


class Centred(nn.Module):
    """Takes off the mean over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows minus their mean."""
        return x - x.mean(dim=0)


def dense(*modules: nn.Module) -> nn.Sequential:
    """Modules one after another."""
    return nn.Sequential(*modules)


def mlp(out: int = CLASSES) -> nn.Sequential:
    """Two layers."""
    return dense(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, out))


def body(forward: Callable[[Any, Tensor], Tensor], **modules: Any) -> nn.Module:
    """A forward pass, with a linear layer ``a`` and a head ``out`` unless given."""
    usual = {"a": nn.Linear(WIDTH, WIDTH), "out": nn.Linear(WIDTH, CLASSES)}
    return Of(forward, **{**usual, **modules})


def flat(*modules: nn.Module, features: int) -> nn.Sequential:
    """Convolutions and a head."""
    return dense(*modules, nn.Flatten(), nn.Linear(features, CLASSES))


def encoder(batch_first: bool) -> nn.TransformerEncoderLayer:
    """One layer of torch's transformer."""
    return nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=batch_first)


def sorted_rows(m: Any, x: Tensor) -> Tensor:
    """Sorts rows inside, and puts them back."""
    order = x[:, 0].argsort()
    return m.out(torch.tanh(m.a(x[order])))[order.argsort()]


def dispatched(m: Any, x: Tensor) -> Tensor:
    """Each row goes to one of two experts."""
    large, y = x[:, 0] > 0, x.new_zeros(len(x), WIDTH)
    y = y.index_put((large.nonzero().flatten(),), m.a(x[large]))
    return m.out(torch.tanh(y.index_put(((~large).nonzero().flatten(),), m.b(x[~large]))))


def half_graph(m: Any, x: Tensor) -> Tensor:
    """One branch under ``no_grad``."""
    with torch.no_grad():
        y = m.a(x)
    return m.out(torch.tanh(y + x))


def recomputed(reentrant: bool) -> Callable[[Any, Tensor], Tensor]:
    """A part of the forward pass is computed again in the backward pass."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = x.requires_grad_() if reentrant and x.is_leaf and torch.is_grad_enabled() else x
        return m.out(checkpoint(lambda y: torch.tanh(m.a(y)), x, use_reentrant=reentrant))

    return forward


def tied() -> nn.Module:
    """An embedding that is also the matrix of a linear layer."""
    a, b = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, 10, bias=False)
    b.weight = a.weight
    return body(lambda m, x: m.out(m.b(m.a(x)).mean(1)[:, :WIDTH]), a=a, b=b)


def frozen(*names: str) -> nn.Module:
    """Two layers of which some parameters do not train."""
    model = mlp()
    for name, value in model.named_parameters():
        value.requires_grad_(name not in names)
    return model


def used() -> nn.Module:
    """A compiled part that has run before."""
    part = torch.compile(nn.Linear(WIDTH, WIDTH), backend="eager")
    part(torch.zeros(2, WIDTH))
    return body(lambda m, x: m.out(torch.tanh(m.a(x))), a=part)
