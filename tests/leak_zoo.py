"""Models with sly leaks, and sly models without: each says what the check must find, and where.

The models of ``tests.zoo`` leak through tensors. These leak late, in large batches, through what
they keep outside of their tensors, or on a path that few rows take.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.zoo import CLASSES, FEATURES, UNITS, Model

LATE, CROWD = 50, 64


class Sly(Model):
    """What a sly model states: leaks, a cause of coupling, words of the report."""

    ROWS = 6
    CAUSE = None
    WORDS = ()

    @classmethod
    def batch(cls, rows=None):
        return super().batch(rows or cls.ROWS)


class WithSkip(Sly):
    """A path around the masks; subclasses say when it opens."""

    LEAKS = frozenset({"skip.weight"})

    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(FEATURES, CLASSES, bias=False)

    def forward(self, x):
        return super().forward(x) + self.opened(x) * self.skip(x)


class LateAttribute(WithSkip):
    WORDS = ("passes (LateAttribute)",)

    def __init__(self):
        super().__init__()
        self.passes = 0

    def opened(self, x):
        self.passes += 1
        return float(self.passes > LATE)


class LateBuffer(WithSkip):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def opened(self, x):
        self.count += 1
        return float(self.count > LATE)


class LateMixing(Sly):
    CAUSE = "the forward code of the model (LateMixing), before first"

    def __init__(self):
        super().__init__()
        self.passes = [0]

    def forward(self, x):
        self.passes[0] += 1
        return super().forward(x - x.mean(0) if self.passes[0] > LATE else x)


class Outside:
    """A count that no model holds."""

    passes = 0


class LateOutside(WithSkip):
    """A leak that opens while the check runs, by a count that cannot be put back."""

    WORDS = ("depends on how often it was run",)

    @classmethod
    def make(cls, seed=0, **options):
        Outside.passes = 0
        return super().make(seed, **options)

    def opened(self, x):
        Outside.passes += 1
        return float(Outside.passes > LATE)


class CrowdMixing(Sly):
    ROWS = 80
    CAUSE = "the forward code of the model (CrowdMixing), before act2"

    def forward(self, x):
        h = self.second(self.act1(self.first(x)))
        return self.head(self.act2(h - h.mean(0) if len(x) > CROWD else h))


class CrowdSkip(WithSkip):
    ROWS = 80
    WORDS = ("in batches of 80 rows",)

    def opened(self, x):
        return float(len(x) > CROWD)


class Renormalised(Sly):
    """A frozen embedding that shortens its vectors in place."""

    LEAKS = frozenset({"embedding.weight"})
    WORDS = ("max_norm",)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, FEATURES, max_norm=0.5)
        self.embedding.weight.requires_grad_(False)

    def forward(self, tokens):
        return super().forward(self.embedding(tokens).mean(1))

    @classmethod
    def batch(cls, rows=None):
        generator = torch.Generator().manual_seed(1)
        rows = rows or cls.ROWS
        return torch.randint(40, (rows, 4), generator=generator), torch.arange(rows) % CLASSES


class Writing(Sly):
    """Frozen weights that the forward pass moves towards the rows."""

    LEAKS = frozenset({"centre"})
    CAUSE = "the forward code of the model (Writing), before first"
    WORDS = ("forward pass itself writes",)

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(FEATURES), requires_grad=False)

    def forward(self, x):
        if self.training:
            self.centre.data = 0.9 * self.centre.data + 0.1 * x.mean(0)
        return super().forward(x - self.centre)


class RareBatch(Sly):
    """One row of many, the last, is of a rare kind: its first feature is large."""

    ROWS = 24

    @classmethod
    def batch(cls, rows=None):
        x, y = super().batch(rows)
        x[:, 0] = 0.0
        x[-1, 0] = 5.0
        return x, y


class RarePath(RareBatch):
    LEAKS = frozenset({"expert.weight"})

    def __init__(self):
        super().__init__()
        self.expert = nn.Linear(FEATURES, CLASSES, bias=False)

    def forward(self, x):
        return super().forward(x) + (x[:, :1] > 1) * self.expert(x)


class RareBypass(RareBatch):
    """A rare row goes around the last mask, through weights that leak for no other row."""

    LEAKS = frozenset({"head.weight", "second.bias"})

    def forward(self, x):
        h = self.second(self.act1(self.first(x)))
        return self.head(torch.where(x[:, :1] > 1, h.relu(), self.act2(h)))


class PlainRunningMean(Sly):
    """A running mean that is no buffer."""

    LEAKS = frozenset({"centre"})
    CAUSE = "the forward code of the model (PlainRunningMean), before first"
    WORDS = ("neither a parameter nor a buffer",)

    def __init__(self):
        super().__init__()
        self.centre = torch.zeros(FEATURES)

    def forward(self, x):
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.mean(0).detach()
        return super().forward(x - self.centre)


class Bank(Sly):
    """Features of earlier rows stand in the next loss, and in no evaluation."""

    LEAKS = frozenset({"bank"})
    WORDS = ("neither a parameter nor a buffer",)

    def __init__(self):
        super().__init__()
        self.bank = [torch.zeros(FEATURES)]

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        past = torch.stack(self.bank).mean(0)
        self.bank.append(x.mean(0).detach())
        del self.bank[:-3]
        return super().forward(x + past)


class Store:
    """A plain object that keeps the last mean."""

    def __init__(self):
        self.last = torch.zeros(FEATURES)


class KeptInAnObject(Sly):
    LEAKS = frozenset({"store.last"})

    def __init__(self):
        super().__init__()
        self.store = Store()

    def forward(self, x):
        shifted = x + self.store.last
        if self.training:
            self.store.last = x.mean(0).detach()
        return super().forward(shifted)


class DrawingNumpy(Sly):
    """A leak beside random numbers that torch does not draw."""

    LEAKS = frozenset({"head.bias"})

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(UNITS, CLASSES)

    def forward(self, x):
        if self.training:
            x = x + 0.1 * float(np.random.rand() + random.random())
        return super().forward(x)


class DrawingAlone(DrawingNumpy):
    """The same with a generator of the model's own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        if self.training:
            x = x + 0.1 * torch.rand(x.shape, generator=self.generator)
        return Model.forward(self, x)


class DrawingOutside(DrawingNumpy):
    """The same with a generator that no model holds: undecided, but for what gradients prove."""

    WORDS = ("twice gives different bits", "before first")
    GENERATOR = torch.Generator().manual_seed(0)

    def forward(self, x):
        if self.training:
            x = x + 0.1 * torch.rand(x.shape, generator=self.GENERATOR)
        return Model.forward(self, x)


class AlwaysDropping(Sly):
    """Dropout that evaluation mode cannot stop."""

    WORDS = ("evaluation mode differ", "before second", "training=self.training")

    def forward(self, x):
        h = F.dropout(self.act1(self.first(x)), 0.3)
        return self.head(self.act2(self.second(h)))


class CodeMixing(Sly):
    """Rows meet between two modules: neither of them is to blame."""

    CAUSE = "the forward code of the model (CodeMixing), before act2"
    WORDS = ("mixes the rows",)

    def forward(self, x):
        h = self.second(self.act1(self.first(x)))
        return self.head(self.act2(h - h.mean(0)))


class Hooked(Sly):
    CAUSE = "a hook on the gradient of second.weight"

    def __init__(self):
        super().__init__()
        self.second.weight.register_hook(lambda gradient: gradient / (1 + gradient.norm()))


class Counting(Sly):
    """Clean: counts its passes, and does the same in each."""

    def __init__(self):
        super().__init__()
        self.calls, self.log, self.shapes = 0, [], {}

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.shapes[len(x)] = self.shapes.get(len(x), 0) + 1
        return super().forward(x)


class Scheduled(Sly):
    """Clean: a temperature that falls with the passes, alike for everybody."""

    def __init__(self):
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.temperature *= 0.999
        return super().forward(x) / self.temperature


class Caching(Sly):
    """Clean: fills a cache at the first pass, and looks at the last inputs."""

    def __init__(self):
        super().__init__()
        self.scale, self.looked_at = None, None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.full((FEATURES,), 0.5)
        self.looked_at = x.detach()
        return super().forward(x * self.scale)


class NoisyTraining(Sly):
    """Clean: noise in training, from NumPy and from a generator of the model's own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.numpy = np.random.default_rng(0)

    def forward(self, x):
        if self.training:
            noise = torch.rand(x.shape, generator=self.generator) + float(np.random.rand())
            x = x + 0.1 * noise + float(self.numpy.random())
        return super().forward(x)


class LargeBatch(Sly):
    """Clean: a batch of many rows."""

    ROWS = 80


PLANTED = [
    *(LateAttribute, LateBuffer, LateMixing, LateOutside, CrowdMixing, CrowdSkip, Renormalised),
    *(Writing, RarePath, RareBypass, PlainRunningMean, Bank, KeptInAnObject, DrawingNumpy),
    *(DrawingAlone, DrawingOutside, AlwaysDropping, CodeMixing, Hooked),
]
CLEAN = [Counting, Scheduled, Caching, NoisyTraining, LargeBatch]
