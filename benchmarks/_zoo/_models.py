"""Many networks under cross-entropy: kinds of layers, ways to call them, rows that meet."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._zoo._case import (
    CLASSES,
    LENGTH,
    WIDTH,
    Case,
    images,
    labels,
    series,
    square,
    vectors,
    words,
)
from benchmarks._zoo._losses import entropy
from benchmarks._zoo._modules import (
    Centred,
    Doubled,
    body,
    dense,
    dispatched,
    encoder,
    flat,
    frozen,
    half_graph,
    mlp,
    recomputed,
    sorted_rows,
    tied,
    used,
)


def _case(build: Callable[[], nn.Module], inputs: Callable[[int], Tensor] = vectors) -> Case:
    return Case(build, inputs, entropy, labels)


MODELS: dict[str, Case] = {
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
}
