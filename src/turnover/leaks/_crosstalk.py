"""Do the rows of a batch see each other? Two steps that differ in the content of one row.

With z's content in its row or with another's, the other rows must teach the same: f^m̃(z) must be
bit-identical after both steps, except for what already leaks from z alone.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from turnover._rows import Batch, map_tensors
from turnover.leaks._harness import Bench, Probe, State, plain_sgd, seed_all, trainable
from turnover.leaks._remedies import COUPLINGS, HOOK, UNKNOWN, coupling_remedy
from turnover.leaks._report import Crosstalk
from turnover.leaks._trace import Event, Place, first_difference, trace
from turnover.nn import seen

__all__ = ["find_crosstalk", "trace_of_step"]


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
    place, loss_differs = _first_coupling(bench, ids, row, replaced)
    if place is not None:
        return place.words, coupling_remedy(place.module, place.own_code)
    if not loss_differs and (hook := _hook_on_gradients(bench.model)):
        return hook, HOOK
    return _known("the loss" if loss_differs else UNKNOWN)


def _known(cause: str) -> tuple[str, str]:
    return cause, COUPLINGS[cause]


def _first_coupling(
    bench: Bench, ids: Tensor, row: int, replaced: Batch
) -> tuple[Place | None, bool]:
    """Where values of other rows first differ in the forward pass; whether their losses do."""
    others = (torch.arange(bench.rows) != row) & (ids != ids[row])
    first, first_losses = trace_of_step(bench, bench.batch, ids)
    second, second_losses = trace_of_step(bench, replaced, ids)
    differ = not torch.equal(first_losses[others], second_losses[others])
    return first_difference(bench.model, first, second, others), differ


def trace_of_step(bench: Bench, batch: Batch, ids: Tensor) -> tuple[list[Event], Tensor]:
    """The events of the forward pass of a step from the start, and the losses ``[rows]``."""
    bench.load(bench.start)
    seed_all(0)
    with seen(bench.model, ids):
        return trace(bench.model, lambda: bench.losses(batch))


def _hook_on_gradients(model: nn.Module) -> str | None:
    """The first parameter or module whose gradients a hook may change."""
    for name, parameter in model.named_parameters():
        hooks = ("_backward_hooks", "_post_accumulate_grad_hooks")
        if any(getattr(parameter, hook, None) for hook in hooks):
            return f"a hook on the gradient of {name}"
    for name, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            return f"a hook on the backward pass of {name or 'the model'} ({type(module).__name__})"
    return None
