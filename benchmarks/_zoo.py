"""Models and losses that scores are easily wrong for, with rows that train and that ask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["CASES", "Case"]

ROWS, ASKED, WIDTH, CLASSES, LENGTH = 24, 4, 6, 3, 5
Link = Literal["log-odds", "squared", "none"]


@final
@dataclass(frozen=True)
class Case:
    """One model and loss.

    Attributes:
        build: makes the model, from torch's global seed.
        inputs: makes the inputs of so many rows.
        loss: (model, batch) → losses ``[rows]``.
        targets: makes the targets of so many rows.
        link: what the loss truly is.
        given: the link that the user names; None leaves the default.
        masked: after which module masks are put; the case is then one of masked scores.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    loss: Callable[[nn.Module, Any], Tensor]
    targets: Callable[[int], Tensor]
    link: Link = "log-odds"
    given: Link | None = None
    masked: str | None = None


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


def vectors(n: int) -> Tensor:
    """Rows of features."""
    return torch.randn(n, WIDTH)


def series(n: int) -> Tensor:
    """Rows of a few positions."""
    return torch.randn(n, LENGTH, WIDTH)


def square(n: int) -> Tensor:
    """As many positions as there are rows."""
    return torch.randn(n, ROWS, WIDTH)


def words(n: int) -> Tensor:
    """Rows of tokens; 0 is padding."""
    return torch.randint(0, 10, (n, LENGTH))


def images(n: int) -> Tensor:
    """Small pictures of two channels."""
    return torch.randn(n, 2, 5, 5)


def labels(n: int) -> Tensor:
    """A class for each row."""
    return torch.arange(n) % CLASSES


def numbers(n: int) -> Tensor:
    """A measured value for each row."""
    return torch.randn(n)


def many(n: int) -> Tensor:
    """Several yes-or-no labels for each row."""
    return (torch.rand(n, CLASSES) < 0.4).float()


def entropy(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


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


def negatives(model: nn.Module, batch: Any) -> Tensor:
    """InfoNCE: the other rows of the batch are the wrong answers."""
    similar = F.normalize(model(batch[0])) @ F.normalize(batch[0][:, :CLASSES]).T
    return F.cross_entropy(similar, torch.arange(len(similar)), reduction="none")


def halves(model: nn.Module, batch: Any) -> Tensor:
    """Half of the squared error."""
    return (model(batch[0])[:, 0] - batch[1]).square() / 2


def sigmoids(model: nn.Module, batch: Any) -> Tensor:
    """One yes-or-no loss for each of several labels, summed."""
    found = F.binary_cross_entropy_with_logits(model(batch[0]), batch[1], reduction="none")
    return found.sum(dim=1)


def of_masked(where: str, **more: Any) -> Case:
    """A case of masked scores whose rows reach each other."""
    return Case(**{"inputs": vectors, "loss": entropy, "targets": labels, **more}, masked=where)


def _case(build: Callable[[], nn.Module], inputs: Callable[[int], Tensor] = vectors) -> Case:
    return Case(build, inputs, entropy, labels)


def _loss(
    loss: Callable[[nn.Module, Any], Tensor],
    out: int,
    targets: Callable[[int], Tensor] = labels,
    link: Link = "log-odds",
    given: Link | None = None,
) -> Case:
    return Case(lambda: mlp(out), vectors, loss, targets, link, given)


CASES: dict[str, Case] = {
    "two layers": _case(mlp),
    "float64": _case(lambda: mlp().double()),
    "only the head": _case(lambda: frozen("0.weight", "0.bias")),
    "bias frozen": _case(lambda: frozen("0.bias", "2.bias")),
    "LayerNorm": _case(lambda: dense(nn.Linear(WIDTH, 8), nn.LayerNorm(8), nn.Linear(8, CLASSES))),
    "RMSNorm": _case(lambda: dense(nn.Linear(WIDTH, 8), nn.RMSNorm(8), nn.Linear(8, CLASSES))),
    "BatchNorm": _case(
        lambda: dense(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    ),
    "BatchNorm without statistics": _case(
        lambda: dense(
            nn.Linear(WIDTH, 8),
            nn.BatchNorm1d(8, track_running_stats=False),
            nn.Linear(8, CLASSES),
        )
    ),
    "GroupNorm": _case(lambda: flat(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), features=36), images),
    "InstanceNorm": _case(
        lambda: flat(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), features=36), images
    ),
    "PReLU": _case(lambda: dense(nn.Linear(WIDTH, 8), nn.PReLU(8), nn.Linear(8, CLASSES))),
    "convolution": _case(lambda: flat(nn.Conv2d(2, 4, 3), nn.ReLU(), features=36), images),
    "channels last": _case(
        lambda: flat(nn.Conv2d(2, 4, 3), nn.ReLU(), features=36).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        ),
        images,
    ),
    "strided and padded": _case(
        lambda: flat(nn.Conv2d(2, 4, 3, stride=2, padding=1), features=36), images
    ),
    "circular padding": _case(
        lambda: flat(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), features=100), images
    ),
    "dilated": _case(lambda: flat(nn.Conv2d(2, 4, 2, dilation=2), features=36), images),
    "depthwise": _case(lambda: flat(nn.Conv2d(2, 4, 3, groups=2), features=36), images),
    "1-D convolution": _case(
        lambda: body(lambda m, x: m.out(m.a(x).mean(2)), a=nn.Conv1d(LENGTH, WIDTH, 2)), series
    ),
    "3-D convolution": _case(
        lambda: flat(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2), features=32), images
    ),
    "transposed convolution": _case(lambda: flat(nn.ConvTranspose2d(2, 2, 2), features=72), images),
    "embedding": _case(
        lambda: body(lambda m, x: m.out(m.a(x).mean(1)), a=nn.Embedding(10, WIDTH)), words
    ),
    "embedding with padding": _case(
        lambda: body(lambda m, x: m.out(m.a(x).mean(1)), a=nn.Embedding(10, WIDTH, padding_idx=0)),
        words,
    ),
    "embedding scaled by frequency": _case(
        lambda: body(
            lambda m, x: m.out(m.a(x).mean(1)),
            a=nn.Embedding(10, WIDTH, scale_grad_by_freq=True),
        ),
        words,
    ),
    "embedding renormalised": _case(
        lambda: body(lambda m, x: m.out(m.a(x).mean(1)), a=nn.Embedding(10, WIDTH, max_norm=1.0)),
        words,
    ),
    "embedding bag": _case(
        lambda: body(lambda m, x: m.out(m.a(x)), a=nn.EmbeddingBag(10, WIDTH)), words
    ),
    "positions": _case(
        lambda: body(
            lambda m, x: m.out((x + m.a(torch.arange(LENGTH))).tanh().mean(1)),
            a=nn.Embedding(LENGTH, WIDTH),
        ),
        series,
    ),
    "tied": _case(tied, words),
    "used twice": _case(lambda: body(lambda m, x: m.out(m.a(m.a(x).tanh()).tanh()))),
    "used twice in other sizes": _case(
        lambda: body(lambda m, x: m.out(m.a(x).mean(1) + m.a(x[:, 0]))), series
    ),
    "F.linear beside the module": _case(
        lambda: body(lambda m, x: m.out(F.linear(m.a(x).tanh(), m.a.weight).tanh()))
    ),
    "F.linear alone": _case(lambda: body(lambda m, x: m.out(F.linear(x, m.a.weight).tanh()))),
    "bare parameter": _case(
        lambda: body(lambda m, x: m.out(x * m.a), a=nn.Parameter(torch.randn(WIDTH)))
    ),
    "subclass": _case(lambda: dense(Doubled(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES))),
    "weight norm": _case(
        lambda: dense(
            nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 8)), nn.Linear(8, CLASSES)
        )
    ),
    "spectral norm": _case(
        lambda: dense(
            nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, 8)), nn.Linear(8, CLASSES)
        )
    ),
    "bilinear": _case(
        lambda: body(lambda m, x: m.out(m.a(x, x)), a=nn.Bilinear(WIDTH, WIDTH, WIDTH))
    ),
    "by keyword": _case(lambda: body(lambda m, x: m.out(input=m.a(input=x).tanh()))),
    "in place": _case(
        lambda: dense(nn.Linear(WIDTH, 8), nn.ReLU(inplace=True), nn.Linear(8, CLASSES))
    ),
    "no gradient in a branch": _case(lambda: body(half_graph)),
    "mixture of experts": _case(lambda: body(dispatched, b=nn.Linear(WIDTH, WIDTH))),
    "LSTM": _case(
        lambda: body(
            lambda m, x: m.out(m.a(x)[0][:, -1]), a=nn.LSTM(WIDTH, WIDTH, batch_first=True)
        ),
        series,
    ),
    "GRU": _case(
        lambda: body(
            lambda m, x: m.out(m.a(x)[0][:, -1]), a=nn.GRU(WIDTH, WIDTH, batch_first=True)
        ),
        series,
    ),
    "attention": _case(
        lambda: body(
            lambda m, x: m.out(m.a(x, x, x)[0].mean(1)),
            a=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
        ),
        series,
    ),
    "transformer": _case(lambda: body(lambda m, x: m.out(m.a(x).mean(1)), a=encoder(True)), series),
    "checkpoint": _case(lambda: body(recomputed(False))),
    "reentrant checkpoint": _case(lambda: body(recomputed(True))),
    "compiled part, used before": _case(used),
    "rows sorted inside": _case(lambda: body(sorted_rows)),
    "flattened positions": _case(
        lambda: body(lambda m, x: m.out(m.a(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1))),
        series,
    ),
    "positions first": _case(
        lambda: body(lambda m, x: m.out(m.a(x.transpose(0, 1)).tanh().mean(0))), series
    ),
    "positions first, as many": _case(
        lambda: body(lambda m, x: m.out(m.a(x.transpose(0, 1)).tanh().mean(0))), square
    ),
    "transformer, positions first": _case(
        lambda: body(lambda m, x: m.out(m.a(x.transpose(0, 1)).mean(0)), a=encoder(False)), series
    ),
    "rows taken for positions": _case(
        lambda: body(lambda m, x: m.out(m.a(x)[0][:, -1]), a=nn.GRU(WIDTH, WIDTH)), series
    ),
    "attention across rows": _case(
        lambda: body(lambda m, x: m.out(m.a(x, x, x)[0]), a=nn.MultiheadAttention(WIDTH, 2))
    ),
    "statistics over the batch": _case(
        lambda: dense(nn.Linear(WIDTH, 8), Centred(), nn.Linear(8, CLASSES))
    ),
    "dropout that stays on": _case(lambda: body(lambda m, x: m.out(F.dropout(m.a(x), 0.3)))),
    "noise": _case(lambda: body(lambda m, x: m.out(m.a(x) + 0.1 * torch.randn_like(x)))),
    "negatives in the batch": _loss(negatives, CLASSES),
    "labels smoothed": _loss(
        lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none", label_smoothing=0.2),
        CLASSES,
        link="none",
    ),
    "weighted by class": _loss(
        lambda m, b: F.cross_entropy(
            m(b[0]), b[1], reduction="none", weight=torch.tensor([1.0, 5.0, 0.2]).to(b[0])
        ),
        CLASSES,
        link="none",
    ),
    "focal loss": _loss(
        lambda m, b: (1 - (-entropy(m, b)).exp()).square() * entropy(m, b), CLASSES, link="none"
    ),
    "in bits": _loss(lambda m, b: entropy(m, b) * 1.442695, CLASSES, link="none"),
    "minus a constant": _loss(lambda m, b: entropy(m, b) - 5, CLASSES, link="none"),
    "yes or no": _loss(
        lambda m, b: F.binary_cross_entropy_with_logits(
            m(b[0])[:, 0], (b[1] > 0).to(b[0]), reduction="none"
        ),
        1,
    ),
    "several labels": _loss(sigmoids, CLASSES, many),
    "squared, named": _loss(halves, 1, numbers, "squared", "squared"),
    "squared, not named": _loss(halves, 1, numbers, "squared"),
    "squared, not halved": _loss(lambda m, b: 2 * halves(m, b), 1, numbers, "squared"),
    "squared, far off": _loss(lambda m, b: 1e4 * halves(m, b), 1, numbers, "squared"),
    "squared, taken for probabilities": _loss(entropy, CLASSES, labels, "log-odds", "squared"),
    "squared, not halved, named": _loss(
        lambda m, b: 2 * halves(m, b), 1, numbers, "squared", "squared"
    ),
    "absolute errors": _loss(lambda m, b: (m(b[0])[:, 0] - b[1]).abs(), 1, numbers, "none"),
    "Gaussian likelihood": _loss(
        lambda m, b: (
            F.gaussian_nll_loss(m(b[0])[:, 0], b[1], m(b[0])[:, 1].exp(), reduction="none") + 1.0
        ),
        2,
        numbers,
        "none",
    ),
    "any loss, said so": _loss(
        lambda m, b: (m(b[0])[:, 0] - b[1]).abs(), 1, numbers, "none", "none"
    ),
    "broadcast": _loss(lambda m, b: (m(b[0]) - b[1]).square().mean(1), 1, numbers, "none"),
    "broadcast the other way": _loss(
        lambda m, b: (m(b[0]) - b[1]).square().mean(0), 1, numbers, "none"
    ),
    "a mean": _loss(lambda m, b: F.cross_entropy(m(b[0]), b[1]), CLASSES),
    "several numbers for a row": _loss(
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0]), b[1], reduction="none"),
        CLASSES,
        many,
    ),
    "not a number": _loss(lambda m, b: entropy(m, b).sub(9).sqrt(), CLASSES),
    "masked": of_masked("1", build=mlp),
    "masked, statistics over the batch": of_masked(
        "0", build=lambda: dense(nn.Linear(WIDTH, 8), Centred(), nn.Linear(8, CLASSES))
    ),
    "masked, negatives in the batch": of_masked("1", build=mlp, loss=negatives),
    "masked, broadcast": of_masked(
        "1",
        build=lambda: mlp(1),
        loss=lambda m, b: (m(b[0]) - b[1]).square().mean(1),
        targets=numbers,
    ),
    "masked, dropout that stays on": of_masked(
        "a", build=lambda: body(lambda m, x: m.out(F.dropout(m.a(x), 0.3)))
    ),
    "masked, attention across rows": of_masked(
        "out",
        build=lambda: body(
            lambda m, x: m.end(m.out(m.a(x, x, x)[0])),
            a=nn.MultiheadAttention(WIDTH, 2),
            out=nn.Linear(WIDTH, WIDTH),
            end=nn.Linear(WIDTH, CLASSES),
        ),
    ),
}
