"""Where may a mask go? Rules by kind of module, as a registry."""

from dataclasses import dataclass

from torch import nn

__all__ = ["Place", "after", "instead_of_dropout", "refusal", "unit_dimension"]


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

    With ``first=k`` only from the k-th match on, counted from 0 (the paper masks VGG19 only after
    its 11th layer).
    """
    return Place(patterns, instead=False, first=first)


def instead_of_dropout(*patterns: str, first: int = 0) -> Place:
    """Masks in place of the ordinary dropout modules, all or those whose names match."""
    return Place(patterns or ("*",), instead=True, first=first)


UNITS_LAST: tuple[type[nn.Module], ...] = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RMSNorm)
UNITS_SECOND: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)


def unit_dimension(module: nn.Module) -> int | None:
    """Dimension of the units in the output of a module of a known kind; None: by the shape."""
    if isinstance(module, UNITS_LAST):
        return -1
    return 1 if isinstance(module, UNITS_SECOND) else None


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
