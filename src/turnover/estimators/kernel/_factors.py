"""Gradients of single examples, as factors that one batched backward pass leaves behind.

The gradient of a linear map's weight for one example is a sum over positions p of outer products of
the map's input and the gradient of its output,

    ∇W = Σ_p g_p a_pᵀ,      so that  ⟨∇W, ∇W'⟩ = (a·a')(g·g')  where there is one position,

and no gradient of parameters is ever made. Convolutions are linear maps of patches. A bias is an
input that is always 1. Norm layers multiply features one by one, so that their gradients are as
small as their outputs, and are made. Only what requires a gradient takes part, weight and bias each
by itself.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, per_example, to_device_of
from turnover.errors import ConversionError, LossError

__all__ = ["Factor", "factors", "maps_of"]

Expand = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True)
class FactorRule:
    """How a kind of module lays out its gradient.

    Attributes:
        expand: from inputs and output gradients to ``[row, position, in]`` and ``[.., out]``.
        elementwise: the weight's gradient is Σ_p g_p ⊙ a_p instead of Σ_p g_p a_pᵀ.
    """

    expand: Expand
    elementwise: bool = False


FACTOR_RULES: dict[type[nn.Module], FactorRule] = {}


@final
@dataclass(frozen=True)
class Factor:
    """Gradients of one module for some examples: Σ_p g_p a_pᵀ.

    Attributes:
        a: inputs ``[row, position, in]``, a last column of ones for the bias.
        g: gradients of outputs ``[row, position, out]``.
    """

    a: Tensor
    g: Tensor

    def explicit(self) -> Tensor:
        """The gradients themselves, ``[row, parameters]``."""
        return torch.einsum("rpo,rpi->roi", self.g, self.a).flatten(1)


def maps_of(model: nn.Module) -> tuple[dict[str, nn.Module], list[str]]:
    """The modules whose trainable weights have factors, by name, and the names of those without.

    Raises:
        ConversionError: when no trainable module has factors.
    """
    known, left_out = {}, []
    for name, module in model.named_modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            if type(module) in FACTOR_RULES and getattr(module, "groups", 1) == 1:
                known[name] = module
            else:
                left_out.append(f"{name or 'the model itself'} ({type(module).__name__})")
    if not known:
        kinds = ", ".join(sorted(kind.__name__ for kind in FACTOR_RULES))
        raise ConversionError(
            f"No trainable module of this {type(model).__name__} is one of {kinds}, so there are "
            f"no gradients to compare; found {', '.join(left_out) or 'nothing trainable'}."
        )
    return known, left_out


def factors(
    model: nn.Module, loss: Loss, batch: Batch, scale: Callable[[Tensor], Tensor]
) -> tuple[list[Factor], Tensor]:
    """Factors of the gradient of scale(L) · L for every example, and the losses.

    Args:
        model: run as it is; put it into evaluation mode first.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: a batch of any structure.
        scale: from losses ``[rows]`` to what the gradient of each is multiplied by.

    Raises:
        LossError: for losses of a wrong shape, or that are not finite.
    """
    modules = list(maps_of(model)[0].values())
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        calls.append((module, inputs[0].detach(), output))
        return output.clone()  # what follows may change its input in place

    with ExitStack() as hooks, torch.inference_mode(False), torch.enable_grad():
        for module in modules:
            hooks.callback(module.register_forward_hook(keep).remove)
        losses = per_example(loss(model, to_device_of(model, batch)), count_rows(batch))
        if not torch.isfinite(losses).all():
            bad = int(torch.nonzero(~torch.isfinite(losses))[0])
            raise LossError(
                f"The loss of row {bad} of this batch is {float(losses[bad].detach())}, so it has "
                "no gradient. Check its inputs and label, and whether training diverged."
            )
        outputs = [output for _, _, output in calls]
        gradients = torch.autograd.grad(losses.sum(), outputs, materialize_grads=True)
    weights = scale(losses.detach())
    merged: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
    for (module, a, _), gradient in zip(calls, gradients, strict=True):
        g = gradient * weights.view(-1, *[1] * (gradient.dim() - 1))
        merged.setdefault(module, []).append(FACTOR_RULES[type(module)].expand(module, a, g))
    return [_joined(module, parts) for module, parts in merged.items()], losses.detach()


def _joined(module: nn.Module, parts: list[tuple[Tensor, Tensor]]) -> Factor:
    """A module that ran several times has the positions of all its runs."""
    a, g = (torch.cat(found, dim=1) for found in zip(*parts, strict=True))
    trained = [
        getattr(getattr(module, name, None), "requires_grad", False) for name in ("weight", "bias")
    ]
    if FACTOR_RULES[type(module)].elementwise:
        sums = ((g * a).sum(dim=1), g.sum(dim=1))
        made = torch.cat([part for part, own in zip(sums, trained, strict=True) if own], dim=1)
        return Factor(made.unsqueeze(1), torch.ones_like(made[:, :1]).unsqueeze(1))
    columns = (a, torch.ones_like(a[..., :1]))
    return Factor(torch.cat([c for c, own in zip(columns, trained, strict=True) if own], dim=2), g)


def _linear(module: nn.Linear, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return a.flatten(1, -2) if a.dim() > 2 else a.unsqueeze(1), (
        g.flatten(1, -2) if g.dim() > 2 else g.unsqueeze(1)
    )


def _conv2d(module: nn.Conv2d, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        sides = module._reversed_padding_repeated_twice
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        a, padding = F.pad(a, sides, mode=mode), (0, 0)
    patches = F.unfold(a, module.kernel_size, module.dilation, padding, module.stride)
    return patches.transpose(1, 2), g.flatten(2).transpose(1, 2)


def _conv1d(module: nn.Conv1d, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(module.padding, str) and module.padding_mode == "zeros":
        a = F.pad(a, (module.padding[0], module.padding[0]))
    else:
        a = F.pad(a, module._reversed_padding_repeated_twice)
    shape, dilation, stride = module.kernel_size, module.dilation, module.stride
    patches = F.unfold(a.unsqueeze(2), (1, *shape), (1, *dilation), 0, (1, *stride))
    return patches.transpose(1, 2), g.transpose(1, 2)


def _layer_norm(module: nn.LayerNorm, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    shape = (len(a), -1, math.prod(module.normalized_shape))
    normed = F.layer_norm(a, module.normalized_shape, eps=module.eps)
    return normed.reshape(shape), g.reshape(shape)


FACTOR_RULES |= {
    nn.Linear: FactorRule(_linear),
    nn.Conv1d: FactorRule(_conv1d),
    nn.Conv2d: FactorRule(_conv2d),
    nn.LayerNorm: FactorRule(_layer_norm, elementwise=True),
}
