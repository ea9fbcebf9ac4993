"""Masks inside a network: f^m(z) that learned z, and f^m̃(z) that never saw it.

``convert`` places the layers; ``seen`` and ``unseen`` choose the sub-network of every row.
``turnover.check`` tests on real training steps that an instance leaves its unseen half untouched.

>>> import torch
>>> model = torch.nn.Sequential(
...     torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2, bias=False))
>>> print(convert(model, "1"))
layer 0: after 1 (ReLU)
>>> x = torch.ones(3, 2)
>>> with seen(model, [7, 8, 9]):
...     y = model(x)
>>> y.shape
torch.Size([3, 2])
"""

from turnover import _renamed
from turnover.nn._contexts import full, gated as gated, seen, unseen
from turnover.nn._convert import Conversion as Conversion, convert
from turnover.nn._dropout import (
    TurnoverDropout,
    is_converted as is_converted,
    masked_layers as masked_layers,
)
from turnover.nn._modes import evaluating as evaluating
from turnover.nn._places import after, instead_of_dropout
from turnover.nn._split_ensemble import SplitEnsemble

__all__ = [
    "SplitEnsemble",
    "TurnoverDropout",
    "after",
    "convert",
    "full",
    "instead_of_dropout",
    "seen",
    "unseen",
]

__getattr__ = _renamed.old_name(__name__)
