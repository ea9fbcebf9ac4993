"""Which part of a transformer is its trunk, and which linear layers are its head?"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from turnover.errors import ConversionError
from turnover.nn import SplitEnsemble

__all__ = ["linear_heads", "output_layer", "trunk_of", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformer inside the wrappers of PEFT, data parallelism, compilers; of members, one."""
    if isinstance(model, SplitEnsemble):
        return unwrapped(model.members[0])
    inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return unwrapped(inner)
    base = getattr(model, "get_base_model", None)  # of PEFT
    return base() if callable(base) else model


def trunk_of(model: nn.Module) -> nn.Module:
    """The pretrained encoder or decoder without its head: ``base_model`` of transformers."""
    inner = unwrapped(model)
    trunk = getattr(inner, "base_model", inner)
    return trunk if isinstance(trunk, nn.Module) else inner


def linear_heads(model: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Linear]:
    """The linear layers of a head by full name, in the order of the modules.

    Args:
        model: a transformer with a head.
        patterns: name patterns; by default what lies outside the trunk, but no language-model head.

    Raises:
        ConversionError: for patterns that match no linear layer.
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    if patterns is None:
        inside = {id(module) for module in trunk_of(model).modules()} | _language_head(model)
        return {name: module for name, module in linear.items() if id(module) not in inside}
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    found = {n: m for n, m in linear.items() if any(fnmatchcase(n, p) for p in wanted)}
    if wanted and not found:
        raise ConversionError(
            f"No linear layer of this {type(model).__name__} matches {', '.join(wanted)}. The last "
            f"ones are: {', '.join(list(linear)[-4:])}."
        )
    return found


def output_layer(heads: dict[str, nn.Linear]) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer of a head."""
    name = list(heads)[-1]
    return name, heads[name]


def _language_head(model: nn.Module) -> set[int]:
    """A language-model head is pretrained, and often tied to the embeddings: no head to train."""
    ask = getattr(unwrapped(model), "get_output_embeddings", None)
    try:
        head = ask() if callable(ask) else None
    except NotImplementedError:
        head = None
    return {id(module) for module in head.modules()} if isinstance(head, nn.Module) else set()
