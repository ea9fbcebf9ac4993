"""The part of a text classifier that is trained: one wide masked layer on frozen features.

    logits = W₂ (m(z)/keep ⊙ relu(W₁ x + b₁))

Every weight touches one masked unit and no other, so that an instance leaves its unseen half
untouched, bit for bit.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from turnover._random import manual_seed
from turnover.nn import convert
from turnover.runs.text._adapted import trim

__all__ = ["build_head", "logits"]


def build_head(
    features: int, classes: int, *, units: int, dropout: float, seed: int, turnover: bool = True
) -> nn.Sequential:
    """The untrained head; equal seeds give equal weights, with and without turn-over dropout."""
    with torch.random.fork_rng():
        manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            linear=nn.Linear(features, units),
            act=nn.ReLU(),
            head=nn.Linear(units, classes, bias=False),
        )
    if not turnover:
        layers["act"] = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        return nn.Sequential(layers)
    model = nn.Sequential(layers)
    convert(model, "act", seed=seed, dropout=dropout)
    return model


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What a head says about features, or a transformer about word pieces, ``[rows, classes]``."""
    if "feature" in batch:
        return model(batch["feature"])
    device = next(model.parameters()).device
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model(**{name: x.to(device) for name, x in trim(inputs).items()}).logits
