"""How modules lay out the gradients of single examples.

The gradient of a linear map's weight for one example is a sum over positions p of outer products of
the map's input and the gradient of its output,

    ∇W = Σ_p g_p a_pᵀ,      so that  ⟨∇W, ∇W'⟩ = (a·a')(g·g')  where there is one position,

and no gradient of parameters is ever made. Convolutions are linear maps of patches. A bias is an
input that is always 1. An embedding is a linear map of one-hot vectors. Norm layers multiply
features one by one: their gradients are as small as their outputs, and are made. Any other module
without children takes :func:`torch.func.vjp` of itself, mapped over the rows of its input.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from turnover.errors import ConversionError

__all__ = ["FACTOR_RULES", "FactorRule", "local_gradients", "refuse_other_models", "rule_of"]

Expand = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True)
class FactorRule:
    """How a kind of module lays out its gradient.

    Attributes:
        expand: from inputs and output gradients to ``[row, position, in]`` and ``[.., out]``.
        elementwise: the weight's gradient is Σ_p g_p ⊙ a_p instead of Σ_p g_p a_pᵀ.
        lookup: inputs are ids ``[row, position]``, which stand for one-hot vectors.
        transposed: the weight is ``[in, out]``, not ``[out, in]``.
    """

    expand: Expand
    elementwise: bool = False
    lookup: bool = False
    transposed: bool = False


FACTOR_RULES: dict[type[nn.Module], FactorRule] = {}
NAMED_RULES: dict[str, FactorRule] = {}
"""Rules of modules in packages that need not be installed, by the full name of their class."""


def rule_of(module: nn.Module) -> FactorRule | None:
    """The rule of a module's kind, or of the kind whose ``forward`` it inherits.

    None for other kinds, and where weights are no plain parameters: parametrised, grouped or
    sparse ones.
    """
    if hasattr(module, "parametrizations") or getattr(module, "groups", 1) != 1:
        return None
    if isinstance(module, nn.Embedding) and (
        module.sparse or module.scale_grad_by_freq or module.max_norm is not None
    ):
        return None
    kind = type(module)
    if (rule := NAMED_RULES.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
        return rule
    for base in kind.__mro__:
        if base in FACTOR_RULES:
            return FACTOR_RULES[base] if kind.forward is base.forward else None
    return None


def local_gradients(module: nn.Module, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Gradients of a module's own trainable parameters, ``[row, *parameter]`` by name.

    Args:
        module: without children; each row of its output follows from the same row of its input.
        x: inputs ``[row, ...]``.
        g: gradients of its outputs ``[row, ...]``.
    """
    own = {n: p.detach() for n, p in module.named_parameters(recurse=False) if p.requires_grad}

    def one(x: Tensor, g: Tensor) -> dict[str, Tensor]:
        pull = vjp(lambda own: functional_call(module, own, (x.unsqueeze(0),)), own)[1]
        gradients: dict[str, Tensor] = pull(g.unsqueeze(0))[0]
        return gradients

    found: dict[str, Tensor] = vmap(one)(x, g)
    return found


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


def _embedding(module: nn.Embedding, ids: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    ids, g = ids.flatten(1) if ids.dim() > 1 else ids[:, None], g.reshape(len(ids), -1, g.shape[-1])
    if module.padding_idx is not None:
        g = g * (ids != module.padding_idx)[..., None]
    return ids, g


FACTOR_RULES |= {
    nn.Linear: FactorRule(_linear),
    nn.Conv1d: FactorRule(_conv1d),
    nn.Conv2d: FactorRule(_conv2d),
    nn.LayerNorm: FactorRule(_layer_norm, elementwise=True),
    nn.Embedding: FactorRule(_embedding, lookup=True),
}
NAMED_RULES |= {"transformers.pytorch_utils.Conv1D": FactorRule(_linear, transposed=True)}


def refuse_other_models(model: object) -> None:
    """Refuse what has no weights or no modules to read."""
    if not isinstance(model, nn.Module):
        raise ConversionError(
            f"The model is a {type(model).__name__}, not a torch.nn.Module. Score each network of "
            "a list, and take turnover.estimators.average of the scores."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ConversionError(
            "The model is TorchScript, whose modules have no hooks. Give the module that it was "
            "scripted or traced from, with the same weights."
        )
    if any(p.is_meta for p in model.parameters()):
        raise ConversionError(
            "Parameters of the model are on the meta device, so it has no weights. Load them first."
        )
