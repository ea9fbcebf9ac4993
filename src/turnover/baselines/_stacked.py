"""Many small models trained at once: their parameters stacked, their losses mapped.

    Θ[m] ← step(Θ[m], ∇ mean_i L(Θ[m], z_i)),    i over the batch of model m

Optimizers of torch work element by element, so that one optimizer over the stack is as many
optimizers as there are models. Each model sees what :func:`turnover.training.fit` would show it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from turnover._errors import ConversionError, LossError
from turnover._functional import functional_loss, trainable
from turnover._rows import Loss, count_rows, per_example, select_rows
from turnover.data import Rows
from turnover.nn import evaluating, is_converted
from turnover.training import Recipe
from turnover.training._loop import epoch_seed, set_rates

__all__ = ["Stack"]

QUERIES_PER_BLOCK = 256


class Stack:
    """Models of one architecture as one set of stacked parameters.

    Args:
        models: built alike and not yet trained.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.

    Raises:
        ConversionError: for models that cannot be stacked: with statistics of batches (BatchNorm),
            with turn-over layers, or of different architectures.
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss) -> None:
        self.model, self.loss = models[0], loss
        _refuse_state(self.model)
        each = [trainable(model) for model in models]
        if len({tuple((n, p.shape) for n, p in found.items()) for found in each}) > 1:
            raise ConversionError("The models differ in their parameters; build all of them alike.")
        self.parameters = {
            name: torch.stack([found[name] for found in each]).requires_grad_() for name in each[0]
        }

    def fit(self, rows: Rows, positions: Tensor, recipe: Recipe) -> None:
        """Train model m on ``rows.select(positions[m])``, all in the order of ``recipe.seed``.

        Without ordinary dropout, each ends as ``fit`` would leave it, but for rounding.

        Args:
            rows: the whole training set.
            positions: ``int64 [model, size]``.
            recipe: as for :func:`turnover.training.fit`.

        Raises:
            LossError: when a training diverges.
        """
        optimizer = recipe.optimizer(list(self.parameters.values()))  # type: ignore[arg-type]
        rates = [group["lr"] for group in optimizer.param_groups]
        losses = vmap(functional_loss(self.model, self.loss), randomness="different")
        with torch.random.fork_rng():
            self.model.train()
            for epoch in range(recipe.epochs):
                torch.manual_seed(epoch_seed(recipe.seed, epoch))
                order = torch.randperm(positions.shape[1], device="cpu")
                batches = positions[:, order].split(recipe.batch_size, dim=1)
                for number, batch in enumerate(batches):
                    set_rates(optimizer, rates, recipe, epoch + number / len(batches))
                    optimizer.zero_grad()
                    found = losses(self.parameters, select_rows(rows.batch, batch))
                    found.mean(dim=1).sum().backward()
                    optimizer.step()
                _refuse_divergence(found.detach(), recipe.seed, epoch)

    @torch.no_grad()
    def losses(self, queries: Rows) -> Tensor:
        """Losses ``float32 [model, query]`` of all models, in nats."""
        every = vmap(functional_loss(self.model, self.loss), in_dims=(0, None))
        with evaluating(self.model):
            parts = []
            for start in range(0, len(queries), QUERIES_PER_BLOCK):
                block = select_rows(queries.batch, slice(start, start + QUERIES_PER_BLOCK))
                found = every(self.parameters, block)
                per_example(found[0], count_rows(block))
                parts.append(found.float())
        return torch.cat(parts, dim=1)


def _refuse_state(model: nn.Module) -> None:
    if is_converted(model):
        raise ConversionError(
            "This model has turn-over layers, whose masks would have to change from model to model "
            "in the stack. The truth is about the network without them: build that."
        )
    for name, module in model.named_modules():
        if getattr(module, "track_running_stats", False):
            raise ConversionError(
                f"{name} ({type(module).__name__}) keeps statistics of batches, which cannot be "
                "stacked. Use GroupNorm or LayerNorm, or retrain(..., at_once=1)."
            )


def _refuse_divergence(losses: Tensor, seed: int, epoch: int) -> None:
    if not (fine := torch.isfinite(losses).all(dim=1)).all():
        raise LossError(
            f"{int((~fine).sum())} of {len(fine)} trainings with seed {seed} diverged in epoch "
            f"{epoch + 1}; the first is number {int(torch.nonzero(~fine)[0])} of its stack. Lower "
            "the learning rate."
        )
