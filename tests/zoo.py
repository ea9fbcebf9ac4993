"""Small models with planted leaks, and some without: every class says what the audit must find."""

from typing import ClassVar

import torch
from torch import nn

from turnover.nn import convert

ROWS, FEATURES, UNITS, CLASSES = 6, 5, 16, 3


class Model(nn.Module):
    """What a model of the zoo states about itself."""

    WHERE = "act*"
    INPUT = (FEATURES,)
    LEAKS = frozenset()
    CROSSTALK = ()
    OPTIONS: ClassVar = {}

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(FEATURES, UNITS)
        self.act1 = nn.ReLU()
        self.second = nn.Linear(UNITS, UNITS)
        self.act2 = nn.ReLU()
        self.head = nn.Linear(UNITS, CLASSES, bias=False)

    def forward(self, x):
        return self.head(self.act2(self.second(self.act1(self.first(x)))))

    @classmethod
    def batch(cls, rows=ROWS):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(rows, *cls.INPUT, generator=generator)
        return x, torch.arange(rows) % CLASSES

    @classmethod
    def make(cls, seed=0, **options):
        torch.manual_seed(seed)
        model = cls()
        convert(model, cls.WHERE, seed=3, **cls.OPTIONS | options)
        return model


class IsolatedMLP(Model):
    pass


class IsolatedCNN(Model):
    INPUT = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, UNITS, 3)
        self.second = nn.Conv2d(UNITS, UNITS, 3)

    def forward(self, x):
        return self.head(self.act2(self.second(self.act1(self.first(x)))).mean((-2, -1)))


class IsolatedNorms(Model):
    """Norms that mix no units, or lie between two masks that do not let them."""

    WHERE = ("act1", "norm", "act2")
    INPUT = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, UNITS, 3)
        self.instance_norm = nn.InstanceNorm2d(UNITS, affine=True)
        self.norm = nn.LayerNorm(UNITS)

    def forward(self, x):
        x = self.act1(self.instance_norm(self.first(x))).mean((-2, -1))
        return self.head(self.act2(self.second(self.norm(x))))


class IsolatedSequence(Model):
    INPUT = (4, FEATURES)

    def forward(self, x):
        return super().forward(x).mean(1)


class IsolatedChannelsLast(Model):
    """Channels come last, as in ConvNeXt and Swin: shapes alone would take rows for units."""

    INPUT = (3, 4, FEATURES)

    def forward(self, x):
        return super().forward(x).mean((1, 2))


class IsolatedSeries(Model):
    """Convolutions in time: shapes alone would take time steps for units."""

    INPUT = (FEATURES, 7)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(FEATURES, UNITS, 3)
        self.second = nn.Conv1d(UNITS, UNITS, 3)

    def forward(self, x):
        return self.head(self.act2(self.second(self.act1(self.first(x)))).mean(-1))


class IsolatedDict(Model):
    def forward(self, x):
        return super().forward(x["x"])

    @classmethod
    def batch(cls, rows=ROWS):
        x, y = super().batch(rows)
        return {"inputs": {"x": x}, "labels": y}


class IsolatedAdapter(Model):
    """A frozen trunk, a masked adapter on it, a mask on their sum."""

    WHERE = ("act2", "sum")

    def __init__(self):
        super().__init__()
        self.first.requires_grad_(False)
        self.up = nn.Linear(UNITS, UNITS)
        self.sum = nn.Identity()

    def forward(self, x):
        h = self.act1(self.first(x))
        return self.head(self.sum(h + self.up(self.act2(self.second(h)))))


class IsolatedTanh(Model):
    """No dead units; masks stay in place with ordinary dropout on top."""

    OPTIONS: ClassVar = {"dropout": 0.2, "keep": 0.3}

    def __init__(self):
        super().__init__()
        self.act1, self.act2 = nn.Tanh(), nn.Tanh()


class OutputBias(Model):
    LEAKS = frozenset({"head.bias"})

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(UNITS, CLASSES)


class UnmaskedFirst(Model):
    WHERE = "act2"
    LEAKS = frozenset({"first.weight", "first.bias"})


class LayerNormBetween(Model):
    LEAKS = frozenset({"norm.weight", "norm.bias"})

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(UNITS)

    def forward(self, x):
        return self.head(self.act2(self.second(self.norm(self.act1(self.first(x))))))


class GroupNormBetween(IsolatedCNN):
    LEAKS = frozenset({"norm.weight", "norm.bias"})

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(4, UNITS)

    def forward(self, x):
        h = self.norm(self.act1(self.first(x)))
        return self.head(self.act2(self.second(h)).mean((-2, -1)))


class NormsBeforeMask(Model):
    """A norm before the mask mixes units: what precedes it is trained for both halves."""

    INPUT = (2, 6, 6)
    LEAKS = frozenset({"first.weight", "first.bias", "second.bias"})

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, UNITS, 3)
        self.norm = nn.GroupNorm(4, UNITS)
        self.layer_norm = nn.LayerNorm(UNITS)

    def forward(self, x):
        x = self.act1(self.norm(self.first(x))).mean((-2, -1))
        return self.head(self.act2(self.layer_norm(self.second(x))))


class Embedded(Model):
    LEAKS = frozenset({"embedding.weight"})

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, FEATURES)

    def forward(self, tokens):
        return super().forward(self.embedding(tokens).mean(1))

    @classmethod
    def batch(cls, rows=ROWS):
        tokens = torch.randint(11, (rows, 4), generator=torch.Generator().manual_seed(1))
        return tokens, torch.arange(rows) % CLASSES


class SparseEmbedded(Embedded):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, FEATURES, sparse=True)


class Batchnormed(Model):
    LEAKS = frozenset({"norm.running_mean", "norm.running_var"})
    CROSSTALK = ("norm (BatchNorm1d)",)
    OPTIONS: ClassVar = {"allow_batchnorm": True}

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(UNITS)

    def forward(self, x):
        return self.head(self.act2(self.second(self.act1(self.norm(self.first(x))))))


class Tied(Model):
    WHERE = "act*"
    LEAKS = frozenset({"second.weight"})

    def __init__(self):
        super().__init__()
        self.third = nn.Linear(UNITS, UNITS)
        self.third.weight = self.second.weight
        self.act3 = nn.ReLU()

    def forward(self, x):
        h = self.act2(self.second(self.act1(self.first(x))))
        return self.head(self.act3(self.third(h)))


class Residual(Model):
    """A masked sum of two masks: their overlap is where the head leaks."""

    LEAKS = frozenset({"head.weight"})

    def forward(self, x):
        h = self.act1(self.first(x))
        return self.head(h + self.act2(self.second(h)))


class Adapter(Model):
    """A masked branch beside an unmasked, frozen one, under a trained head."""

    WHERE = "act2"
    LEAKS = frozenset({"up.bias", "head.weight"})

    def __init__(self):
        super().__init__()
        self.first.requires_grad_(False)
        self.up = nn.Linear(UNITS, UNITS)

    def forward(self, x):
        h = self.act1(self.first(x))
        return self.head(h + self.up(self.act2(self.second(h))))


class Attending(Model):
    INPUT = (4, UNITS)
    LEAKS = frozenset(
        f"attention.{name}"
        for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    )

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(UNITS, UNITS)
        self.attention = nn.MultiheadAttention(UNITS, 2, batch_first=True)

    def forward(self, x):
        return super().forward(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)


class Recurrent(Model):
    INPUT = (3, FEATURES)
    LEAKS = frozenset(f"rnn.{kind}_{to}_l0" for kind in ("weight", "bias") for to in ("ih", "hh"))

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(FEATURES, FEATURES, batch_first=True)

    def forward(self, x):
        return super().forward(self.rnn(x)[0][:, -1])


class Positioned(Model):
    """A parameter of the model's own, added to the input."""

    LEAKS = frozenset({"position"})

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x):
        return super().forward(x + self.position)


class Centre(nn.Module):
    """Subtracts the mean of the batch, and in evaluation mode a running mean."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x):
        if not self.training:
            return x - self.mean
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return x - x.mean(0)


class Centred(Model):
    """A coupling of rows that no list of modules knows."""

    LEAKS = frozenset({"centre.mean"})
    CROSSTALK = ("centre (Centre)",)

    def __init__(self):
        super().__init__()
        self.centre = Centre()

    def forward(self, x):
        return super().forward(self.centre(x))


ISOLATED = [
    *(IsolatedMLP, IsolatedCNN, IsolatedNorms, IsolatedSequence, IsolatedDict),
    *(IsolatedAdapter, IsolatedTanh, IsolatedChannelsLast, IsolatedSeries),
]
LEAKY = [
    *(OutputBias, UnmaskedFirst, LayerNormBetween, GroupNormBetween, NormsBeforeMask, Embedded),
    *(Batchnormed, Tied, Residual, Adapter, Attending, Recurrent, Positioned, Centred),
]
ZOO = [*ISOLATED, *LEAKY]


def loss(model, batch):
    """Cross-entropy per row of (inputs, labels) or of a dict with these keys."""
    x, y = (batch["inputs"], batch["labels"]) if isinstance(batch, dict) else batch
    return nn.functional.cross_entropy(model(x), y, reduction="none")
