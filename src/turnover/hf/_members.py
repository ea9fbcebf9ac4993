"""A transformer with parameters of its own on frozen ones that it shares with others.

    member_j = base (frozen, in memory once) + adapters_j + head_j

A member has modules of its own. Their frozen tensors are those of the base, and not copies.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover.errors import ConversionError, MissingExtra
from turnover.hf._adapters import PROJECTIONS, Adapter, add_adapters

__all__ = [
    "Houlsby",
    "Member",
    "base_fingerprint",
    "is_peft",
    "member_of",
    "old_names",
    "shared_tensors",
    "wrapped_by_peft",
]

ORIGINAL = "original_module"  # PEFT keeps the untrained head beside the trained one, for nobody


@final
@dataclass(frozen=True)
class Houlsby:
    """Bottleneck adapters for :func:`split_ensemble`; see :func:`add_adapters`.

    Attributes:
        width: hidden units of each adapter.
        first: leave out the first so many places.
        after: name patterns of the modules that adapters follow.
        head: name patterns of linear layers to train as well; None for those behind the trunk.
        dropout: drop probability of ordinary dropout on the hidden units.

    Example:
        >>> from turnover.hf import Houlsby
        >>> Houlsby(width=24, first=8).width
        24
    """

    width: int = 16
    first: int = 0
    after: str | Sequence[str] = PROJECTIONS
    head: str | Sequence[str] | None = None
    dropout: float = 0.0


@final
class Member(nn.Module):
    """One member: a transformer whose state dict holds what it does not share.

    Args:
        module: the transformer with its adapters, wrapped by PEFT or not.
        shared: frozen tensors that other members have, too.
    """

    def __init__(self, module: nn.Module, shared: Sequence[Tensor]) -> None:
        super().__init__()
        self.module = module
        frozen = {id(tensor) for tensor in shared}
        self.lent = frozenset(name for name, tensor in _named(self) if id(tensor) in frozen)
        hooks: Any = self
        hooks.register_state_dict_post_hook(_own_alone)
        hooks.register_load_state_dict_pre_hook(_with_lent)

    @classmethod
    def of(cls, base: nn.Module, adapters: Any, seed: int) -> "Member":
        """A member on a base model, whose parameters it freezes and shares.

        Args:
            base: a transformer without adapters.
            adapters: a configuration of PEFT, or :class:`Houlsby`.
            seed: of the new weights.

        Raises:
            ConversionError: for another kind of adapters, or a base that has some already.
            MissingExtra: when PEFT is needed and not installed.
        """
        return member_of(base, adapters, seed)

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """What the transformer returns."""
        return self.module(*args, **inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Member":
        """A member with own tensors copied, on the same frozen ones."""
        memo.update({id(t): t for name, t in _named(self) if name in self.lent})
        twin = Member.__new__(Member)
        memo[id(self)] = twin
        twin.__dict__.update(deepcopy(self.__dict__, memo))
        return twin


def _own_alone(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in cast(Member, module).lent:
        state.pop(f"{prefix}{name}", None)


def _with_lent(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    lent = cast(Member, module).lent - _unsaved(module)
    state.update({f"{prefix}{n}": t.detach() for n, t in _named(module) if n in lent})


def _unsaved(module: nn.Module) -> set[str]:
    """Buffers that no state dict holds, such as numbers of positions."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, part in module.named_modules(remove_duplicate=False)
        for buffer in part._non_persistent_buffers_set
    }


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by every name that they have."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def member_of(base: nn.Module, adapters: Any, seed: int) -> Member:
    """See :meth:`Member.of`."""
    shared = shared_tensors(base)
    base.requires_grad_(False)
    twin = deepcopy(base, {id(tensor): tensor for tensor in shared})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = _adapted(twin, adapters)
    _take_own(module, shared)
    return Member(module.train(base.training), shared)


def shared_tensors(base: nn.Module) -> list[Tensor]:
    """Parameters and buffers that members can share: all but statistics of batches."""
    counted = [m for m in base.modules() if getattr(m, "track_running_stats", False)]
    kept = {id(buffer) for module in counted for buffer in module.buffers(recurse=False)}
    every: list[Tensor] = [*base.parameters(), *base.buffers()]
    return [tensor for tensor in every if id(tensor) not in kept]


def base_fingerprint(member: nn.Module) -> str:
    """128 bits, as hexadecimal digits, of the frozen tensors that a member shares."""
    lent: frozenset[str] = getattr(member, "lent", frozenset())
    every = dict(_named(member))
    names = sorted(name for name in lent & set(every) if ORIGINAL not in name)
    return _store.fingerprint(names, *(every[name] for name in names))


def is_peft(adapters: object) -> bool:
    """Whether this is a configuration of PEFT."""
    return hasattr(adapters, "peft_type")


def _adapted(twin: nn.Module, adapters: Any) -> nn.Module:
    _refuse_adapted(twin)
    if isinstance(adapters, Houlsby):
        return _with_houlsby(twin, adapters)
    if not is_peft(adapters):
        raise ConversionError(
            f"Members of a split ensemble take adapters by a peft.LoraConfig or turnover.hf."
            f"Houlsby(width=...), not by {adapters!r}."
        )
    if getattr(adapters, "is_prompt_learning", False):
        raise ConversionError(
            f"{type(adapters).__name__} puts prompts before the tokens, and members have none of "
            "their own there. Give a peft.LoraConfig or turnover.hf.Houlsby(width=...)."
        )
    wrapped = wrapped_by_peft(twin, adapters)
    if not any(p.requires_grad for p in wrapped.parameters()):
        raise ConversionError("This configuration of PEFT trains nothing: inference_mode=True?")
    return wrapped


def wrapped_by_peft(model: nn.Module, adapters: Any) -> nn.Module:
    """``peft.get_peft_model`` with a copy of the configuration, which it changes.

    Raises:
        MissingExtra: when PEFT is not installed.
    """
    try:
        from peft import get_peft_model
    except ImportError:
        raise MissingExtra("peft", "hf", "LoRA") from None
    with old_names():
        return get_peft_model(cast(Any, model), deepcopy(adapters))


@contextmanager
def old_names() -> Iterator[None]:
    """Without warnings of what PEFT still calls by a name that transformers has changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
        yield


def _refuse_adapted(model: nn.Module) -> None:
    found = next(
        (n for n, m in model.named_modules() if isinstance(m, Adapter) or hasattr(m, "lora_A")),
        None,
    )
    if found is not None or hasattr(model, "peft_config"):
        raise ConversionError(
            f"This {type(model).__name__} has adapters already{f', at {found}' if found else ''}. "
            "Members are made on a model without them: load it anew, or merge its adapters."
        )


def _with_houlsby(twin: nn.Module, adapters: Houlsby) -> nn.Module:
    add_adapters(
        twin, adapters.width, after=adapters.after, first=adapters.first, head=adapters.head
    )
    for module in twin.modules():
        if isinstance(module, Adapter) and adapters.dropout:
            module.activation = nn.Sequential(module.activation, nn.Dropout(adapters.dropout))
    return twin


def _take_own(module: nn.Module, shared: Sequence[Tensor]) -> None:
    """Copies in place of shared tensors that this member trains: biases, tokens, a whole head."""
    frozen = {id(tensor) for tensor in shared}
    copies: dict[int, nn.Parameter] = {}
    for owner, name, parameter in _parameters(module):
        if parameter.requires_grad and id(parameter) in frozen:
            copies.setdefault(id(parameter), nn.Parameter(parameter.detach().clone()))
            owner._parameters[name] = copies[id(parameter)]
    for tensor in shared:
        tensor.requires_grad_(False)


def _parameters(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for owner in module.modules():
        found: Mapping[str, nn.Parameter | None] = dict(owner._parameters)
        for name, parameter in found.items():
            if parameter is not None:
                yield owner, name, parameter
