"""Gradients of losses with respect to gates: one backward pass for all units at once.

g_l[q, u] = ∂L(f^γ, q)/∂γ_{l,u}, at the full network (γ = 1) or averaged over random masks γ.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from turnover._rows import (
    Batch,
    Loss,
    count_rows,
    in_memory,
    per_example,
    select_rows,
    to_device_of,
)
from turnover.errors import LossError
from turnover.estimators.masked._memory import bytes_per_row
from turnover.masks import MaskSpec, gates
from turnover.nn import evaluating, gated, masked_layers

__all__ = ["gate_gradients", "saturated"]

RANDOM_MASKS = -(2**61)
BLOCK = 256

Gradients = tuple[tuple[MaskSpec, ...], tuple[Tensor, ...]]


def gate_gradients(model: nn.Module, loss: Loss, queries: Batch, *, masks: int = 0) -> Gradients:
    """Gradient of every query's loss with respect to the gates of every masked layer.

    Args:
        model: a converted model, run in evaluation mode and left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        queries: a batch of any structure.
        masks: 0 takes the gradient at the full network; otherwise it is averaged over this many
            random masks, in pairs of a mask and its complement.

    Returns:
        The masks of the layers, and one float32 tensor ``[query, units]`` for each, in nats. They
        are zero for a query whose loss is saturated: so near to 0 that it has no gradient.

    Raises:
        LossError: for losses that are not finite, of a wrong shape, or of which none depends on any
            masked layer.
        ConversionError: for a model without turn-over layers.
    """
    queries = in_memory(queries)
    rows = count_rows(queries)
    with torch.inference_mode(False), evaluating(model):
        bytes_per_row(model, loss, select_rows(queries, slice(0, 1)))
        layers = masked_layers(model)
        specs = {name: layer.spec for name, layer in layers.items()}
        total = {name: torch.zeros(rows, spec.units) for name, spec in specs.items()}
        drawn = _random_gates(specs, masks)
        pairs = torch.cartesian_prod(torch.arange(rows), torch.arange(max(1, masks)))
        for block in pairs.split(BLOCK):
            query, draw = block.unbind(1)
            found = _gradients(model, loss, queries, query, {n: g[draw] for n, g in drawn.items()})
            for name, gradient in found.items():
                total[name].index_add_(0, query, gradient.float().cpu(), alpha=1 / max(1, masks))
    _refuse_zero(total)
    return tuple(specs.values()), tuple(total.values())


def _random_gates(specs: dict[str, MaskSpec], masks: int) -> dict[str, Tensor]:
    """Gates ``[mask, units]``: ones, or random masks followed by their complements."""
    if masks == 0:
        return {name: torch.ones(1, spec.units) for name, spec in specs.items()}
    ids = torch.arange(RANDOM_MASKS, RANDOM_MASKS + (masks + 1) // 2)

    def draw(spec: MaskSpec, unseen: bool) -> Tensor:
        return gates(
            ids, spec.units, seed=spec.seed, layer=spec.layer, keep=spec.keep, unseen=unseen
        )

    return {
        name: torch.cat([draw(spec, False), draw(spec, True)])[:masks]
        for name, spec in specs.items()
    }


def _gradients(
    model: nn.Module, loss: Loss, queries: Batch, query: Tensor, gates: dict[str, Tensor]
) -> dict[str, Tensor]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    given = {name: gate.to(device).requires_grad_() for name, gate in gates.items()}
    with torch.enable_grad(), gated(model, given):
        batch = to_device_of(model, select_rows(queries, query))
        losses = per_example(loss(model, batch), len(query))
        _refuse_bad(losses.detach(), query)
        if not losses.requires_grad:
            return {name: torch.zeros_like(gate) for name, gate in given.items()}
        found = torch.autograd.grad(
            losses, list(given.values()), torch.ones_like(losses), materialize_grads=True
        )
    return dict(zip(given, found, strict=True))


def _refuse_bad(losses: Tensor, query: Tensor) -> None:
    if not torch.isfinite(losses).all():
        bad = int(torch.nonzero(~torch.isfinite(losses))[0])
        raise LossError(
            f"The loss of query {int(query[bad])} is {losses[bad].item()}, so it has no gradient. "
            "Check its inputs and label, and whether training diverged."
        )


def saturated(gradients: Iterable[Tensor]) -> Tensor:
    """Which queries have no gradient at all: bool ``[query]``."""
    return torch.stack([part.abs().amax(dim=1) for part in gradients]).amax(dim=0) == 0


def _refuse_zero(total: dict[str, Tensor]) -> None:
    if bool(saturated(total.values()).all()):
        raise LossError(
            f"The loss of query 0 does not depend on any masked unit, nor does that of any other "
            f"(all gradients are zero in {', '.join(total)}), so that no instance can be told from "
            "another. Check that the loss uses the model's output, that the queries are not "
            "clipped or saturated, and that the masks sit on their way."
        )
