"""Networks for pictures by name, with channel masks from a layer on.

    name          layers   masks     for
    cnn                5   all       28 to 64 pixels, thousands of pictures, minutes on one core
    vgg11-slim, …-bn  11   all       the depth of VGG11 at a quarter of its width, for one core
    vgg11             11   from 7    (its paper's configuration A)
    vgg19, vgg19-bn   19   from 11   the paper's
    resnet9            9   from 7

Masked are the channels of a feature map, as a whole, and the units of a linear layer, both after
the activation. Where masks begin at layer 1 and there is no BatchNorm (``cnn``, ``vgg11-slim``,
``vgg19`` with ``first=1``), no weight belongs to both halves, and the leak check is clean. Two
leaks are left to whoever wants them: layers before the first mask, which all pictures train (the
paper's footnote 7 argues that they say little of a single picture; ``experiments/leak_curve.py``
measures it), and BatchNorm, whose statistics mix the pictures of a batch. ``turnover.leaks.check``
names both. On a few thousand pictures every further masked layer costs accuracy, and the same file
found the last wide hidden layer to be the best place: ``cnn`` with ``first=4``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import nn

from turnover._random import manual_seed
from turnover.errors import ConversionError, DataError
from turnover.nn import convert, instead_of_dropout
from turnover.runs.images._layers import VGG11, VGG19, Drop, cnn, resnet9, vgg
from turnover.runs.images._timm import masked_timm, places_of_timm

__all__ = ["ARCHITECTURES", "Architecture", "build_network", "layers_of", "maskable"]

SMALLEST = 8


@final
@dataclass(frozen=True)
class Architecture:
    """One network of the registry.

    Attributes:
        build: function of what stands after each layer, channels and classes.
        layers: how many layers it has, the output among them.
        first: number of the layer after which masks begin.
    """

    build: Callable[[Drop, int, int], nn.Module]
    layers: int
    first: int = 1


ARCHITECTURES = {
    "cnn": Architecture(cnn, 5),
    "resnet9": Architecture(resnet9, 9, first=7),
    "vgg11": Architecture(partial(vgg, VGG11), 11, first=7),
    "vgg11-slim": Architecture(partial(vgg, VGG11, shrink=4), 11),
    "vgg11-slim-bn": Architecture(partial(vgg, VGG11, norm=True, shrink=4), 11),
    "vgg19": Architecture(partial(vgg, VGG19), 19, first=11),
    "vgg19-bn": Architecture(partial(vgg, VGG19, norm=True), 19, first=11),
}


def build_network(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    size: int = 32,
    seed: int,
    turnover: bool = True,
    dropout: float = 0.0,
    first: int | None = None,
) -> nn.Module:
    """The untrained network; equal seeds give equal weights, with and without turn-over dropout.

    It takes normalised pictures, ``float [rows, channels, size, size]``, and gives logits ``[rows,
    classes]``. The output layer has no bias, which would belong to both halves. No global random
    state is changed.

    Args:
        name: one of :data:`ARCHITECTURES`, or of a network of timm.
        classes: how many; 1 output of a regression.
        channels: of the pictures: 1 for gray, 3 for colour.
        size: height and width of the pictures.
        seed: of weights and masks.
        turnover: masks by instance; otherwise ordinary dropout alone stands at the same places.
        dropout: drop probability of ordinary dropout at the places of the masks.
        first: number of the first layer that a mask follows, counted from 1; all later layers but
            the output have one, too. By default that of the architecture.

    Raises:
        DataError: for an unknown name, or pictures or classes that no network can take.
        ConversionError: for a layer that no mask can follow, or ``dropout`` out of range.
        MissingExtra: for a name that only timm may know, when it is not installed.
    """
    if classes < 1 or channels < 1 or size < SMALLEST:
        raise DataError(
            f"No network takes {channels} channels of {size} × {size} pixels in {classes} classes: "
            f"it needs 1 channel, {SMALLEST} × {SMALLEST} pixels and 1 output at least."
        )
    if not 0 <= dropout < 1:
        raise ConversionError(f"dropout is {dropout}, but it must lie in [0, 1).")
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        manual_seed(seed)
        if name in ARCHITECTURES:
            model = _built(name, first, channels, classes, dropout)
        else:
            return masked_timm(
                name,
                _known(),
                classes=classes,
                channels=channels,
                size=size,
                first=first,
                dropout=dropout,
                mask_seed=seed if turnover else None,
            )
    if turnover:
        convert(model, instead_of_dropout(), seed=seed, dropout=dropout, allow_batchnorm=True)
    return model


def layers_of(name: str) -> int:
    """How many layers the network has, the output among them; of timm's, stages.

    Raises:
        DataError: for an unknown name.
        MissingExtra: for a name that only timm may know, when it is not installed.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].layers
    return places_of_timm(name, _known()) + 1


def maskable(name: str) -> range:
    """Numbers of the layers that a mask can follow: all but the output.

    Raises:
        DataError: for an unknown name.
        MissingExtra: for a name that only timm may know, when it is not installed.
    """
    return range(1, layers_of(name))


def _built(name: str, first: int | None, channels: int, classes: int, dropout: float) -> nn.Module:
    architecture = ARCHITECTURES[name]
    begin = architecture.first if first is None else first
    if begin not in maskable(name):
        raise ConversionError(
            f"first is {begin}, but a mask can follow only layers 1 to {architecture.layers - 1} "
            f"of {name}: layer {architecture.layers} is the output."
        )

    def drop(depth: int) -> dict[str, nn.Module]:
        return {f"drop{depth}": nn.Dropout(dropout)} if depth >= begin else {}

    return architecture.build(drop, channels, classes)


def _known() -> str:
    return ", ".join(ARCHITECTURES)
