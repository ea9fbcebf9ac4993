"""Insert turn-over layers into a model that stays as it is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from turnover._html import table
from turnover._renamed import renamed_p
from turnover.errors import ConversionError
from turnover.nn._dropout import TurnoverDropout
from turnover.nn._places import Place, after, dimensions, refusal, unit_count, unit_dimension

__all__ = ["Change", "Conversion", "convert"]

CHILD = "turnover"
Where = str | Place | Sequence[str | Place]


@final
@dataclass(frozen=True)
class Change:
    """One layer that was inserted.

    Attributes:
        layer: its number.
        module: full name of the module at this place; one that is registered several times is
            masked at each use, with the same masks, and has all its names, joined by ``" = "``.
        kind: class of the module; for a replaced dropout module also its drop rate, which is gone.
        action: ``"after"`` or ``"instead of"``.
        dim: dimension of the units; None: dimension 1 of inputs with four or five, else the last.
    """

    layer: int
    module: str
    kind: str
    action: str
    dim: int | None = None

    def __str__(self) -> str:
        units = {None: "", -1: "", 1: ", channels"}.get(self.dim, f", dimension {self.dim}")
        return f"layer {self.layer}: {self.action} {self.module} ({self.kind}){units}"


@final
@dataclass(frozen=True)
class Conversion:
    """Report of a conversion: every change, in the order of the layer numbers.

    Attributes:
        changes: of each new layer its number, and the module that it follows or replaces.
    """

    changes: tuple[Change, ...]

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.changes)

    def _repr_html_(self) -> str:
        """What a notebook shows: the layers of masks and where they stand."""
        rows = [(made.layer, f"{made.action} {made.module}", made.kind) for made in self.changes]
        return table("Layers of masks", ("Layer", "Place", "Module"), rows)


@renamed_p
def convert(
    model: nn.Module,
    where: Where,
    *,
    keep: float = 0.5,
    seed: int = 0,
    dropout: float = 0.0,
    dim: int | None = None,
    allow_batchnorm: bool = False,
) -> Conversion:
    """Give every instance its own mask at the chosen places of ``model``, in place.

    The layers hold no parameters and follow their modules as forward hooks, so that names,
    parameters and state dict stay as they were.

    Args:
        model: any module; it is changed in place.
        where: a module-name pattern such as ``"blocks.*.act"``, or :func:`after`,
            :func:`instead_of_dropout`, or several of these.
        keep: keep rate of a unit; the unseen sub-network keeps the rate 1 − keep.
        seed: seed of the masks.
        dropout: drop probability of ordinary dropout on top, while training.
        dim: dimension of the units. By default the last one for linear layers, embeddings and
            LayerNorm, and 1 (channels) for convolutions, pooling and other norms. Other modules,
            such as activations and blocks, take the dimension of the last such module registered in
            or before them. Where there is none, it is 1 for inputs of four or five dimensions, else
            the last. Give it where the order of registration misleads.
        allow_batchnorm: accept BatchNorm, whose statistics mix the instances of a batch.

    Returns:
        Every change by full module name.

    Raises:
        ConversionError: when no module matches, a match cannot be followed by a mask, the model is
            already converted there, it holds BatchNorm, or ``dropout`` or ``dim`` is out of range.
        MaskError: for ``keep`` or ``seed`` out of range.
    """
    if not allow_batchnorm:
        _refuse_batchnorm(model)
    places = [_place(w) for w in ([where] if isinstance(where, str | Place) else where)]
    sites = [site for place in places for site in _sites(model, place)]
    _refuse_repeats(sites)
    _refuse_masked(sites)
    start = sum(isinstance(m, TurnoverDropout) for m in model.modules())
    layers = []
    for number, site in enumerate(sites, start):
        source = _source(model, site)
        units = dim if dim is not None or source is None else unit_dimension(source)
        layer = TurnoverDropout(keep, seed=seed, layer=number, dim=units, dropout=dropout)
        layer.name = f"the turn-over layer at {site.name or 'the root'}"
        if dim is None and source is not None:
            layer.expected = (unit_count(source), dimensions(source))
        layers.append(layer)
    for site, layer in zip(sites, layers, strict=True):
        _insert(model, site, layer)
    return Conversion(tuple(map(_change, sites, layers)))


@dataclass(frozen=True)
class _Site:
    """A module at which a layer goes, under all its names."""

    names: tuple[str, ...]
    module: nn.Module
    instead: bool

    @property
    def name(self) -> str:
        return " = ".join(self.names)


def _place(where: str | Place) -> Place:
    return after(where) if isinstance(where, str) else where


def _sites(model: nn.Module, place: Place) -> list[_Site]:
    candidates = [
        site
        for site in _uses(model, place.instead)
        if any(fnmatchcase(name, pattern) for name in site.names for pattern in place.patterns)
        and not isinstance(site.module, TurnoverDropout)
        and (not place.instead or isinstance(site.module, _DropoutNd))
    ]
    if not candidates[place.first :]:
        kind = "ordinary dropout module" if place.instead else "module"
        beyond = f" from match {place.first} on" if candidates else ""
        names = [name for name, _ in model.named_modules() if name]
        raise ConversionError(
            f"No {kind} of this {type(model).__name__} matches {', '.join(place.patterns)}{beyond},"
            f" so there is no place for a mask. Its modules are: {_listed(names)}."
        )
    return [_last_child(model, site) for site in candidates[place.first :]]


def _uses(model: nn.Module, instead: bool) -> list[_Site]:
    """What can be masked: each module, or, to replace it, each place that holds one."""
    names: dict[object, list[str]] = {}
    modules = {}
    for name, module in model.named_modules(remove_duplicate=False):
        parent, _, key = name.rpartition(".")
        use = (id(model.get_submodule(parent)), key) if instead else id(module)
        names.setdefault(use, []).append(name)
        modules[use] = module
    return [_Site(tuple(names[use]), module, instead) for use, module in modules.items()]


def _last_child(model: nn.Module, site: _Site) -> _Site:
    """A Sequential's output is its last child's, where a hook does not enter its list."""
    module = site.module
    if why := refusal(module):
        raise ConversionError(
            f"No mask can follow {site.name} ({type(module).__name__}): it {why}."
        )
    if not isinstance(module, nn.Sequential) or not len(module):
        return site
    return _last_child(model, next(s for s in _uses(model, False) if s.module is module[-1]))


def _source(model: nn.Module, site: _Site) -> nn.Module | None:
    """The last module that tells the dimension of its units, in or before the site."""
    if unit_dimension(site.module) is not None:
        return site.module
    sources = [_source_at(model, name) for name in site.names]
    agree = len({source and unit_dimension(source) for source in sources}) == 1
    return sources[0] if agree else None


def _source_at(model: nn.Module, name: str) -> nn.Module | None:
    source, inside = None, False
    for other, module in model.named_modules(remove_duplicate=False):
        within = not name or other == name or other.startswith(f"{name}.")
        if inside and not within:
            break
        inside = within
        source = source if unit_dimension(module) is None else module
    return source


def _insert(model: nn.Module, site: _Site, layer: TurnoverDropout) -> None:
    layer.train(site.module.training)
    if site.instead:
        parent, _, key = site.names[0].rpartition(".")
        setattr(model.get_submodule(parent), key, layer)
    else:
        site.module.add_module(CHILD, layer)
        site.module.register_forward_hook(_apply_mask)


def _apply_mask(module: nn.Module, args: object, output: Tensor) -> Tensor:
    masked: Tensor = getattr(module, CHILD)(output)
    return masked


def _change(site: _Site, layer: TurnoverDropout) -> Change:
    kind = type(site.module).__name__
    if isinstance(site.module, _DropoutNd) and site.instead:
        kind += f" p={site.module.p:g}"
    action = "instead of" if site.instead else "after"
    return Change(layer.layer, site.name, kind, action, layer.dim)


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


def _refuse_repeats(sites: Iterable[_Site]) -> None:
    names = [name for site in sites for name in site.names]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConversionError(f"{repeated[0]} is matched twice. Make the patterns disjoint.")


def _refuse_masked(sites: Iterable[_Site]) -> None:
    for site in sites:
        if not site.instead and CHILD in dict(site.module.named_children()):
            raise ConversionError(
                f"{site.name} is already followed by a turn-over layer. A second one would keep "
                "only p² of its units. Convert a fresh copy of the model."
            )


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
