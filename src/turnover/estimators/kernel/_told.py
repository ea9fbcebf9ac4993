"""What a loss is, told from its gradient with respect to the model's output.

Let f be the output of a row and g = ∂L/∂f. Up to rounding,

- softmax with cross-entropy: Σ g = 0, and the negative part of g sums to −(1 − p), p = exp(−L);
- independent sigmoids: Πᵢ (1 − |gᵢ|) = p;
- the logarithm of probabilities that the model itself gives: exp(f) sums to 1, and g · f = L;
- probabilities that the model itself gives: Σᵢ log |gᵢ| = L, over gᵢ ≠ 0;
- squared errors c (y − f)² / 2: ‖g‖² = 2 c L, with one c for all rows.

Labels smoothed, weights of classes, other units and other losses fulfil none of the first four.
"""

from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, per_example, to_device_of
from turnover.errors import LossError

__all__ = ["LinkWarning", "what_contradicts"]

SMALLEST, SMALL = 1e-4, 1e-6
CLOSE, CLOSE_IN_HALF = 0.02, 0.1
"""Relative. Half precision rounds logarithms to 0.4 %, and so small probabilities to several."""
ONE_BY_ONE = (
    "Score each output on its own, by a loss of that output with link='squared', and add the scores"
)


class LinkWarning(UserWarning):
    """A loss that is not what the scores take it for."""


def what_contradicts(model: nn.Module, loss: Loss, batch: Batch, link: str) -> str | None:
    """A sentence on why the losses are not what the link takes them for; None where none is due.

    Nothing is said of a model whose output is not one vector for each row, such as a language
    model, of a loss that calls the model on several inputs or not as a whole, and of rows without
    a loss.

    Args:
        model: in evaluation mode; left as found.
        loss: (model, batch) → per-example losses ``[rows]``.
        batch: a few rows.
        link: ``"log-odds"``, ``"classes"``, ``"squared"``, ``"residual"`` or ``"none"``.

    Raises:
        LossError: for squared errors of several outputs under ``"squared"``.
    """
    if link in ("none", "classes"):  # the latter is refused where it does not hold
        return None
    found = _output_gradient(model, loss, to_device_of(model, batch))
    if found is None:
        return None
    f, g, losses, close = found
    if link == "residual":
        taken = "the losses are not errors y − f of one output, as link='residual' takes them"
        return None if _alike(g.abs().sum(dim=1), torch.ones_like(losses), close) else taken
    factor = g.square().sum(dim=1) / (2 * losses)
    squared = len(factor) > 1 and _alike(factor, factor.mean().expand_as(factor), close)
    several = squared and int((g != 0).any(dim=0).sum()) > 1
    if link == "squared" and several:
        raise LossError(
            "The losses are squared errors of several outputs. link='squared' knows one residual "
            "and one direction for each row, so the scores would be wrong in unit and in order. "
            f"{ONE_BY_ONE}."
        )
    if link == "squared":
        taken = "the losses are not squared errors, as link='squared' takes them"
        return None if squared else taken
    if any(_alike(one, other, close) for one, other in _likelihoods(f, g, losses, close)):
        return None
    if several:
        return f"the losses are squared errors of several outputs. {ONE_BY_ONE}"
    if squared:
        return "the losses are squared errors: give link='squared'"
    return (
        "the losses are not −log of a probability, as link='log-odds' takes them (smoothed labels, "
        "weights of classes, other units and squared errors are not). Give the plain loss, or "
        "link='none'"
    )


def _likelihoods(f: Tensor, g: Tensor, losses: Tensor, close: float) -> list[tuple[Tensor, Tensor]]:
    """For each kind of likelihood, two numbers for each row that are equal in it."""
    wrong = -torch.expm1(-losses)
    balanced = g.sum(dim=1).abs() <= close * g.abs().sum(dim=1) + SMALL
    softmax = torch.where(balanced, -g.clamp_max(0).sum(dim=1), torch.inf)
    inside = g.abs().amax(dim=1) <= 1 + close
    sigmoids = torch.where(inside, 1 - (1 - g.abs().clamp_max(1)).prod(dim=1), torch.inf)
    normal = torch.logsumexp(f, dim=1).abs() < close
    logarithms = torch.where(normal, (g * f).sum(dim=1), torch.inf)
    probabilities = torch.where(g != 0, g.abs().clamp_min(SMALL).log(), 0).sum(dim=1)
    return [(softmax, wrong), (sigmoids, wrong), (logarithms, losses), (probabilities, losses)]


def _alike(one: Tensor, other: Tensor, close: float) -> bool:
    return bool(((one - other).abs() <= close * other.abs() + SMALL).all())


def _output_gradient(
    model: nn.Module, loss: Loss, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, float] | None:
    """Of rows with a loss: outputs and gradients ``[rows, outputs]``, losses, and a tolerance."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, _: object, output: Any) -> None:
        logits = getattr(output, "logits", output)
        outputs.append(logits if isinstance(logits, Tensor) else torch.empty(0))

    hook = model.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            losses = per_example(loss(model, batch), count_rows(batch))
    except LossError:
        return None  # what is wrong with it, those say who need it
    finally:
        hook.remove()
    if not outputs or not losses.requires_grad or not all(f.requires_grad for f in outputs):
        return None
    f = outputs[0]
    if f.dim() not in (1, 2) or len(f) != len(losses):
        return None
    if not all(other.shape == f.shape and torch.equal(other, f) for other in outputs):
        return None
    found = torch.autograd.grad(losses.sum(), outputs, allow_unused=True, materialize_grads=True)
    g = torch.stack(found).sum(dim=0)
    rows = [x.detach().double().reshape(len(losses), -1) for x in (f, g, losses)]
    alive = rows[2][:, 0] > SMALLEST
    if not alive.any():
        return None
    close = CLOSE_IN_HALF if f.dtype in (torch.float16, torch.bfloat16) else CLOSE
    return rows[0][alive], rows[1][alive], rows[2][alive, 0], close
