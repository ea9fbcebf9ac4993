"""The test bench of the leak check: real optimizer steps on a model that is put back afterwards."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import Optimizer

from turnover._random import manual_seed
from turnover._rows import Batch, Loss, count_rows, per_example, repeat_rows
from turnover.errors import ConversionError, LossError
from turnover.leaks._hidden import Hidden, alike
from turnover.nn import evaluating, seen, unseen

__all__ = [
    "Bench",
    "Elements",
    "Factory",
    "Probe",
    "State",
    "norm_statistics",
    "plain_sgd",
    "restored",
    "same_state",
    "seed_all",
    "tensors",
    "trainable",
]

Factory = Callable[[Iterable[nn.Parameter]], Optimizer]
State = dict[str, Any]  # tensors, and copies of hidden attributes that move
Elements = dict[str, Tensor]


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
    """One model, one batch, one loss, one optimizer: steps from a fixed start, and probes.

    ``looked_at`` are the rows that probes look at (default: the rows of the batch).
    """

    model: nn.Module
    batch: Batch
    loss: Loss
    optimizer: Optimizer
    hidden: Hidden
    clip_norm: float | None = None
    looked_at: Batch = None
    norms: list[float] = field(default_factory=list)
    passes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rows = count_rows(self.batch)
        self.looked_at = self.batch if self.looked_at is None else self.looked_at
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
        made = optimizer or self.optimizer
        return replace(self, optimizer=made, clip_norm=clip_norm, norms=[])

    def crowd(self) -> "Bench":
        """This bench with probes of the whole batch."""
        self.load(self.start)
        self.optimizer.load_state_dict(deepcopy(self.start_optimizer))
        return replace(self, looked_at=self.batch, norms=[])

    def state(self) -> State:
        """Copies of all parameters, buffers and moving attributes, by full name."""
        found = {name: tensor.detach().clone() for name, tensor in tensors(self.model).items()}
        return found | self.hidden.snapshot(self.hidden.moving)

    def load(self, state: Mapping[str, Any]) -> None:
        """Write the tensors and attributes of ``state`` into the model."""
        current, hidden = tensors(self.model), self.hidden.moving
        with torch.no_grad():
            for name, value in state.items():
                if name in hidden:
                    continue
                if name in current and current[name].shape == value.shape:
                    current[name].copy_(value)
                else:  # a buffer that grows
                    owner, _, own = name.rpartition(".")
                    self.model.get_submodule(owner)._buffers[own] = value.clone()
        self.hidden.put({name: state[name] for name in hidden if name in state})

    def gradients(self) -> Elements:
        """Dense copies of the gradients of the last step or probe."""
        return {
            name: parameter.grad.to_dense().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def step(
        self, batch: Batch, ids: Tensor, *, zero: bool = False, given: State | None = None
    ) -> State:
        """The state after one training step from the start.

        Args:
            batch: the rows of the step.
            ids: one id for each.
            zero: put the model back before the optimizer steps, with gradients of zero.
            given: what differs from the start.
        """
        self.load(self.start | (given or {}))
        self.optimizer.load_state_dict(deepcopy(self.start_optimizer))
        self.train_on(batch, ids, zero=zero)
        return self.state()

    def train_on(self, batch: Batch, ids: Tensor, *, zero: bool = False) -> None:
        """One training step on the model as it is; the gradients stay."""
        self.gradients_of(batch, ids)
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.norms.append(float(norm))
        if zero:
            self.load(self.start)
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = torch.zeros_like(parameter.grad)
        self.optimizer.step()

    def gradients_of(self, batch: Batch, ids: Tensor) -> Elements:
        """The gradients of a training pass on the model as it is, without a step."""
        seed_all(0)
        self.optimizer.zero_grad(set_to_none=True)
        if len(ids) == 1 and _has_batchnorm(self.model):
            batch, ids = repeat_rows(batch, 2), ids.repeat(2)
        with seen(self.model, ids):
            _backward(self.losses(batch).mean())
        return self.gradients()

    def pass_through(self, batch: Batch, ids: Tensor, *, seed: int = 0) -> Tensor:
        """The losses ``[rows]`` of one pass without a step, in the present mode and state."""
        seed_all(seed)
        with torch.no_grad(), seen(self.model, ids):
            return self.losses(batch)

    def probe(
        self, state: Mapping[str, Any], id_: int, *, seen_half: bool = False, seed: int = 0
    ) -> Probe:
        """What the unseen (or seen) sub-network of ``id_`` says on the looked_at rows."""
        self.load(state)
        seed_all(seed)
        outputs: list[Tensor] = []
        hook = self.model.register_forward_hook(lambda _, __, output: outputs.append(output))
        try:
            half = self._half(self.looked_at, id_, seen_half)
            with evaluating(self.model), torch.no_grad(), half:
                losses = self.losses(self.looked_at)
        finally:
            hook.remove()
        kept = tuple(o.clone() for o in outputs) if all(map(torch.is_tensor, outputs)) else ()
        return Probe(losses.detach().clone(), kept)

    def sensitivity(self, state: State, id_: int, batch: Batch | None = None) -> Elements:
        """Gradients of the losses of the unseen sub-network of ``id_``, randomly weighted."""
        batch = self.looked_at if batch is None else batch
        self.load(state)
        seed_all(0)
        self.optimizer.zero_grad(set_to_none=True)
        with evaluating(self.model), self._half(batch, id_, False):
            losses = self.losses(batch)
            random_ = torch.Generator().manual_seed(0)
            weights = torch.rand(len(losses), generator=random_) + 0.5
            _backward((losses * weights.to(losses)).sum())
        return self.gradients()

    def losses(self, batch: Batch) -> Tensor:
        """The user's losses, checked to be one finite number per row."""
        self.passes["all"] += 1
        losses = per_example(self.loss(self.model, batch), count_rows(batch))
        values = losses.detach()
        bad = torch.nonzero(~torch.isfinite(values)).flatten().tolist()
        if bad:
            raise LossError(
                f"The loss of row {bad[0]} is {float(values[bad[0]])}, so nothing can be compared. "
                "Check the row and the loss; if it happens after a step, lower the learning rate."
            )
        return losses

    def _half(self, batch: Batch, id_: int, seen_half: bool) -> Any:
        ids = torch.full((count_rows(batch),), id_)
        return (seen if seen_half else unseen)(self.model, ids)


def tensors(model: nn.Module) -> Elements:
    """All parameters and buffers by full name, each tensor once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def norm_statistics(model: nn.Module) -> set[str]:
    """Full names of the buffers of norm layers."""
    norms = {name for name, module in model.named_modules() if isinstance(module, _NormBase)}
    return {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in norms}


def same_state(one: State, other: State) -> bool:
    """Whether two states hold the same bits."""
    return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)


def seed_all(seed: int) -> None:
    """The same random numbers of torch, NumPy and Python, whatever was drawn before."""
    manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """After the block, the model is bit for bit what it was, and so are the random generators."""
    values = [(tensor, tensor.detach().clone()) for tensor in tensors(model).values()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modules = [(module, module.training, dict(module._buffers)) for module in model.modules()]
    hidden, drawn = Hidden(model), (np.random.get_state(), random.getstate())
    originals = hidden.originals()
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
            module._buffers.clear()
            module._buffers.update(buffers)
        hidden.restore(originals)
        np.random.set_state(drawn[0])
        random.setstate(drawn[1])


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
