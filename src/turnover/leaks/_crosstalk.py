"""Do the rows of a batch see each other? Two steps that differ in the content of one row.

With z's content in its row or with another's, the other rows must teach the same: f^m̃(z) must be
bit-identical after both steps, except for what already leaks from z alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import Batch, count_rows, map_tensors
from turnover.leaks._harness import Bench, Probe, State, plain_sgd, trainable
from turnover.leaks._remedies import COUPLINGS, coupling_remedy
from turnover.leaks._report import Crosstalk
from turnover.nn import seen

__all__ = ["find_crosstalk"]


def find_crosstalk(
    bench: Bench, ids: Tensor, pairs: Iterable[tuple[int, int | None]], leaking: set[str]
) -> list[Crosstalk]:
    """Couplings between rows, one for each cause.

    Args:
        bench: the model and its batch.
        ids: one id per row.
        pairs: (row of z, row whose content replaces z's; None when there is no other content).
        leaking: tensors that leak from z alone, whose share is left out.
    """
    found: dict[str, Crosstalk] = {}
    for row, other in pairs:
        if other is None:
            continue
        replaced = with_content(bench.batch, row, other)
        before, after = _probes(bench, ids, row, replaced, leaking)
        if before.same_bits(after):
            continue
        cause, remedy = _cause(bench, ids, row, replaced, leaking)
        size = before.distance(after)
        seen_before, seen_after = _probes(bench, ids, row, replaced, set(), seen_half=True)
        learned = seen_before.distance(seen_after)
        if cause not in found or size > found[cause].size_nats:
            found[cause] = Crosstalk(cause, size, size / learned if learned else 0.0, remedy)
    return list(found.values())


def with_content(batch: Batch, row: int, other: int) -> Batch:
    """The batch with the content of row ``other`` in row ``row`` as well."""

    def replace(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[row] = tensor[other]
        return tensor

    return map_tensors(replace, batch)


def _probes(
    bench: Bench,
    ids: Tensor,
    row: int,
    replaced: Batch,
    leaking: set[str],
    *,
    seen_half: bool = False,
) -> tuple[Probe, Probe]:
    """z's sub-network after a step on the batch, and after a step on the replaced batch."""
    first, second = bench.step(bench.batch, ids), bench.step(replaced, ids)
    second |= {name: first[name] for name in leaking}
    return _probe(bench, first, ids, row, seen_half), _probe(bench, second, ids, row, seen_half)


def _probe(bench: Bench, state: State, ids: Tensor, row: int, seen_half: bool) -> Probe:
    return bench.probe(state, int(ids[row]), seen_half=seen_half)


def _cause(
    bench: Bench, ids: Tensor, row: int, replaced: Batch, leaking: set[str]
) -> tuple[str, str]:
    """What couples the rows, and what to do: found by leaving out one suspect after another."""

    def isolated(suspect: Bench) -> bool:
        first, second = _probes(suspect, ids, row, replaced, leaking)
        return first.same_bits(second)

    if bench.clip_norm is not None and isolated(bench.variant(clip_norm=None)):
        return _known("global gradient clipping")
    plain = plain_sgd(trainable(bench.model))
    if isolated(bench.variant(clip_norm=None, optimizer=plain)):
        return _known("the optimizer")
    name, module, loss_differs = _first_coupling(bench, ids, row, replaced)
    if module is not None:
        return f"{name} ({type(module).__name__})", coupling_remedy(module)
    return _known("the loss" if loss_differs else "an unknown coupling")


def _known(cause: str) -> tuple[str, str]:
    return cause, COUPLINGS[cause]


def _first_coupling(
    bench: Bench, ids: Tensor, row: int, replaced: Batch
) -> tuple[str, nn.Module | None, bool]:
    """The first module, in order of the forward pass, whose outputs for other rows differ."""
    others = torch.arange(bench.rows) != row
    others &= ids != ids[row]
    first, first_losses = _trace(bench, bench.batch, ids)
    second, second_losses = _trace(bench, replaced, ids)
    differ = not torch.equal(first_losses[others], second_losses[others])
    for (name, module, mine), (_, _, theirs) in zip(first, second, strict=False):
        if mine.shape == theirs.shape and not torch.equal(mine[others], theirs[others]):
            return name, module, differ
    return "", None, differ


def _trace(
    bench: Bench, batch: Batch, ids: Tensor
) -> tuple[list[tuple[str, nn.Module, Tensor]], Tensor]:
    """Outputs of every module without children of its own, in the order of the forward pass."""
    seen_outputs: list[tuple[str, nn.Module, Tensor]] = []
    bench.load(bench.start)
    torch.manual_seed(0)
    with _watching(bench.model, seen_outputs, count_rows(batch)), seen(bench.model, ids):
        losses = bench.losses(batch).detach()
    return seen_outputs, losses


@contextmanager
def _watching(
    model: nn.Module, into: list[tuple[str, nn.Module, Tensor]], rows: int
) -> Iterator[None]:
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() and len(output) == rows:
            into.append((names[module], module, output.detach().clone()))

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
