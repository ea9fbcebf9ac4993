"""Gradients of single examples, as factors that one batched backward pass leaves behind.

Hooks keep the input of every module and the gradient of its output; the rule of the module's kind
(``_rules``) makes factors of them. A weight that several modules share is summed once. Parameters
that no module reads are differentiated row by row, which is exact and slower.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from turnover._functional import with_gradients
from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import ConversionError
from turnover.estimators.kernel._by_row import by_row, refuse_not_finite
from turnover.estimators.kernel._project import MOST, compressed, projection, sides
from turnover.estimators.kernel._rules import local_gradients, refuse_other_models, rule_of

__all__ = ["Factor", "Reading", "factors", "read", "recorded", "unchecked"]

Scale = Callable[[Tensor], Tensor]
HALF = {torch.float16, torch.bfloat16}
ROWS_AT_ONCE = 16


@final
@dataclass(frozen=True)
class Factor:
    """Gradients of one module for some examples: Σ_p g_p a_pᵀ.

    Attributes:
        a: inputs ``[row, position, in]``, a last column of ones for the bias.
        g: gradients of outputs ``[row, position, out]``.
        summed: whether other rows have several positions, so that one is a sum as well.
    """

    a: Tensor
    g: Tensor
    summed: bool = False

    def explicit(self) -> Tensor:
        """The gradients themselves, ``[row, parameters]``."""
        return torch.einsum("rpo,rpi->roi", self.g, self.a).flatten(1)


@final
@dataclass(frozen=True)
class Reading:
    """How the gradients of a model are read.

    Attributes:
        modules: names of the modules that are read by factors.
        by_row: names of the parameters that are differentiated row by row.
        share: share of the trainable numbers that factors read, from 0 to 1.
        broadcast: names of embeddings that run once for all rows, as of positions.
        mapped: whether ``torch.vmap`` differentiates several rows at once, with the same result.
        most: numbers that are kept of the gradient of one weight.
        left_out: names of parameters that no loss of the checked rows depends on.
        single: names of modules that have one position of each row; None where that was not looked
            at, and each batch tells.
    """

    modules: tuple[str, ...]
    by_row: tuple[str, ...]
    share: float
    broadcast: frozenset[str] | None = None
    mapped: bool = False
    most: int = MOST
    left_out: tuple[str, ...] = ()
    single: frozenset[str] | None = None


def unchecked(model: nn.Module, without: frozenset[str] = frozenset()) -> Reading:
    """Read all modules that have a rule or no children, and the other parameters row by row.

    Args:
        model: any module.
        without: names of parameters that factors must not read.

    Raises:
        ConversionError: when nothing in the model is trained.
    """
    refuse_other_models(model)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if not names:
        raise ConversionError(
            f"Nothing in this {type(model).__name__} can be trained: it has no parameter that "
            "requires a gradient, so there are no gradients to compare. Unfreeze some with "
            "parameter.requires_grad_()."
        )
    modules, read = [], set()
    for name, module in model.named_modules():
        own = {names[id(p)] for p in module.parameters(recurse=False) if p.requires_grad}
        readable = rule_of(module) is not None or next(module.children(), None) is None
        if own and readable and not own & without and not hasattr(module, "parametrizations"):
            modules.append(name)
            read |= own
    shared = _unlike_owners(model, modules)
    modules = [n for n in modules if n not in shared]
    for name in shared:
        owner = model.get_submodule(name)
        read -= {names[id(p)] for p in owner.parameters(recurse=False) if p.requires_grad}
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    share = sum(sizes[name] for name in read) / sum(sizes.values())
    return Reading(tuple(modules), tuple(n for n in names.values() if n not in read), share)


def _unlike_owners(model: nn.Module, modules: list[str]) -> set[str]:
    """Modules that share a parameter, but not as the weight of Linear or Embedding rules."""
    owners: dict[int, list[tuple[str, str]]] = {}
    for name in modules:
        for own, p in model.get_submodule(name).named_parameters(recurse=False):
            if p.requires_grad:
                owners.setdefault(id(p), []).append((name, own))
    return {
        name
        for found in owners.values()
        if len(found) > 1 and not all(own == "weight" and _joins(model, n) for n, own in found)
        for name, _ in found
    }


def _joins(model: nn.Module, name: str) -> bool:
    """Whether the gradient of a module's weight ``[out, in]`` can be added to that of another."""
    module = model.get_submodule(name)
    return isinstance(module, nn.Linear | nn.Embedding) and rule_of(module) is not None


@final
@dataclass(frozen=True)
class _Call:
    """One call of a module: its input and output."""

    x: Tensor
    output: Tensor


def recorded(
    model: nn.Module, loss: Loss, batch: Batch, reading: Reading
) -> tuple[dict[str, list[tuple[Tensor, Tensor]]], Tensor, frozenset[str]]:
    """Input and output gradient of every call of the modules that are read, by name.

    A module is absent when it did not run, or when an input or output of one of its calls is no
    tensor with the rows of the batch as its first dimension. The output of an embedding that runs
    once for all rows is repeated for each, so that it has a gradient of each.

    Returns:
        The calls; the losses ``[rows]``; and the names of embeddings that ran once for all rows:
        those of ``reading``, or by their shapes where it does not say.

    Raises:
        LossError: for losses of a wrong shape, or that are not finite.
    """
    rows = count_rows(batch)
    calls: dict[str, list[_Call]] = {name: [] for name in reading.modules}
    unlike, once = set[str](), set(reading.broadcast or ())

    def hook(name: str) -> Callable[..., Tensor | None]:
        def keep(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
        ) -> Tensor | None:
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            if not isinstance(output, Tensor) or not output.requires_grad or len(given) != 1:
                unlike.add(name)
                return None
            x = given[0].detach()
            if name in once or (reading.broadcast is None and _runs_once(module, x, rows)):
                once.add(name)
                x, output = _repeated(x, rows), _repeated(output, rows, 1)
            if not all(each.dim() and len(each) == rows for each in (x, output)):
                unlike.add(name)
                return None
            calls[name].append(_Call(x, output))
            return output.clone()  # what follows may change its input in place

        return keep

    with ExitStack() as hooks, with_gradients():
        for name in reading.modules:
            handle = model.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True)
            hooks.callback(handle.remove)
        losses = per_example(loss(model, to_device_of(model, batch)), rows)
        refuse_not_finite(losses)
        kept = {name: list(each) for name, each in calls.items() if each and name not in unlike}
        outputs = [call.output for each in kept.values() for call in each]
        gradients = iter(
            torch.autograd.grad(losses.sum(), outputs, materialize_grads=True) if outputs else ()
        )
        found = {n: [(call.x, next(gradients)) for call in each] for n, each in kept.items()}
    return found, losses.detach(), frozenset(once)


def _runs_once(module: nn.Module, ids: Tensor, rows: int) -> bool:
    """Whether an embedding looks up ``[position]`` or ``[1, position]``, the same for all rows."""
    return _is_lookup(module) and len(ids) != rows and (ids.dim() == 1 or len(ids) == 1)


def _repeated(x: Tensor, rows: int, features: int = 0) -> Tensor:
    """``[position]`` or ``[1, position]``, and features behind them, as ``[row, position]``."""
    if x.dim() == 1 + features:
        x = x.unsqueeze(0)
    return x.expand(rows, *x.shape[1:]) if len(x) == 1 else x


def factors(
    model: nn.Module, loss: Loss, batch: Batch, scale: Scale, reading: Reading | None = None
) -> tuple[list[Factor], Tensor]:
    """Factors of the gradient of scale(L) · L for every example, and the losses.

    Args:
        model: run as it is; put it into evaluation mode first.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: a batch of any structure.
        scale: from losses ``[rows]`` to what the gradient of each is multiplied by.
        reading: how the gradients are read; by default, as :func:`unchecked`.

    Raises:
        LossError: for losses of a wrong shape, or that are not finite.
        ConversionError: for a module that ran otherwise than when ``reading`` was made.
    """
    reading = unchecked(model) if reading is None else reading
    calls, losses, _ = recorded(model, loss, batch, reading)
    if absent := [name for name in reading.modules if name not in calls]:
        raise ConversionError(
            f"Module {absent[0]!r} did not run on this batch of {len(losses)} rows as it did on "
            "the rows that were checked: it was not called, or dimension 0 of its input or output "
            "is not the row. Its gradients cannot be told apart by row. Give all rows one shape, "
            "and let the same modules run for each."
        )
    weights = scale(losses)
    found = list(read(model, calls, weights, reading.most, reading.single).values())
    if reading.by_row:
        found += _by_row(model, loss, batch, reading, weights)
    return found, losses


def read(
    model: nn.Module,
    calls: Mapping[str, list[tuple[Tensor, Tensor]]],
    weights: Tensor,
    most: int = MOST,
    single: frozenset[str] | None = None,
) -> dict[str, Factor]:
    """Factors of the modules, by name; a shared weight stands under the name of its first owner.

    Raises:
        ConversionError: for several positions of a module that has one in ``single``.
    """
    scaled = {
        name: [(x, g * weights.to(g).view(-1, *[1] * (g.dim() - 1))) for x, g in each]
        for name, each in calls.items()
    }
    owners: dict[int | str, list[str]] = {}
    for name in calls:
        weight = getattr(model.get_submodule(name), "weight", None)
        trained = isinstance(weight, Tensor) and weight.requires_grad
        owners.setdefault(id(weight) if trained else name, []).append(name)
    found: dict[str, Factor] = {}
    for number, names in enumerate(owners.values()):
        modules = [model.get_submodule(name) for name in names]
        if len(names) == 1 and not _is_lookup(modules[0]):
            own = _factor(modules[0], scaled[names[0]], number, most)
            found[names[0]] = own if single is None else _as_checked(own, names[0], single)
            continue
        parts = [(m, x, g) for m, n in zip(modules, names, strict=True) for x, g in scaled[n]]
        weight = modules[0].get_parameter("weight")
        found[names[0]] = _made(_shared(weight, parts, number, most))
        for name, module in zip(names, modules, strict=True):
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor) and bias.requires_grad:
                sums = [g.reshape(len(g), -1, g.shape[-1]).sum(dim=1) for _, g in scaled[name]]
                found[f"{name}.bias"] = _made(torch.stack(sums).sum(dim=0))
    return found


def _as_checked(factor: Factor, name: str, single: frozenset[str]) -> Factor:
    """A factor in the form that the checked rows have: a product, or a sum over positions."""
    if name not in single:
        return replace(factor, summed=True)
    if (found := factor.a.shape[1]) > 1:
        raise ConversionError(
            f"Module {name!r} has {found} positions in these rows, and had one in all rows that "
            "were checked, so that their gradients cannot be compared. Pad all rows to one length."
        )
    return factor


def _is_lookup(module: nn.Module) -> bool:
    rule = rule_of(module)
    return rule is not None and rule.lookup


def _made(gradients: Tensor) -> Factor:
    """Gradients ``[row, parameters]`` that were made, as the factors of one position."""
    return Factor(gradients.unsqueeze(1), torch.ones_like(gradients[:, :1]).unsqueeze(1))


def _single(tensor: Tensor) -> Tensor:
    """In single precision, where it is half."""
    return tensor.float() if tensor.dtype in HALF else tensor


def _factor(
    module: nn.Module, calls: list[tuple[Tensor, Tensor]], number: int, most: int
) -> Factor:
    """A module that ran several times has the positions of all its runs."""
    rule = rule_of(module)
    if rule is None:
        return _made(_local(module, calls, number, most))
    parts = [rule.expand(module, _single(x), _single(g)) for x, g in calls]
    a, g = (torch.cat(found, dim=1) for found in zip(*parts, strict=True))
    a = a.to(g.dtype)
    trained = [
        getattr(getattr(module, name, None), "requires_grad", False) for name in ("weight", "bias")
    ]
    if rule.elementwise:
        sums = ((g * a).sum(dim=1), g.sum(dim=1))
        return _made(torch.cat([part for part, own in zip(sums, trained, strict=True) if own], 1))
    columns = (a, torch.ones_like(a[..., :1]))
    return Factor(torch.cat([c for c, own in zip(columns, trained, strict=True) if own], dim=2), g)


def _local(module: nn.Module, calls: list[tuple[Tensor, Tensor]], number: int, most: int) -> Tensor:
    """Gradients of a module without a rule, ``[row, feature]``: summed over its calls."""
    total: dict[str, Tensor] = {}
    for x, g in calls:
        for name, gradient in local_gradients(module, x, g).items():
            total[name] = total[name] + gradient if name in total else gradient
    parts = enumerate(total.values(), start=1000 * number)
    return torch.cat(
        [compressed(_single(gradient), place, most) for place, gradient in parts], dim=1
    )


def _shared(
    weight: Tensor, parts: list[tuple[nn.Module, Tensor, Tensor]], number: int, most: int
) -> Tensor:
    """Gradients of a weight ``[out, in]`` of Linear and Embedding modules, ``[row, feature]``.

    Of an embedding, the one-hot vectors of its ids stand in place of the output gradients, and its
    output gradients in place of inputs.
    """
    out, width = weight.shape
    tall, wide = sides(out, width, most)
    like = _single(weight.detach())
    left = projection(like, out, tall, 2 * number)
    right = projection(like, width, wide, 2 * number + 1)
    total: Tensor | float = 0.0
    for module, x, gradient in parts:
        rule = rule_of(module)
        assert rule is not None
        a, g = rule.expand(module, x if rule.lookup else _single(x), _single(gradient))
        if rule.lookup and left is None:
            g = g if right is None else g @ right
            made = torch.zeros(len(a), out, wide, dtype=g.dtype, device=g.device)
            rows = torch.arange(len(a), device=g.device)[:, None].expand_as(a)
            total = total + made.index_put((rows, a), g, accumulate=True).flatten(1)
            continue
        if rule.lookup:
            inputs, grads = g, left[a] if left is not None else a
        else:
            inputs, grads = a.to(g.dtype), g if left is None else g @ left
        total = total + Factor(inputs if right is None else inputs @ right, grads).explicit()
    assert isinstance(total, Tensor)
    return total


def _by_row(
    model: nn.Module, loss: Loss, batch: Batch, reading: Reading, weights: Tensor
) -> list[Factor]:
    """A factor for each parameter that is differentiated row by row, in blocks of few rows."""
    parts: dict[str, list[Tensor]] = {name: [] for name in reading.by_row}
    for start in range(0, len(weights), ROWS_AT_ONCE):
        block = select_rows(batch, slice(start, start + ROWS_AT_ONCE))
        found = by_row(model, loss, block, reading.by_row, mapped=reading.mapped)
        for number, (name, gradient) in enumerate(found.items()):
            parts[name].append(compressed(_single(gradient), 10**6 + 2 * number, reading.most))
    return [_made(torch.cat(each) * weights.to(each[0])[:, None]) for each in parts.values()]
