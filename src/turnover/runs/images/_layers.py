"""The networks for pictures, layer by layer: a small CNN, VGG, ResNet-9.

A layer is a convolution or a linear map, counted from 1 in the order of depth. It is followed by
its norm, if it has one, its activation, and the place of its mask: ``drop11``, after layer 11. As
channels have masks as a whole, a mask commutes with the pooling that may follow.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal, final

from torch import Tensor, nn

__all__ = ["VGG11", "VGG19", "Drop", "cnn", "resnet9", "vgg"]

Drop = Callable[[int], dict[str, nn.Module]]
"""What stands after a layer of this number: by name, an ordinary dropout module or nothing."""

LayerPlan = Sequence[int | Literal["M"]]
VGG11: LayerPlan = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG19: LayerPlan = (
    *(64, 64, "M", 128, 128, "M", *(256,) * 4, "M"),
    *(*(512,) * 4, "M", *(512,) * 4, "M"),
)


def cnn(drop: Drop, channels: int, classes: int) -> nn.Sequential:
    """Three convolutions and a wide linear layer: 11 million multiplications at 32 × 32 pixels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for depth, width in enumerate((32, 64, 128), 1):
        layers |= _convolution(depth, inputs, width, drop)
        layers[f"pool{depth}"] = nn.MaxPool2d(2) if depth < 3 else nn.AdaptiveAvgPool2d(4)
        inputs = width
    layers["flatten"] = nn.Flatten()
    layers |= _linear(4, 16 * inputs, 512, drop)
    return nn.Sequential(layers | {"head": nn.Linear(512, classes, bias=False)})


def vgg(
    plan: LayerPlan, drop: Drop, channels: int, classes: int, *, norm: bool = False, shrink: int = 1
) -> nn.Sequential:
    """Convolutions of 3 × 3 and pools as planned, two linear layers and the output.

    Args:
        plan: channels of the convolutions and ``"M"`` for pools; 512 channels at the end.
        drop: what stands after each layer.
        channels: of the pictures.
        classes: outputs.
        norm: BatchNorm after every convolution, which then has no bias.
        shrink: divides all widths.

    Reference: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", configurations A and E, with linear layers of 512 instead of 4,096 units, as is
    usual for 32 × 32 pixels; larger pictures are averaged to one pixel before them.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    depth, inputs = 0, channels
    for item in plan:
        if item == "M":
            layers[f"pool{depth}"] = nn.MaxPool2d(2, ceil_mode=True)
            continue
        depth, width = depth + 1, item // shrink
        layers |= _convolution(depth, inputs, width, drop, norm=norm)
        inputs = width
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    for number in (depth + 1, depth + 2):
        layers |= _linear(number, inputs, inputs, drop)
    model = nn.Sequential(layers | {"head": nn.Linear(inputs, classes, bias=False)})
    for module in model.modules():
        _scale(module)
    return model


def resnet9(drop: Drop, channels: int, classes: int) -> nn.Sequential:
    """Eight convolutions with BatchNorm, two residual blocks of two among them, and the output.

    The mask of a block stands after its sum, so that no unit of the sum escapes it.

    Reference: Page 2018, "How to Train Your ResNet".
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for depth, width, pool, residual in (
        (1, 64, False, False),
        (2, 128, True, True),
        (5, 256, True, False),
        (6, 512, True, True),
    ):
        layers |= _convolution(depth, inputs, width, drop, norm=True)
        if pool:
            layers[f"pool{depth}"] = nn.MaxPool2d(2, ceil_mode=True)
        if residual:
            layers[f"block{depth + 2}"] = _Residual(depth + 1, width, drop)
            layers |= drop(depth + 2)
        inputs = width
    layers |= {"max": nn.AdaptiveMaxPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(layers | {"head": nn.Linear(inputs, classes, bias=False)})


@final
class _Residual(nn.Module):
    """x + the two layers of x, of which the first has its mask inside."""

    def __init__(self, depth: int, width: int, drop: Drop) -> None:
        super().__init__()
        first = _convolution(depth, width, width, drop, norm=True)
        second = _convolution(depth + 1, width, width, lambda _: {}, norm=True)
        self.body = nn.Sequential(OrderedDict(first | second))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _convolution(
    depth: int, inputs: int, width: int, drop: Drop, *, norm: bool = False
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {
        f"conv{depth}": nn.Conv2d(inputs, width, 3, padding=1, bias=not norm)
    }
    if norm:
        layers[f"norm{depth}"] = nn.BatchNorm2d(width)
    return layers | {f"act{depth}": nn.ReLU()} | drop(depth)


def _linear(depth: int, inputs: int, width: int, drop: Drop) -> dict[str, nn.Module]:
    layers = {f"linear{depth}": nn.Linear(inputs, width), f"act{depth}": nn.ReLU()}
    return layers | drop(depth)


def _scale(module: nn.Module) -> None:
    """Weights that keep the size of signals over many layers (He et al. 2015)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
