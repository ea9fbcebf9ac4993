"""What precedes the first mask is the same for every instance: compute it once.

    f(x) = tail(prefix(x)),     prefix frozen and without masks

The tail is the same model without its first blocks, and shares all weights with the original.
"""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import count_rows, select_rows, to_device_of
from turnover.errors import ConversionError
from turnover.hf._trunk import unwrapped
from turnover.nn import TurnoverDropout, evaluating

__all__ = ["split_prefix"]

# Where families keep what precedes the blocks, and the blocks.
FAMILIES = (("embeddings", "encoder.layer"), ("embed_tokens", "layers"))
PASSED_ON = ("attention_mask", "position_ids", "labels")

Features = Callable[[Mapping[str, Any]], dict[str, Any]]


def split_prefix(model: nn.Module, *, rows: int = 128) -> tuple[nn.Module, Features]:
    """The part of a model from its first trained block on, and the features that it takes.

    ``tail(**features(batch))`` is ``model(**batch)`` in evaluation mode. Train and score the tail
    on features that are computed once; its weights are those of the model. Blocks are numbered
    anew in it, while turn-over layers keep their numbers and so their masks. Ordinary dropout in
    the prefix is off.

    Args:
        model: a transformer of the BERT or the Llama family, with adapters and masks in its last
            blocks (``add_adapters(model, first=...)``); not wrapped by PEFT.
        rows: rows of a block of features.

    Returns:
        The tail, and a function from a batch of the model to a batch of the tail.

    Raises:
        ConversionError: for an unknown family, or when the first block is trained already.
    """
    inner = unwrapped(model)
    name = getattr(inner, "base_model_prefix", "")
    trunk = getattr(inner, name, None)
    family = next((f for f in FAMILIES if trunk is not None and _has(trunk, *f)), None)
    if inner is not model or trunk is None or family is None:
        raise ConversionError(
            f"The blocks of this {type(model).__name__} are not where BERT or Llama keep them, so "
            "that it cannot be split. Use the whole model: the scores are the same."
        )
    before, path = family
    blocks: nn.ModuleList = trunk.get_submodule(path)
    first = next((k for k, block in enumerate(blocks) if _is_live(block)), len(blocks))
    if first == 0 or _is_live(trunk.get_submodule(before)):
        raise ConversionError(
            f"Nothing precedes the first trained or masked part of this {type(model).__name__}, so "
            "there is nothing to compute once. Leave out the first blocks: "
            "add_adapters(model, first=...)."
        )
    rest = nn.ModuleList(blocks[first:])
    tail = _replaced(model, {f"{name}.{path}": rest, f"{name}.{before}": _Given()})
    return tail, _features(model, blocks, first, rows)


class _Given(nn.Module):
    """Embeddings that were computed before."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Tensor:
        return inputs_embeds


class _Reached(Exception):
    """The block whose input was wanted has been reached."""


def _features(model: nn.Module, blocks: nn.ModuleList, first: int, rows: int) -> Features:
    def features(batch: Mapping[str, Any]) -> dict[str, Any]:
        found = []
        with torch.no_grad(), evaluating(model):
            for start in range(0, count_rows(batch), rows):
                part = select_rows(batch, slice(start, start + rows))
                found.append(_input_of(model, blocks[first], to_device_of(model, part)))
        kept = {name: batch[name] for name in PASSED_ON if name in batch}
        return {"inputs_embeds": torch.cat(found), **kept}

    return features


def _input_of(model: nn.Module, block: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Hidden states ``[rows, tokens, hidden]`` that a block receives."""
    held: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        held.append(args[0] if args else named["hidden_states"])
        raise _Reached

    hook = block.register_forward_pre_hook(take, with_kwargs=True, prepend=True)
    try:
        model(**{name: value for name, value in batch.items() if name != "labels"})
    except _Reached:
        return held[0]
    finally:
        hook.remove()
    raise ConversionError(f"The model never called its block {type(block).__name__}.")


def _has(trunk: nn.Module, *paths: str) -> bool:
    names = dict(trunk.named_modules())
    return all(path in names for path in paths)


def _is_live(module: nn.Module) -> bool:
    """Whether anything in the module is trained or masked."""
    masked = any(isinstance(part, TurnoverDropout) for part in module.modules())
    return masked or any(parameter.requires_grad for parameter in module.parameters())


def _replaced(model: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A model that shares all modules with another one but for the given parts."""
    twin = copy(model)
    twin._modules = dict(model._modules)
    heads = {name.partition(".")[0] for name in parts}
    for head in heads:
        if head in parts:
            twin._modules[head] = parts[head]
            continue
        inside = {n[len(head) + 1 :]: p for n, p in parts.items() if n.startswith(f"{head}.")}
        child = twin._modules[head]
        assert child is not None
        twin._modules[head] = _replaced(child, inside)
    return twin
