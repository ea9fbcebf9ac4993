"""The test bench of the leak check: real optimizer steps on a model that is put back afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from turnover._rows import Batch, Loss, count_rows, per_example, repeat_rows
from turnover.errors import ConversionError, LossError
from turnover.nn import evaluating, seen, unseen

__all__ = ["Bench", "Factory", "Probe", "State", "plain_sgd", "restored", "tensors", "trainable"]

Factory = Callable[[Iterable[nn.Parameter]], Optimizer]
State = dict[str, Tensor]


def plain_sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer of an audit when none is given."""
    return torch.optim.SGD(parameters, lr=0.1)


@final
@dataclass(frozen=True)
class Probe:
    """What a sub-network says about a batch: losses ``[rows]``, and the outputs if one tensor."""

    losses: Tensor
    outputs: tuple[Tensor, ...]

    def same_bits(self, other: "Probe") -> bool:
        """Whether both probes agree in every bit (0 and −0 are the same number)."""
        mine, theirs = (self.losses, *self.outputs), (other.losses, *other.outputs)
        return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))

    def distance(self, other: "Probe") -> float:
        """Largest difference of a loss, in nats."""
        return float((self.losses.double() - other.losses.double()).abs().max())


@final
@dataclass
class Bench:
    """One model, one batch, one loss, one optimizer: steps from a fixed start, and probes."""

    model: nn.Module
    batch: Batch
    loss: Loss
    optimizer: Optimizer
    clip_norm: float | None = None
    norms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = count_rows(self.batch)
        self.mark_start()

    def mark_start(self) -> None:
        """Take the present state of model and optimizer as that from which every step begins."""
        self.start = self.state()
        self.start_optimizer = deepcopy(self.optimizer.state_dict())

    def variant(self, *, clip_norm: float | None, optimizer: Optimizer | None = None) -> "Bench":
        """This bench at the same start with another clipping or another, fresh optimizer."""
        self.load(self.start)
        if optimizer is None:
            self.optimizer.load_state_dict(deepcopy(self.start_optimizer))
        return Bench(self.model, self.batch, self.loss, optimizer or self.optimizer, clip_norm)

    def state(self) -> State:
        """Copies of all parameters and buffers, by full name."""
        return {name: tensor.detach().clone() for name, tensor in tensors(self.model).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Write the tensors of ``state`` into the model."""
        current = tensors(self.model)
        with torch.no_grad():
            for name, value in state.items():
                current[name].copy_(value)

    def gradients(self) -> State:
        """Dense copies of the gradients of the last step or probe."""
        return {
            name: parameter.grad.to_dense().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def step(self, batch: Batch, ids: Tensor, *, zero: bool = False) -> State:
        """The state after one training step from the start; ``zero``: with gradients of zero."""
        self.load(self.start)
        self.optimizer.load_state_dict(deepcopy(self.start_optimizer))
        self.train_on(batch, ids, zero=zero)
        after = self.state()
        if zero:
            after |= {name: self.start[name] for name, _ in self.model.named_buffers()}
        return after

    def train_on(self, batch: Batch, ids: Tensor, *, zero: bool = False) -> None:
        """One training step on the model as it is; the gradients stay."""
        torch.manual_seed(0)
        self.optimizer.zero_grad(set_to_none=True)
        if len(ids) == 1 and _has_batchnorm(self.model):
            batch, ids = repeat_rows(batch, 2), ids.repeat(2)
        with seen(self.model, ids):
            _backward(self.losses(batch).mean())
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.norms.append(float(norm))
        if zero:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = torch.zeros_like(parameter.grad)
        self.optimizer.step()

    def probe(self, state: Mapping[str, Tensor], id_: int, *, seen_half: bool = False) -> Probe:
        """What the unseen (or seen) sub-network of ``id_`` says on the whole batch."""
        self.load(state)
        outputs: list[Tensor] = []
        hook = self.model.register_forward_hook(lambda _, __, output: outputs.append(output))
        try:
            with evaluating(self.model), torch.no_grad(), self._half(id_, seen_half):
                losses = self.losses(self.batch)
        finally:
            hook.remove()
        kept = tuple(o.clone() for o in outputs) if all(map(torch.is_tensor, outputs)) else ()
        return Probe(losses.detach().clone(), kept)

    def sensitivity(self, state: State, id_: int) -> State:
        """Gradients of the losses of the unseen sub-network of ``id_``, randomly weighted."""
        self.load(state)
        self.optimizer.zero_grad(set_to_none=True)
        with evaluating(self.model), self._half(id_, False):
            losses = self.losses(self.batch)
            weights = torch.rand(self.rows, generator=torch.Generator().manual_seed(0)) + 0.5
            _backward((losses * weights.to(losses)).sum())
        return self.gradients()

    def losses(self, batch: Batch) -> Tensor:
        """The user's losses, checked to be one finite number per row."""
        losses = per_example(self.loss(self.model, batch), count_rows(batch))
        values = losses.detach()
        bad = torch.nonzero(~torch.isfinite(values)).flatten().tolist()
        if bad:
            raise LossError(
                f"The loss of row {bad[0]} is {float(values[bad[0]])}, so nothing can be compared. "
                "Check the row and the loss; if it happens after a step, lower the learning rate."
            )
        return losses

    def _half(self, id_: int, seen_half: bool) -> Any:
        return (seen if seen_half else unseen)(self.model, torch.full((self.rows,), id_))


def tensors(model: nn.Module) -> State:
    """All parameters and buffers by full name, each tensor once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """After the block, the model is bit for bit what it was, and so is the random generator."""
    values = [(tensor, tensor.detach().clone()) for tensor in tensors(model).values()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modules = [(module, module.training, dict(module._buffers)) for module in model.modules()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        with torch.enable_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, training, buffers in modules:
            module.training = training
            module._buffers.update(buffers)


def _backward(loss: Tensor) -> None:
    if not loss.requires_grad:
        raise LossError(
            "The loss does not depend on any parameter that requires gradients, so no step can be "
            "taken. Return the losses undetached, and unfreeze what is to be trained."
        )
    loss.backward()


def _has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(m, _BatchNorm) and m.training for m in model.modules())


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a step moves.

    Raises:
        ConversionError: when there are none.
    """
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not found:
        raise ConversionError(
            f"No parameter of this {type(model).__name__} requires gradients, so there is no step "
            "to audit. Unfreeze what is to be trained."
        )
    return found
