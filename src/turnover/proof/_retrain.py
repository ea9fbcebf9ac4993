"""Training again without some rows, with several seeds; what was trained stays in a folder.

Seed s builds its own weights and sees the rows in an order of its own, the same in every set of
trainings, which pairs what happens without one set of rows with what happens without another.
Networks that can be stacked are trained all at once: one set is then one file, else every training.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import Loss, select_rows, tensors_of, to_device_of
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.nn import evaluating
from turnover.training import Logits, Recipe, Stack, describe_recipe, fit, losses_of, stacks_well

__all__ = ["Retrainings"]

ROWS_PER_BLOCK = 512
PROBED_LOSSES = 16
Tick = Callable[[int], None]


@final
@dataclass(frozen=True, eq=False)
class Retrainings:
    """Trainings from scratch, each without some rows.

    Attributes:
        build: from a seed to an untrained network without turn-over layers.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        logits: (model, batch) → ``[rows, classes]``.
        recipe: how to train; its seed is replaced.
        train: the whole training set.
        asked: the rows that every training answers.
        seeds: one training for each.
        folder: keeps answers of finished trainings; None keeps nothing.
        stacked: train all seeds at once; ``None`` does where that is sooner.
    """

    build: Callable[[int], nn.Module]
    loss: Loss
    logits: Logits
    recipe: Recipe
    train: Rows
    asked: Rows
    seeds: Sequence[int]
    folder: Path | None = None
    stacked: bool | None = None

    def without(self, removed: Tensor, tick: Tick = lambda trainings: None) -> Tensor:
        """Train without these rows.

        Args:
            removed: numbers of training rows, in any order.
            tick: called with the number of trainings just finished.

        Returns:
            Log-probabilities float32 ``[seed, asked, classes]`` in nats.

        Raises:
            DataError: when no rows are left.
            LossError: when a training diverges; finished ones are kept.
            RunError: for a folder that cannot be written, or holds damaged files.
        """
        kept = torch.ones(len(self.train), dtype=torch.bool)
        kept[removed] = False
        if not kept.any():
            raise DataError(f"Removing all {len(self.train)} rows leaves nothing to train on.")
        groups = [list(self.seeds)] if self.at_once else [[seed] for seed in self.seeds]
        parts = []
        for seeds in groups:
            parts.append(self._part(kept, seeds))
            tick(len(seeds))
        return torch.cat(parts)

    def seconds(self) -> float:
        """About how long one set of trainings takes, from one epoch of it."""
        every = torch.ones(len(self.train), dtype=torch.bool)
        seeds = list(self.seeds) if self.at_once else list(self.seeds[:1])
        start = time.perf_counter()
        self._trained(every, seeds, replace(self.recipe, epochs=min(1, self.recipe.epochs)))
        passed = time.perf_counter() - start
        return passed * max(1, self.recipe.epochs) * len(self.seeds) / len(seeds)

    @cached_property
    def at_once(self) -> bool:
        """Whether all seeds are trained in one stack."""
        if self.stacked is not None:
            return self.stacked
        first = self.build(self.seeds[0])
        return len(self.seeds) > 1 and stacks_well(first) and _all_trained(first)

    def _part(self, kept: Tensor, seeds: list[int]) -> Tensor:
        if self.folder is None:
            return self._trained(kept, seeds, self.recipe)
        work = _store.fingerprint(self._common, seeds, kept)
        path = self.folder / f"training-{work}.safetensors"
        if path.exists():
            return _store.load(path, work)["answers"]
        answers = self._trained(kept, seeds, self.recipe)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {path.parent}: {error}") from error
        _store.save(path, {"answers": answers}, work)
        return answers

    def _trained(self, kept: Tensor, seeds: list[int], recipe: Recipe) -> Tensor:
        rows = torch.nonzero(kept).flatten()
        models = [self.build(seed) for seed in seeds]
        if self.at_once:
            stack = Stack(models, self.loss)
            positions = torch.stack([_shuffled(rows, seed) for seed in seeds])
            stack.fit(self.train, positions, recipe)
            stack.unstack(models)
        else:
            for model, seed in zip(models, seeds, strict=True):
                fit(model, self.train.select(rows), self.loss, replace(recipe, seed=seed))
        return torch.stack([self._answers(model) for model in models])

    @torch.no_grad()
    def _answers(self, model: nn.Module) -> Tensor:
        """Log-probabilities ``[asked, classes]``, on the CPU."""
        parts = []
        with evaluating(model):
            for start in range(0, len(self.asked), ROWS_PER_BLOCK):
                block = select_rows(self.asked.batch, slice(start, start + ROWS_PER_BLOCK))
                said = self.logits(model, to_device_of(model, block)).float()
                parts.append(torch.log_softmax(said, dim=1).cpu())
        return torch.cat(parts)

    @cached_property
    def _common(self) -> str:
        """What all trainings share: data, architecture, loss, recipe, and how they are trained."""
        model = self.build(self.seeds[0])
        few = self.train.select(slice(0, PROBED_LOSSES))
        return _store.fingerprint(
            [describe_recipe(self.recipe), self.recipe.seed, self.at_once, str(model)],
            losses_of(model, self.loss, few),
            *(tensor.detach() for tensor in (*model.parameters(), *model.buffers())),
            *(_contents(rows) for rows in (self.train, self.asked)),
        )


def _shuffled(rows: Tensor, seed: int) -> Tensor:
    """The rows in an order of the seed's own."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return rows[torch.randperm(len(rows), generator=generator)]


def _all_trained(model: nn.Module) -> bool:
    """Whether nothing but trained parameters tells one network from another in a stack."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return not frozen and not list(model.buffers())


def _contents(rows: Rows) -> list[str]:
    """A fingerprint of the rows, whatever the order in which their tensors were read."""
    return sorted(_store.fingerprint(tensor) for tensor in (rows.ids, *tensors_of(rows.batch)))
