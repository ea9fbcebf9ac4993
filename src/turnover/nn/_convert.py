"""Insert turn-over layers into a model that stays as it is."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from turnover._errors import ConversionError
from turnover.nn._dropout import TurnoverDropout
from turnover.nn._places import Place, after, refusal, unit_dimension

__all__ = ["Change", "Conversion", "convert"]

CHILD = "turnover"
Where = str | Place | Sequence[str | Place]


@final
@dataclass(frozen=True)
class Change:
    """One layer that was inserted: number, full module name, and what happened there."""

    layer: int
    module: str
    kind: str
    action: str

    def __str__(self) -> str:
        return f"layer {self.layer}: {self.action} {self.module} ({self.kind})"


@final
@dataclass(frozen=True)
class Conversion:
    """Report of a conversion: every change, in the order of the layer numbers."""

    changes: tuple[Change, ...]

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.changes)


def convert(
    model: nn.Module,
    where: Where,
    *,
    p: float = 0.5,
    seed: int = 0,
    dropout: float = 0.0,
    dim: int | None = None,
    allow_batchnorm: bool = False,
) -> Conversion:
    """Give every instance its own mask at the chosen places of ``model``, in place.

    The layers hold no parameters and follow their modules as forward hooks, so that names,
    parameters and state dict stay those of the original model.

    Args:
        model: any module; it is changed in place.
        where: a module-name pattern such as ``"blocks.*.act"``, or :func:`after`,
            :func:`instead_of_dropout`, or several of these.
        p: keep probability of a unit; the unseen sub-network keeps 1 − p.
        seed: seed of the masks.
        dropout: drop probability of ordinary dropout on top, while training.
        dim: dimension of the units, where the kind of module does not tell (activations after
            one-dimensional convolutions: ``dim=1``).
        allow_batchnorm: accept BatchNorm, whose statistics mix the instances of a batch.

    Returns:
        Every change by full module name.

    Raises:
        ConversionError: when no module matches, a match cannot be followed by a mask, the model is
            already converted there, or it holds BatchNorm.
    """
    if not allow_batchnorm:
        _refuse_batchnorm(model)
    places = [_place(w) for w in ([where] if isinstance(where, str | Place) else where)]
    found = [(name, module, place) for place in places for name, module in _matches(model, place)]
    _refuse_repeats([name for name, _, _ in found])
    _refuse_masked(found)
    start = sum(isinstance(m, TurnoverDropout) for m in model.modules())
    changes = []
    for number, (name, module, place) in enumerate(found, start):
        units = unit_dimension(module) if dim is None else dim
        layer = TurnoverDropout(p, seed=seed, layer=number, dim=units, dropout=dropout)
        layer.name = f"the turn-over layer at {name or 'the root'}"
        _insert(model, name, module, layer, place)
        action = "instead of" if place.instead else "after"
        changes.append(Change(number, name, type(module).__name__, action))
    return Conversion(tuple(changes))


def _place(where: str | Place) -> Place:
    return after(where) if isinstance(where, str) else where


def _matches(model: nn.Module, place: Place) -> list[tuple[str, nn.Module]]:
    everywhere = _every_use(model) if place.instead else model.named_modules()
    candidates = [
        (name, module)
        for name, module in everywhere
        if any(fnmatchcase(name, pattern) for pattern in place.patterns)
        and not isinstance(module, TurnoverDropout)
        and (not place.instead or isinstance(module, _DropoutNd))
    ]
    if not candidates[place.first :]:
        kind = "ordinary dropout module" if place.instead else "module"
        beyond = f" from match {place.first} on" if candidates else ""
        names = [name for name, _ in model.named_modules() if name]
        raise ConversionError(
            f"No {kind} of this {type(model).__name__} matches {', '.join(place.patterns)}{beyond},"
            f" so there is no place for a mask. Its modules are: {_listed(names)}."
        )
    return [_last_child(name, module) for name, module in candidates[place.first :]]


def _every_use(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by name; one that is used in several places comes once for each of them."""
    known = set()
    for name, module in model.named_modules(remove_duplicate=False):
        parent, _, key = name.rpartition(".")
        use = (id(model.get_submodule(parent)), key)
        if use not in known:
            known.add(use)
            yield name, module


def _last_child(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """A Sequential's output is that of its last child, where a hook does not enter its list."""
    if why := refusal(module):
        raise ConversionError(f"No mask can follow {name} ({type(module).__name__}): it {why}.")
    if isinstance(module, nn.Sequential) and len(module):
        key, child = list(module.named_children())[-1]
        return _last_child(f"{name}.{key}" if name else key, child)
    return name, module


def _insert(
    model: nn.Module, name: str, module: nn.Module, layer: TurnoverDropout, place: Place
) -> None:
    layer.train(module.training)
    if place.instead:
        parent, _, key = name.rpartition(".")
        setattr(model.get_submodule(parent), key, layer)
    else:
        module.add_module(CHILD, layer)
        module.register_forward_hook(_apply_mask)


def _apply_mask(module: nn.Module, args: object, output: Tensor) -> Tensor:
    masked: Tensor = getattr(module, CHILD)(output)
    return masked


def _refuse_batchnorm(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and not isinstance(module, _InstanceNorm):
            raise ConversionError(
                f"{name} is a {type(module).__name__}: its statistics are taken over the batch, so "
                "an instance reaches the unseen half of its own network through the other rows and "
                "the running averages. Replace it by InstanceNorm (for feature maps), or by "
                "LayerNorm or GroupNorm between two masks (they mix units), or accept the leak "
                "with allow_batchnorm=True and measure it with check()."
            )


def _refuse_repeats(names: Iterable[str]) -> None:
    names = list(names)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConversionError(f"{repeated[0]} is matched twice. Make the patterns disjoint.")


def _refuse_masked(found: Iterable[tuple[str, nn.Module, Place]]) -> None:
    for name, module, place in found:
        if not place.instead and CHILD in dict(module.named_children()):
            raise ConversionError(
                f"{name} is already followed by a turn-over layer. A second one would keep only p² "
                "of its units. Convert a fresh copy of the model."
            )


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
