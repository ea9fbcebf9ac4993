"""The demo's network: a small CNN in which every weight has a masked unit on one side.

conv → ReLU → mask → pool → linear → ReLU → mask → linear without bias: no weight or bias is shared
between the two halves. An instance leaves its unseen sub-network untouched, bit for bit.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover._random import manual_seed
from turnover.nn import convert

__all__ = ["Network", "cross_entropy", "logits"]

CHANNELS, WIDTH, CLASSES = 128, 1024, 10
FLATTENED = CHANNELS * 9
MASKED = ["act1", "act2"]


@final
@dataclass(frozen=True)
class Network:
    """One of the demo's three networks.

    Attributes:
        name: file name of its weights in the run folder.
        turnover: masks by instance at both activations.
        dropout: drop probability of ordinary dropout at both activations.
    """

    name: str
    turnover: bool
    dropout: float

    def build(self, seed: int) -> nn.Sequential:
        """The untrained network; equal seeds give equal weights in all three."""
        with torch.random.fork_rng():
            manual_seed(seed)
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv=nn.Conv2d(1, CHANNELS, 3),
                act1=nn.ReLU(),
                pool=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                linear=nn.Linear(FLATTENED, WIDTH),
                act2=nn.ReLU(),
                head=nn.Linear(WIDTH, CLASSES, bias=False),
            )
        if not self.turnover:
            for name in MASKED:
                layers[name] = nn.Sequential(nn.ReLU(), nn.Dropout(self.dropout))
            return nn.Sequential(layers)
        model = nn.Sequential(layers)
        convert(model, MASKED, seed=seed, dropout=self.dropout)
        return model


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What the network says about every image, ``[rows, classes]``."""
    return model(batch["image"])


def cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """−log p(label | image) of every row, in nats."""
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")
