"""Where may a mask go? Rules by kind of module, as a registry."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _MaxPoolNd,
)

__all__ = [
    "Place",
    "after",
    "dimensions",
    "instead_of_dropout",
    "refusal",
    "unit_count",
    "unit_dimension",
]


@dataclass(frozen=True)
class Place:
    """Modules of a model, by name and kind, and what a mask does there.

    Attributes:
        patterns: shell patterns of full module names (``*`` also matches dots).
        instead: replace the module, rather than follow it.
        first: leave the first matches unmasked and begin with the match of this number, from 0.
    """

    patterns: tuple[str, ...]
    instead: bool = False
    first: int = 0


def after(*patterns: str, first: int = 0) -> Place:
    """Masks on the outputs of the modules whose full names match one of the patterns.

    A module registered under several names matches by any of them, and counts once.

    Args:
        *patterns: shell patterns of full module names (``*`` also matches dots).
        first: only from the match of this number on, counted from 0. The paper masks VGG19 only
            after its 11th layer.

    Returns:
        The places for :func:`convert`, which raises a ConversionError where nothing matches.
    """
    return Place(patterns, instead=False, first=first)


def instead_of_dropout(*patterns: str, first: int = 0) -> Place:
    """Masks in place of the ordinary dropout modules, all or those whose names match.

    Arguments and errors as in :func:`after`.

    The drop rate of a replaced module is not kept (the report of the conversion states it):
    ``convert(model, instead_of_dropout(), dropout=rate)`` puts ordinary dropout on top.
    """
    return Place(patterns or ("*",), instead=True, first=first)


UNITS_LAST: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase),
    *(nn.LayerNorm, nn.RMSNorm),
)
UNITS_SECOND: tuple[type[nn.Module], ...] = (
    *(_ConvNd, _NormBase, nn.GroupNorm),
    *(_MaxPoolNd, _AvgPoolNd, _LPPoolNd, _AdaptiveMaxPoolNd, _AdaptiveAvgPoolNd),
)
DIMENSIONS = {"1d": 3, "2d": 4, "3d": 5}
COUNTS = ("out_features", "out_channels", "embedding_dim", "num_features", "num_channels")


def unit_dimension(module: nn.Module) -> int | None:
    """Dimension of the units in the output of a module, or None if its kind does not tell."""
    if dimensions(module) is not None:
        return 1
    if isinstance(module, UNITS_LAST):
        return -1
    if isinstance(module, nn.Flatten):
        return -1 if module.start_dim == 1 else None
    return 1 if isinstance(module, UNITS_SECOND) else None


def dimensions(module: nn.Module) -> int | None:
    """How many dimensions a batch of feature maps has, by a class name such as ``LayerNorm2d``."""
    return DIMENSIONS.get(type(module).__name__[-2:])


def unit_count(module: nn.Module) -> int | None:
    """How many units the output of a module has, or None if it does not state that."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return module.normalized_shape[-1]
    return next((getattr(module, name) for name in COUNTS if hasattr(module, name)), None)


REFUSALS: dict[type[nn.Module], str] = {
    nn.RNNBase: "returns a tuple; place the mask after a module that follows it",
    nn.MultiheadAttention: "returns a tuple; place the mask after the block around it",
    nn.ModuleList: "is never called itself; name the modules inside it",
    nn.ModuleDict: "is never called itself; name the modules inside it",
    nn.Softmax: "makes probabilities, which a mask would break; place the mask before it",
    nn.LogSoftmax: "makes log-probabilities, which a mask would break; place the mask before it",
}


def refusal(module: nn.Module) -> str | None:
    """Why no mask can follow a module, or None when one can."""
    return next((why for kind, why in REFUSALS.items() if isinstance(module, kind)), None)
