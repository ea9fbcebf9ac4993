"""Where do two passes through a model differ first? Inputs and outputs of its modules, in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from turnover._rows import tensors_of

__all__ = ["Event", "Place", "first_difference", "trace"]


@final
@dataclass(frozen=True)
class Event:
    """A module begins (``entry``) with these inputs, or ends with these outputs."""

    module: nn.Module
    entry: bool
    tensors: tuple[Tensor, ...]


@final
@dataclass(frozen=True)
class Place:
    """Where passes differ first.

    Attributes:
        module: the module itself, or the one whose own code holds the place.
        words: full name and kind, and next to which child in the module's own code.
        own_code: whether the code between its children is meant.
    """

    module: nn.Module
    words: str
    own_code: bool


def trace(model: nn.Module, run: Callable[[], Tensor]) -> tuple[list[Event], Tensor]:
    """The events of one pass, and what ``run`` returned."""
    events: list[Event] = []
    with _watching(model, events):
        result = run().detach().clone()
    return events, result


def first_difference(
    model: nn.Module, one: list[Event], other: list[Event], rows: Tensor | None = None
) -> Place | None:
    """The first place at which two passes differ; None when none is inside the model.

    Args:
        model: the model of both.
        one: the events of a pass.
        other: those of the other.
        rows: Boolean ``[rows]``, the rows to compare; everything by default.
    """
    names = {module: name for name, module in model.named_modules()}
    inside: list[nn.Module] = []  # modules that have begun and not ended
    last: dict[nn.Module, nn.Module] = {}  # the child of each that ended last
    for mine, theirs in zip(one, other, strict=False):
        if mine.module is not theirs.module or mine.entry != theirs.entry:
            return _code(names, inside[-1], None, last) if inside else None
        if not mine.entry:
            inside.pop()
        if _differ(mine, theirs, rows):
            if mine.entry:
                return _code(names, inside[-1], mine.module, last) if inside else None
            if mine.module in last:
                return _code(names, mine.module, None, last)
            return Place(mine.module, _named(names, mine.module), own_code=False)
        if mine.entry:
            last.pop(mine.module, None)
            inside.append(mine.module)
        elif inside:
            last[inside[-1]] = mine.module
    return None


def _named(names: dict[nn.Module, str], module: nn.Module) -> str:
    return f"{names[module] or 'the model'} ({type(module).__name__})"


def _code(
    names: dict[nn.Module, str],
    module: nn.Module,
    before: nn.Module | None,
    last: dict[nn.Module, nn.Module],
) -> Place:
    near = f"before {names[before]}" if before is not None else ""
    if not near and module in last:
        near = f"after {names[last[module]]}"
    where = f", {near}" if near else ""
    return Place(module, f"the forward code of {_named(names, module)}{where}", own_code=True)


def _differ(mine: Event, theirs: Event, rows: Tensor | None) -> bool:
    if len(mine.tensors) != len(theirs.tensors):
        return True
    return any(_unlike(*pair, rows) for pair in zip(mine.tensors, theirs.tensors, strict=True))


def _unlike(mine: Tensor, theirs: Tensor, rows: Tensor | None) -> bool:
    if rows is not None:
        if mine.dim() == 0 or len(mine) != len(rows) or mine.shape != theirs.shape:
            return False  # its dimension 0 is no row; where rows meet shows behind it
        rows = rows.to(mine.device)
        mine, theirs = mine[rows], theirs[rows]
    return mine.shape != theirs.shape or not torch.equal(mine, theirs)


@contextmanager
def _watching(model: nn.Module, into: list[Event]) -> Iterator[None]:
    def copies(value: Any) -> tuple[Tensor, ...]:
        return tuple(tensor.detach().clone() for tensor in tensors_of(value))

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        into.append(Event(module, True, copies((list(args), dict(kwargs)))))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        into.append(Event(module, False, copies([output])))

    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        hooks.append(module.register_forward_hook(end))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
