"""Many small models trained at once: their parameters stacked, their losses mapped.

    Θ[m] ← step(Θ[m], ∇ mean_i L(Θ[m], z_i)),    i over the batch of model m

Optimizers of torch work element by element, so that one optimizer over the stack is as many
optimizers as there are models. Each model sees what :func:`turnover.training.fit` would show it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import vmap

from turnover._functional import functional_loss, trainable
from turnover._random import manual_seed
from turnover._rows import Loss, count_rows, per_example, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ConversionError, LossError
from turnover.nn import evaluating, is_converted
from turnover.training._checkpoint import describe_training, load_checkpoint, save_checkpoint
from turnover.training._loop import (
    Recipe,
    epoch_seed,
    keeps_statistics,
    plan,
    set_rates,
    training,
)

__all__ = ["PADDING", "Stack", "stacks_well"]

PADDING = -1
QUERIES_PER_BLOCK = 256


class Stack(nn.Module):
    """Models of one architecture as one set of stacked parameters.

    Args:
        models: built alike and not yet trained; the first keeps what is not trained.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.

    Raises:
        ConversionError: for models that cannot be stacked: with statistics of batches (BatchNorm),
            with turn-over layers, or of different architectures.
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss) -> None:
        super().__init__()
        _refuse_state(models[0])
        each = [trainable(model) for model in models]
        if len({tuple((n, p.shape) for n, p in found.items()) for found in each}) > 1:
            raise ConversionError("The models differ in their parameters; build all of them alike.")
        self.names = tuple(each[0])
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([found[name] for found in each])) for name in self.names
        )
        # In a tuple it is no child: its own parameters take no part in the training.
        self.built, self.loss = (models[0],), loss

    @property
    def parameters_by_name(self) -> dict[str, Tensor]:
        """The stacked parameters ``[model, ...]``."""
        return dict(zip(self.names, self.stacked, strict=True))

    def fit(
        self,
        rows: Rows,
        positions: Tensor,
        recipe: Recipe,
        *,
        on_epoch: Callable[[int], None] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Train model m on ``rows.select(positions[m])``, all in the order of ``recipe.seed``.

        Without ordinary dropout and padding, each ends as ``fit`` would leave it, but for rounding.

        Args:
            rows: the whole training set.
            positions: ``int64 [model, size]``, padded with ``PADDING`` where models train on
                fewer rows; a batch is the mean over its rows, however many.
            recipe: as for :func:`turnover.training.fit`.
            on_epoch: called with the number of finished epochs.
            checkpoint: file from which an interrupted training resumes.

        Raises:
            LossError: when a training diverges.
            RunError: for a checkpoint of another training.
        """
        optimizer = recipe.optimizer(list(self.stacked))
        rates = [group["lr"] for group in optimizer.param_groups]
        about = describe_training(self, optimizer, rows, plan(recipe))
        done = load_checkpoint(checkpoint, self, optimizer, about, recipe.epochs)
        losses = vmap(functional_loss(self.built[0], self.loss), randomness="different")
        with torch.random.fork_rng(), training(self.built[0]):
            for epoch in range(done, recipe.epochs):
                for progress, batch in _batches(positions, recipe, epoch):
                    set_rates(optimizer, rates, recipe, epoch + progress)
                    optimizer.zero_grad()
                    part = select_rows(rows.batch, batch.clamp(min=0))
                    found = losses(self.parameters_by_name, to_device_of(self, part))
                    valid = (batch != PADDING).to(found)
                    means = (found * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
                    means.sum().backward()
                    optimizer.step()
                _refuse_divergence(means.detach(), recipe.seed, epoch)
                if on_epoch is not None:
                    on_epoch(epoch + 1)
                save_checkpoint(checkpoint, self, optimizer, about, epoch + 1)

    @torch.no_grad()
    def losses(self, queries: Rows) -> Tensor:
        """Losses ``float32 [model, query]`` of all models, in nats."""
        every = vmap(functional_loss(self.built[0], self.loss), in_dims=(0, None))
        parts = []
        with evaluating(self.built[0]):
            for start in range(0, len(queries), QUERIES_PER_BLOCK):
                block = select_rows(queries.batch, slice(start, start + QUERIES_PER_BLOCK))
                found = every(self.parameters_by_name, to_device_of(self, block))
                per_example(found[0], count_rows(block))
                parts.append(found.float().cpu())
        return torch.cat(parts, dim=1)

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write the parameters of model m into ``models[m]``."""
        with torch.no_grad():
            for place, model in enumerate(models):
                found = dict(model.named_parameters())
                for name, values in self.parameters_by_name.items():
                    found[name].copy_(values[place])


def _batches(positions: Tensor, recipe: Recipe, epoch: int) -> Iterator[tuple[float, Tensor]]:
    """(share of the epoch, positions ``[model, batch]``), in the order in which ``fit`` goes."""
    manual_seed(epoch_seed(recipe.seed, epoch))
    order = torch.randperm(positions.shape[1], device="cpu")
    parts = positions[:, order].split(recipe.batch_size, dim=1)
    yield from ((number / len(parts), part) for number, part in enumerate(parts))


def stacks_well(model: nn.Module) -> bool:
    """Whether networks of this architecture can be stacked, and are trained sooner in a stack.

    Convolutions are not. Mapped over their weights they become one convolution of many groups,
    which takes a processor two to three times as long as one after the other. Nor are networks that
    are frozen in part, such as adapters in a transformer: one alone keeps a processor busy.
    """
    if any(not parameter.requires_grad for parameter in model.parameters()):
        return False
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    slow = any(isinstance(module, kinds) for module in model.modules())
    return not (slow or is_converted(model) or any(map(keeps_statistics, model.modules())))


def _refuse_state(model: nn.Module) -> None:
    if is_converted(model):
        raise ConversionError(
            "This model has turn-over layers, whose masks would have to change from model to model "
            "in the stack. A stack trains plain networks: build one without them."
        )
    for name, module in model.named_modules():
        if keeps_statistics(module):
            raise ConversionError(
                f"{name} ({type(module).__name__}) keeps statistics of batches, which cannot be "
                "stacked. Use GroupNorm or LayerNorm, or train one by one: at_once=1."
            )


def _refuse_divergence(losses: Tensor, seed: int, epoch: int) -> None:
    if not (fine := torch.isfinite(losses)).all():
        raise LossError(
            f"{int((~fine).sum())} of {len(fine)} trainings with seed {seed} diverged in epoch "
            f"{epoch + 1}; the first is number {int(torch.nonzero(~fine)[0])} of its stack. Lower "
            "the learning rate."
        )
