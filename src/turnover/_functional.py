"""The user's loss as a function of the parameters: what ``torch.func`` maps and derives."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint as checkpoints
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from turnover._rows import Batch, Loss, count_rows, map_tensors, per_example, select_rows
from turnover.errors import ConversionError, TurnoverError

__all__ = [
    "Parameters",
    "eager",
    "flat",
    "functional_loss",
    "per_example_gradients",
    "trainable",
    "with_gradients",
]

Parameters = Mapping[str, Tensor]


@contextmanager
def with_gradients() -> Iterator[None]:
    """Within the block gradients are taken, and modules run as they were written.

    Compiled code calls the hooks of the modules inside at some calls, and not at others. Reentrant
    checkpoints allow no ``torch.autograd.grad``, and hide from hooks what is inside.
    """
    with torch.inference_mode(False), torch.enable_grad(), eager(), _without_checkpoints():
        yield


def eager() -> AbstractContextManager[object]:
    """Within the block, compiled models run as they were written.

    Where the compiler is not loaded nothing is compiled, and to load it takes over a second.
    """
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


class _Direct:
    """What a reentrant checkpoint computes, at once and kept."""

    @staticmethod
    def apply(run: Callable[..., Any], _: bool, *inputs: Any) -> Any:
        """Without a gradient where no input has one, as a reentrant checkpoint gives none then."""
        with torch.set_grad_enabled(any(isinstance(x, Tensor) and x.requires_grad for x in inputs)):
            return run(*inputs)


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """Within the block, reentrant checkpoints keep their activations."""
    before: Any = checkpoints.CheckpointFunction
    checkpoints.CheckpointFunction = _Direct  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        checkpoints.CheckpointFunction = before  # type: ignore[misc]


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that require a gradient, by name, detached.

    Raises:
        ConversionError: when there is none.
    """
    found = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ConversionError(
            f"Nothing in this {type(model).__name__} can be trained: it has no parameter that "
            "requires a gradient. Unfreeze some with parameter.requires_grad_()."
        )
    return found


def functional_loss(model: nn.Module, loss: Loss) -> Callable[[Parameters, Batch], Tensor]:
    """(parameters, batch) → per-example losses ``[rows]``; parameters left out are the model's."""
    whole = _Whole(model, loss)

    def losses(parameters: Parameters, batch: Batch) -> Tensor:
        given = {f"model.{name}": value for name, value in parameters.items()}
        return functional_call(whole, given, (batch,))

    return losses


def flat(parameters: Parameters) -> Tensor:
    """All parameters in one vector ``[parameters]``, in the order of the mapping."""
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def per_example_gradients(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    *,
    rows_per_block: int = 64,
    parameters: Parameters | None = None,
) -> Iterator[Tensor]:
    """∂L(z)/∂θ of every row: blocks ``[rows, parameters]``, in the order of the batch.

    The model is run as it is: put it into evaluation mode first. The derivatives are taken at the
    model's own parameters, unless others are given. What ``torch.vmap`` cannot map runs row by
    row: models that branch on values (most of transformers), batches with more than tensors.
    """
    losses = functional_loss(model, loss)
    parameters = trainable(model) if parameters is None else parameters

    def of_single(parameters: Parameters, single: Batch) -> Tensor:
        return per_example(losses(parameters, single), 1).squeeze(0)

    def of_row(parameters: Parameters, row: Batch) -> Tensor:
        return of_single(parameters, map_tensors(lambda tensor: tensor.unsqueeze(0), row))

    def together(block: Batch) -> Tensor:
        found = vmap(grad(of_row), in_dims=(None, 0), randomness="different")(parameters, block)
        return torch.cat([g.reshape(len(g), -1) for g in found.values()], dim=1)

    def one_by_one(block: Batch) -> Tensor:
        singles = (select_rows(block, slice(row, row + 1)) for row in range(count_rows(block)))
        return torch.stack([flat(grad(of_single)(parameters, single)) for single in singles])

    mapped = False
    for start in range(0, count_rows(batch), rows_per_block):
        block = select_rows(batch, slice(start, start + rows_per_block))
        with sdpa_kernel(SDPBackend.MATH):  # torch.vmap cannot map the fused kernels of attention
            if start == 0:
                mapped = _works(together, select_rows(block, slice(0, 1)))
            found = together(block) if mapped else one_by_one(block)
        yield found


def _works(function: Callable[[Batch], object], row: Batch) -> bool:
    """Whether ``torch.vmap`` can map the model: no branch on values, nothing but tensors."""
    try:
        function(row)
    except (TurnoverError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError):
        return False
    return True


class _Whole(nn.Module):
    """Model and loss as one module, so that ``functional_call`` reaches the model inside."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)
