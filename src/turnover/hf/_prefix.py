"""What precedes the first mask is the same for every instance: compute it once.

    f(x) = tail(prefix(x)),     prefix frozen and without masks

The tail is the same model without its first blocks, and shares all weights with the original.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from turnover._rows import count_rows, select_rows, to_device_of
from turnover.errors import ConversionError
from turnover.hf._trunk import unwrapped
from turnover.nn import TurnoverDropout, evaluating

__all__ = ["Features", "first_live", "prefix_features", "split_prefix", "tail_of"]

# Types whose tails were compared with the whole model, bit for bit or nearly (tests/unit/hf).
SPLIT = {"bert", "electra", "gpt2", "llama", "mistral", "qwen2", "qwen3", "roberta", "xlm-roberta"}
POOLING = "ForSequenceClassification"
PASSED_ON = ("attention_mask", "position_ids", "labels")

Features = Callable[[Mapping[str, Any]], dict[str, Any]]


@final
@dataclass(frozen=True)
class _Family:
    """Where a family keeps its blocks and what precedes them.

    Attributes:
        before: the module that embeds; in a tail it hands on what it is given.
        blocks: the list of blocks.
        zero: modules whose output is added to the embeddings, and must be nothing in a tail.
        idle: modules between embeddings and blocks that a tail leaves out.
    """

    before: str
    blocks: str
    zero: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


FAMILIES = (
    _Family("embeddings", "encoder.layer"),  # BERT, RoBERTa, ELECTRA
    _Family("embed_tokens", "layers"),  # Llama, Mistral, Qwen
    _Family("wte", "h", zero=("wpe",), idle=("drop",)),  # GPT-2
)


def split_prefix(model: nn.Module, *, rows: int = 128) -> tuple[nn.Module, Features]:
    """The part of a model from its first trained block on, and the features that it takes.

    ``tail(**features(batch))`` is ``model(**batch)`` in evaluation mode. Train and score the tail
    on features that are computed once; its weights are those of the model. Blocks are numbered
    anew in it, while turn-over layers keep their numbers and so their masks. Ordinary dropout in
    the prefix is off.

    Args:
        model: a transformer of the BERT, the Llama or the GPT-2 family, with adapters and masks in
            its last blocks (``add_adapters(model, first=...)``), not wrapped by PEFT; or a split
            ensemble of adapters, whose members share the prefix.
        rows: rows of a block of features.

    Returns:
        The tail, and a function from a batch of the model to a batch of the tail.

    Raises:
        ConversionError: for a model whose tail is unknown or would differ from it, or when the
            first block is trained already.
    """
    if callable(tails := getattr(model, "tails", None)):
        return tails(rows)
    if unwrapped(model) is not model:
        raise _unknown(model)
    first = first_live(model)
    if first == 0:
        raise ConversionError(
            f"Nothing precedes the first trained or masked part of this {type(model).__name__}, so "
            "there is nothing to compute once. Leave out the first blocks: "
            "add_adapters(model, first=...)."
        )
    return tail_of(model, first), prefix_features(model, first, rows)


def first_live(model: nn.Module) -> int:
    """Number of the first block with anything trained or masked; 0 where what precedes it has.

    It is the last block where none has, so that a tail has one.

    Raises:
        ConversionError: for an unknown family.
    """
    _, trunk, family = _parts(model)
    if any(_is_live(trunk.get_submodule(name)) for name in (family.before, *family.zero)):
        return 0
    blocks = cast(nn.ModuleList, trunk.get_submodule(family.blocks))
    return next((k for k, block in enumerate(blocks) if _is_live(block)), len(blocks) - 1)


def tail_of(model: nn.Module, first: int) -> nn.Module:
    """The model from this block on: it takes ``inputs_embeds``, and shares all weights."""
    name, trunk, family = _parts(model)
    blocks = cast(nn.ModuleList, trunk.get_submodule(family.blocks))
    parts: dict[str, nn.Module] = {
        f"{name}.{family.blocks}": nn.ModuleList(blocks[first:]),
        f"{name}.{family.before}": _Given(),
        **{f"{name}.{zero}": _Nothing() for zero in family.zero},
        **{f"{name}.{idle}": nn.Identity() for idle in family.idle},
    }
    return _replaced(model, parts)


def prefix_features(model: nn.Module, first: int, rows: int = 128) -> Features:
    """From a batch of the model to what its block ``first`` takes, and what is passed on."""
    _, trunk, family = _parts(model)
    blocks = cast(nn.ModuleList, trunk.get_submodule(family.blocks))
    return _features(model, blocks, first, rows)


def _parts(model: nn.Module) -> tuple[str, nn.Module, _Family]:
    """Name and module of the trunk, and its family."""
    name = getattr(model, "base_model_prefix", "")
    trunk = getattr(model, name, None) if name else None
    if isinstance(trunk, nn.Module):
        for family in FAMILIES:
            if _has(trunk, family.before, family.blocks):
                _refuse_what_a_tail_changes(model, trunk, family)
                return name, trunk, family
    raise _unknown(model)


def _refuse_what_a_tail_changes(model: nn.Module, trunk: nn.Module, family: _Family) -> None:
    """Refuse models whose tail, given hidden states, computes something else.

    Raises:
        ConversionError: for what reads tokens, or the number of a block, after the first blocks.
    """
    config = cast(Any, model).config
    why = None
    if config.model_type not in SPLIT:
        why = f"models of type {config.model_type!r} were not compared with their tails"
    elif hasattr(trunk, "embeddings_project"):
        why = "it projects its embeddings, and would do so twice"
    elif len(set(getattr(config, "layer_types", None) or ())) > 1:
        why = "its blocks differ by their number, and a tail numbers them anew"
    elif family.before != "embeddings" and type(model).__name__.endswith(POOLING):
        why = "it looks for the last token of a row, and a tail is given no tokens"
    if why is not None:
        raise ConversionError(
            f"This {type(model).__name__} cannot be split: {why}. Use the whole model: the scores "
            "are the same."
        )


def _unknown(model: nn.Module) -> ConversionError:
    return ConversionError(
        f"The blocks of this {type(model).__name__} are not where BERT, Llama or GPT-2 keep them, "
        "so that it cannot be split. Use the whole model: the scores are the same."
    )


class _Given(nn.Module):
    """Embeddings that were computed before."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Tensor:
        return inputs_embeds


class _Nothing(nn.Module):
    """Embeddings of positions that the given ones hold already."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(1, device=ids.device)


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
