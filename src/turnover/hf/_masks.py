"""Masks on every bottleneck of a fine-tuned transformer: adapters, LoRA, the head's input."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from turnover._renamed import renamed_p
from turnover.errors import ConversionError
from turnover.hf._adapters import Adapter
from turnover.hf._trunk import linear_heads, output_layer
from turnover.nn import Conversion, after, convert

__all__ = ["Masked", "mask_bottlenecks"]

INPUT = "input"


@final
@dataclass(frozen=True)
class Masked:
    """Report of :func:`mask_bottlenecks`.

    Attributes:
        conversion: every turn-over layer that was inserted.
        frozen: full names of biases that were frozen, since no mask follows them.
    """

    conversion: Conversion
    frozen: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.conversion)

    def __str__(self) -> str:
        return "\n".join(
            [str(self.conversion), *(f"frozen: {n} (no mask follows it)" for n in self.frozen)]
        )


@renamed_p
def mask_bottlenecks(
    model: nn.Module,
    *,
    head: str | Sequence[str] | None = None,
    keep: float = 0.5,
    seed: int = 0,
    dropout: float = 0.0,
    freeze_biases: bool = True,
) -> Masked:
    """Turn-over layers on all that is trained beside a frozen transformer, in place.

    ===========================  ===========================================================
    trained                      masked
    ===========================  ===========================================================
    adapters (``add_adapters``)  the hidden units, after σ
    LoRA (a PEFT-wrapped model)  the rank: the r outputs of ``lora_A``
    the head                     the inputs of its trained linear layers
    ===========================  ===========================================================

    Biases that no mask follows (of W_up, of ``lora_B``, of the output layer) belong to both halves;
    they are frozen, and reported. Everything else that is trained is left to
    :func:`turnover.check`, which names what leaks.

    Args:
        model: a transformer with adapters, or wrapped by PEFT; it is changed in place.
        head: name patterns of the head's linear layers; by default those that are trained.
        keep: keep rate of a unit.
        seed: seed of the masks.
        dropout: drop probability of ordinary dropout on top, while training.
        freeze_biases: False keeps biases trained that leak.

    Returns:
        Every change by full module name.

    Raises:
        ConversionError: when there is no bottleneck and no trained head, the model is masked
            already, or LoRA is of a kind that does not run through its bottleneck (DoRA,
            embeddings).
        MaskError: for ``keep`` or ``seed`` out of range.
    """
    heads = _trained_heads(model, head)
    lora = [n for n, m in model.named_modules() for n in _lora(n, m)]
    adapters = [f"{n}.activation" for n, m in model.named_modules() if isinstance(m, Adapter)]
    inputs = [f"{name}.{INPUT}" for name in heads]
    if not (names := [*adapters, *lora, *inputs]):
        raise ConversionError(
            f"This {type(model).__name__} has no adapter, no LoRA and no trained head, so there is "
            "no bottleneck to mask. Call turnover.hf.add_adapters(model) first, or wrap it with "
            "PEFT, or choose modules yourself with turnover.convert(model, where)."
        )
    for linear in heads.values():
        _give_input(linear)
    conversion = convert(model, after(*names), keep=keep, seed=seed, dropout=dropout)
    frozen = tuple(_freeze(model, heads)) if freeze_biases else ()
    return Masked(conversion, frozen)


def _trained_heads(model: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Linear]:
    found = linear_heads(model, patterns)
    inside = {id(m) for m in model.modules() for m in _parts(m)}
    return {
        name: linear
        for name, linear in found.items()
        if linear.weight.requires_grad and id(linear) not in inside
    }


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The linear layers inside an adapter or a LoRA layer, which are no head."""
    if isinstance(module, Adapter):
        yield from module.modules()
    for name in ("lora_A", "lora_B"):
        if isinstance(part := getattr(module, name, None), nn.ModuleDict):
            yield from part.modules()


def _lora(name: str, module: nn.Module) -> Iterator[str]:
    """Full names of the bottlenecks in a LoRA layer of PEFT."""
    for kind in ("lora_magnitude_vector", "lora_embedding_A"):
        part: Any = getattr(module, kind, None)
        if part is not None and len(part):
            raise ConversionError(
                f"{name} holds {kind}: DoRA and LoRA of embeddings use their matrices without "
                "running through lora_A, so that no mask can split them. Use plain LoRA, "
                "LoraConfig(use_dora=False), on linear layers."
            )
    if isinstance(bottlenecks := getattr(module, "lora_A", None), nn.ModuleDict):
        for adapter, down in bottlenecks.items():
            if down.weight.requires_grad:
                yield f"{name}.lora_A.{adapter}"


def _give_input(linear: nn.Linear) -> None:
    """A place before a linear layer, which the mask can follow."""
    if INPUT not in dict(linear.named_children()):
        linear.add_module(INPUT, nn.Identity())
        linear.register_forward_pre_hook(_enter)


def _enter(linear: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(linear, INPUT)(args[0]), *args[1:])


def _freeze(model: nn.Module, heads: dict[str, nn.Linear]) -> Iterator[str]:
    last: dict[str, Any] = dict([output_layer(heads)]) if heads else {}
    for name, module in model.named_modules():
        if isinstance(module, Adapter):
            last[f"{name}.up"] = module.up
        if isinstance(ups := getattr(module, "lora_B", None), nn.ModuleDict):
            last.update({f"{name}.lora_B.{adapter}": up for adapter, up in ups.items()})
    for name, linear in last.items():
        if linear.bias is not None and linear.bias.requires_grad:
            linear.bias.requires_grad_(False)
            yield f"{name}.bias"
