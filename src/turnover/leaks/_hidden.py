"""What a model keeps outside of its parameters and buffers: plain attributes, and generators.

A counter of passes, a bank of features or a random generator of its own is such an attribute. The
check puts it back before every step, as it does with tensors, and asks whether it carries z.
"""

import random
from collections import deque
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from turnover.nn import TurnoverDropout

__all__ = ["MISSING", "Hidden", "alike"]

MISSING = object()
MACHINERY = frozenset(vars(nn.Module()))  # parameters, buffers, hooks, the mode
PRIMITIVE = (bool, int, float, complex, str, bytes, type(None))
LISTS = (list, tuple, set, deque)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
DEEPEST = 2  # attributes of attributes

Place = tuple[MutableMapping[str, Any], str]


@final
class Hidden:
    """The plain attributes of a model by full name; ``moving`` names those that passes change."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.moving: set[str] = set()

    def snapshot(self, names: set[str] | None = None) -> dict[str, Any]:
        """Copies of the attributes, or of the named ones."""
        found = dict(_places(self.model))
        chosen = found if names is None else names
        return {n: _copied(_at(found[n])) if n in found else MISSING for n in chosen}

    def put(self, values: dict[str, Any]) -> None:
        """Write copies of attributes into the model; those that were missing are taken away."""
        places = dict(_places(self.model))
        for name, value in values.items():
            if name in places:
                _put(*places[name], value)
            elif value is not MISSING:
                owner, _, own = name.rpartition(".")
                vars(self.model.get_submodule(owner))[own] = _copied(value)

    def originals(self) -> list[tuple[Place, Any, Any]]:
        """All attributes as (place, object itself, copy), for :func:`restore`."""
        return [
            (place, value, _copied(value))
            for _, place in _places(self.model)
            if (value := _at(place)) is not MISSING
        ]

    def restore(self, originals: list[tuple[Place, Any, Any]]) -> None:
        """The very objects that were there, with the content that they had."""
        known = {(id(holder), key) for (holder, key), _, _ in originals}
        for _, (holder, key) in list(_places(self.model)):
            if (id(holder), key) not in known:
                holder.pop(key, None)
        for (holder, key), value, copy in originals:
            holder[key] = value
            _refill(value, copy)


def alike(one: Any, other: Any) -> bool:
    """Whether two copies hold the same bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and bool(np.all(one == other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, set):
        return one == other
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one is other or (isinstance(one, PRIMITIVE) and one == other))


def _places(model: nn.Module) -> Iterator[tuple[str, Place]]:
    """Every plain attribute: its full name, the dict that holds it, its key there."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, TurnoverDropout):
            prefix = f"{name}." if name else ""
            yield from _inside(vars(module), prefix, seen, MACHINERY, DEEPEST)


def _inside(
    holder: MutableMapping[str, Any],
    prefix: str,
    seen: set[int],
    without: frozenset[str],
    deep: int,
) -> Iterator[tuple[str, Place]]:
    if id(holder) in seen or not deep:
        return
    seen.add(id(holder))
    for key, value in list(holder.items()):
        if key in without:
            continue
        if _is_plain(value):
            yield prefix + key, (holder, key)
        elif _is_object(value):
            yield from _inside(vars(value), f"{prefix}{key}.", seen, frozenset(), deep - 1)


def _is_plain(value: object) -> bool:
    plain = (Tensor, np.ndarray, dict, *PRIMITIVE, *LISTS, *GENERATORS)
    return isinstance(value, plain) and not isinstance(value, nn.Parameter)


def _is_object(value: object) -> bool:
    apart = isinstance(value, nn.Module | type | ModuleType | nn.Parameter) or callable(value)
    return not apart and isinstance(getattr(value, "__dict__", None), dict)


def _at(place: Place) -> Any:
    holder, key = place
    return holder.get(key, MISSING)


def _copied(value: Any) -> Any:
    """A deep copy; what is no plain value, such as a module in a list, is shared."""
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, GENERATORS):
        return _state_of(value)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) is deque:
        return deque(map(_copied, value), value.maxlen)
    if type(value) in LISTS:
        return type(value)(map(_copied, value))
    return value


def _put(holder: MutableMapping[str, Any], key: str, value: Any) -> None:
    current = holder.get(key)
    if value is MISSING:
        holder.pop(key, None)
    elif isinstance(current, GENERATORS):
        _refill(current, value)
    elif isinstance(current, dict | list | set | deque) and type(current) is type(value):
        _refill(current, _copied(value))  # the object stays, which others may hold as well
    else:
        holder[key] = _copied(value)


def _refill(value: Any, copy: Any) -> None:
    """Give the object itself the content of the copy, where an object can change."""
    if isinstance(value, GENERATORS):
        _set_state(value, copy)
    elif isinstance(value, Tensor) and value.shape == copy.shape:
        if not torch.equal(value.detach(), copy):
            with torch.no_grad():
                value.detach().copy_(copy)
    elif isinstance(value, np.ndarray) and value.flags.writeable and value.shape == copy.shape:
        value[...] = copy
    elif type(value) in (dict, set):
        value.clear()
        value.update(copy)
    elif type(value) in (list, deque):
        value.clear()
        value.extend(copy)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return _copied(dict(generator.bit_generator.state))
    state = generator.get_state()
    return _copied(state)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
