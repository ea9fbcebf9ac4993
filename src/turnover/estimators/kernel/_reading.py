"""Which gradients of a model can be read by factors? A few rows are differentiated alone, too.

Factors believe that dimension 0 of every input and output is the row, and that a weight is used
where its module runs. Both are tested: derivatives along a random direction v,

    Σ_p g_pᵀ V a_p  of the factors,      ⟨∇W, V⟩  of each row by itself,

must agree. Parameters that fail are differentiated row by row from then on: exact, and slower. The
losses of the rows alone are compared with their losses among others (``_isolation``).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import TurnoverError
from turnover.estimators._isolation import check_isolation, tolerance_of
from turnover.estimators.kernel._by_row import by_row
from turnover.estimators.kernel._factors import Reading, recorded, unchecked
from turnover.estimators.kernel._reached import without_gradient
from turnover.estimators.kernel._rules import local_gradients, rule_of
from turnover.nn import evaluating

__all__ = ["reading_of"]

ROWS, ALONE = 8, 4  # rows of the batch that is checked, and how many of them run alone
NEGLIGIBLE = 1e-3  # of the longest gradient of all: such a parameter has 1e-6 of the product


def reading_of(model: nn.Module, loss: Loss, batch: Batch, *, check: bool = True) -> Reading:
    """The fastest reading of gradients that agrees with differentiation of single rows.

    Args:
        model: one network; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: rows of the training set; those with the largest losses are compared.
        check: compare; else believe that rows are isolated and modules used as their kind is.

    Raises:
        ConversionError: when nothing in the model is trained, or rows reach each other.
        LossError: for losses of a wrong shape, or that are not finite.
    """
    with evaluating(model):
        reading = unchecked(model)
        if not check:
            return reading
        hard = _hardest(model, loss, batch)
        check_isolation(model, loss, hard, ALONE, tolerance_of(model))
        few = select_rows(hard, slice(0, ALONE))
        twin = _Twin.of(model, loss, few)
        failed, once, single = _failed(model, loss, hard, reading, twin)
        left_out = without_gradient(model, loss, batch)
        reading = unchecked(model, failed) if failed else reading
        reading = replace(reading, broadcast=once, left_out=left_out, single=single)
        if reading.by_row:
            reading = replace(reading, mapped=_maps(model, loss, few, reading, twin))
        return reading


def _hardest(model: nn.Module, loss: Loss, batch: Batch) -> Batch:
    """The rows with the largest losses, whose gradients are not rounding alone."""
    with torch.no_grad():
        losses = per_example(loss(model, to_device_of(model, batch)), count_rows(batch))
    order = losses.float().nan_to_num(posinf=0.0).argsort(descending=True)[:ROWS]
    return select_rows(batch, order.cpu())


@dataclass(frozen=True)
class _Twin:
    """Derivatives of rows alone along random directions, by plain automatic differentiation.

    Attributes:
        directions: signs in the shape of every trainable parameter, by its name.
        along: derivatives ``[row]`` by name.
        longest: length of the longest gradient by name.
        tolerance: relative difference that rounding explains.
    """

    directions: Mapping[str, Tensor]
    along: Mapping[str, Tensor]
    longest: Mapping[str, float]
    tolerance: float

    @classmethod
    def of(cls, model: nn.Module, loss: Loss, rows: Batch) -> "_Twin":
        generator = torch.Generator("cpu").manual_seed(0)
        directions = {
            name: (2 * torch.randint(0, 2, p.shape, generator=generator, device="cpu") - 1).to(p)
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        along: dict[str, list[Tensor]] = {name: [] for name in directions}
        longest = dict.fromkeys(directions, 0.0)
        for row in range(count_rows(rows)):
            single = select_rows(rows, slice(row, row + 1))
            found = by_row(model, loss, single, tuple(directions), mapped=False)
            for name, gradient in found.items():
                along[name].append((gradient[0] * directions[name]).double().sum().cpu())
                longest[name] = max(longest[name], float(gradient.double().norm()))
        stacked = {name: torch.stack(each) for name, each in along.items()}
        return cls(directions, stacked, longest, tolerance_of(model))

    def agrees(self, name: str, along: Tensor) -> bool:
        """Whether the derivatives of the first rows are those of these rows alone."""
        wanted = self.along[name]
        off = float((along[: len(wanted)].detach().double().cpu() - wanted).abs().max())
        least = NEGLIGIBLE * max(self.longest.values())
        return off <= self.tolerance * (self.longest[name] + least)


def _failed(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    reading: Reading,
    twin: _Twin,
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Names of parameters whose factors are absent, or have other derivatives than wanted.

    And names of embeddings that ran once for all rows, and of modules with one position.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    calls, _, once = recorded(model, loss, batch, reading)
    found: dict[str, Tensor] = {}
    failed: set[str] = set()
    for name in reading.modules:
        module = model.get_submodule(name)
        own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
        if name not in calls:
            failed |= {names[id(p)] for p in own.values()}
            continue
        try:
            with _slow_is_an_error():
                along = {
                    n: _along(module, calls[name], n, twin.directions[names[id(p)]])
                    for n, p in own.items()
                }
        except (TurnoverError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, UserWarning):
            failed |= {names[id(p)] for p in own.values()}  # its rows cannot be mapped
            continue
        for n, p in own.items():
            full = names[id(p)]
            found[full] = found[full] + along[n] if full in found else along[n]
    failed |= {name for name, total in found.items() if not twin.agrees(name, total)}
    single = {n for n, each in calls.items() if _positions(model.get_submodule(n), each) == 1}
    return frozenset(failed), once, frozenset(single)


def _positions(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> int:
    """How many positions of each row a module has; of one without a rule, a sum is made."""
    rule = rule_of(module)
    if rule is None or rule.lookup or rule.elementwise:
        return 1
    return sum(rule.expand(module, x, gradient)[0].shape[1] for x, gradient in calls)


def _along(
    module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]], name: str, direction: Tensor
) -> Tensor:
    """⟨∇, direction⟩ ``[row]`` of one parameter of a module, from the calls of the module."""
    rule, total = rule_of(module), torch.zeros((), device=direction.device)
    for x, gradient in calls:
        if rule is None:
            made = local_gradients(module, x, gradient)[name]
            total = total + (made * direction).flatten(1).double().sum(dim=1)
            continue
        a, g = rule.expand(module, x, gradient)
        if name == "bias":
            part = g.flatten(2) * direction.flatten()
        elif rule.lookup:
            part = direction[a] * g
        elif rule.elementwise:
            part = g * a * direction.flatten()
        else:
            matrix = direction.T if rule.transposed else direction.flatten(1)
            part = (g @ matrix.to(g)) * a
        total = total + part.flatten(1).double().sum(dim=1)
    return total


@contextmanager
def _slow_is_an_error() -> Iterator[None]:
    """Within the block, an operator that ``torch.vmap`` maps one row at a time is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")
        yield


def _maps(model: nn.Module, loss: Loss, rows: Batch, reading: Reading, twin: _Twin) -> bool:
    """Whether ``torch.vmap`` differentiates several rows at once with the same result."""
    try:
        with _slow_is_an_error():
            found = by_row(model, loss, rows, reading.by_row, mapped=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, UserWarning):
        return False
    return all(
        twin.agrees(name, (gradient * twin.directions[name]).flatten(1).double().sum(dim=1))
        for name, gradient in found.items()
    )
