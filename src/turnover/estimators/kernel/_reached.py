"""What a kernel does not read whole: parameters without a gradient, and projected gradients.

A parameter without a gradient adds nothing to scores. Some models have one by design, such as a
pooler that no loss uses. Others lost it: a reentrant checkpoint of inputs that need no gradient, a
``torch.no_grad`` or ``detach``, a module that was replaced. Gradients of large weights keep so many
numbers alone (``_project``), unless they are products of two vectors.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, Self, final

import torch
from torch import nn

from turnover._functional import with_gradients
from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.errors import ConversionError
from turnover.estimators.kernel._factors import Reading
from turnover.estimators.kernel._rules import rule_of

__all__ = [
    "LEAST_READ",
    "ReadGradients",
    "about_projected",
    "refuse_little",
    "share_read",
    "without_gradient",
]

FIRST, AT_ONCE, NAMED = 8, 16, 3
LEAST_READ = 0.5
TOLD = 1e-4  # a share that is told, and no smaller one


@final
@dataclass(frozen=True)
class ReadGradients:
    """What a kernel reads of the gradients, where that is not all of them.

    Attributes:
        share_read: share of the trainable parameters whose gradients are read, from 0 to 1.
        share_projected: share of those whose gradients are projected.
        most_per_weight: numbers that each of these weights keeps of an instance.
    """

    share_read: float
    share_projected: float
    most_per_weight: int

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Self | None:
        """Of what scores are about; None where all is read whole."""
        read, projected = about.get("share_read", 1.0), about.get("share_projected", 0.0)
        if not about.get("left_out") and not projected:
            return None
        return cls(float(read), float(projected), int(about["most_per_weight"]))

    def __str__(self) -> str:
        said = []
        if (left := 1 - self.share_read) > 0:
            said.append(
                f"Scores leave out {_percent(left)} of the trainable parameters, on which no loss "
                "depends."
            )
        if self.share_projected:
            said.append(
                f"Gradients of {_percent(self.share_projected)} of the trainable parameters are "
                f"projected, to {self.most_per_weight:,} numbers for each weight."
            )
        return " ".join(said)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "less than 0.1%"


def without_gradient(model: nn.Module, loss: Loss, batch: Batch) -> tuple[str, ...]:
    """Names of trainable parameters that no row's loss depends on.

    Args:
        model: in evaluation mode; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: rows; more than a few are read only while a parameter is left without a gradient.
    """
    rows, start = count_rows(batch), 0
    left = {name: p for name, p in model.named_parameters() if p.requires_grad}
    while left and start < rows:
        stop = start + (AT_ONCE if start else FIRST)
        with with_gradients():
            some = to_device_of(model, select_rows(batch, slice(start, stop)))
            losses = per_example(loss(model, some), count_rows(some))
            found = (
                torch.autograd.grad(losses.sum(), list(left.values()), allow_unused=True)
                if losses.requires_grad
                else [None] * len(left)
            )
        left = {n: p for (n, p), g in zip(left.items(), found, strict=True) if g is None}
        start = stop
    return tuple(left)


def share_read(model: nn.Module, left_out: Collection[str]) -> float:
    """Share of the trainable numbers that have a gradient, from 0 to 1."""
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    return 1 - sum(sizes[name] for name in left_out) / max(1, sum(sizes.values()))


def about_projected(model: nn.Module, reading: Reading | None) -> dict[str, object]:
    """What scores say of projected gradients: their share; nothing where none is projected.

    Without a check nobody knows which modules have one position of each row, whose gradients are
    products and kept whole. It is the largest possible share then.
    """
    if reading is None or not (total := sum(n for n in _sizes(model, reading) if n > reading.most)):
        return {}
    every = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"share_projected": max(TOLD, round(total / every, 4))}


def _sizes(model: nn.Module, reading: Reading) -> Iterator[int]:
    """Numbers of each gradient that is a sum, in the parts that are projected one by one."""
    by_name = dict(model.named_parameters())
    yield from (by_name[name].numel() for name in reading.by_row if name not in reading.left_out)
    owners: dict[int | str, list[str]] = {}
    for name in reading.modules:
        weight = getattr(model.get_submodule(name), "weight", None)
        trained = isinstance(weight, nn.Parameter) and weight.requires_grad
        owners.setdefault(id(weight) if trained else name, []).append(name)
    for names in owners.values():
        first = model.get_submodule(names[0])
        rule = rule_of(first)
        own = [p.numel() for p in first.parameters(recurse=False) if p.requires_grad]
        if rule is None:
            yield from own
        elif len(names) > 1 or rule.lookup:
            yield first.get_parameter("weight").numel()
        elif not rule.elementwise and names[0] not in (reading.single or ()):
            yield sum(own)


def refuse_little(model: nn.Module, left_out: Collection[str], least: float) -> None:
    """Refuse a model of which too little has a gradient.

    Raises:
        ConversionError: when the share is below ``least``.
    """
    share = share_read(model, left_out)
    if share >= least:
        return
    names = ", ".join(map(repr, sorted(left_out)[:NAMED]))
    more = f" and {len(left_out) - NAMED} others" if len(left_out) > NAMED else ""
    raise ConversionError(
        f"Only {share:.0%} of the trainable numbers of this {type(model).__name__} have a "
        f"gradient: the loss does not depend on {names}{more}. Scores would leave out the rest. "
        "A reentrant checkpoint of inputs that need no gradient does this (give it "
        "use_reentrant=False), so do torch.no_grad and detach. Freeze parameters that are not "
        "meant to be trained, by requires_grad_(False), or allow it by "
        f"least_read={floor(100 * share) / 100:g}."
    )
