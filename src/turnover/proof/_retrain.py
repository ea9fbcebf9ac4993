"""Training again without some rows, with several seeds; what was trained stays in a folder.

Seed s builds its own weights and sees the rows in an order of its own, the same in every set of
trainings, which pairs what happens without one set of rows with what happens without another.
Networks that can be stacked are trained at once, those of several sets too: one set is then one
file, else every training. Sets are padded to whole batches, so that the bits of one do not depend
on the sizes of those beside it.
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
from turnover._memory import refuse_more
from turnover._rows import Loss, select_rows, tensors_of, to_device_of
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.nn import evaluating
from turnover.training import (
    PADDING,
    Logits,
    Recipe,
    Stack,
    bytes_of_training,
    describe_recipe,
    fit,
    losses_of,
    stacks_well,
)

__all__ = ["Retrainings"]

ROWS_PER_BLOCK = 512
PROBED_LOSSES = 16
AT_ONCE = 64  # more networks in a stack gain nothing on two cores
PADDED = 2  # version of how stacked trainings are made of sets
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
        numbers: answers are predicted numbers, not classes.
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
    numbers: bool = False

    def without(self, removed: Tensor, tick: Tick = lambda trainings: None) -> Tensor:
        """Train without these rows.

        Args:
            removed: numbers of training rows, in any order.
            tick: called with the number of trainings just finished.

        Returns:
            Log-probabilities float32 ``[seed, asked, classes]`` in nats, or predicted numbers
            ``[seed, asked, 1]``.

        Raises:
            DataError: when no rows are left.
            LossError: when a training diverges; finished ones are kept.
            RunError: for a folder that cannot be written, or holds damaged files.
            ConfigError: when less memory is available than the trainings take.
        """
        return self.without_each([removed], tick)[0]

    def without_each(
        self, removed: Sequence[Tensor], tick: Tick = lambda trainings: None
    ) -> list[Tensor]:
        """The same for several sets of rows, whose networks are stacked together.

        Equal sets are trained once. Raises as :meth:`without`.
        """
        sets = [self._kept(rows) for rows in removed]
        groups = [list(self.seeds)] if self.at_once else [[seed] for seed in self.seeds]
        found: dict[tuple[bytes, int], Tensor] = {}
        missing: dict[int, list[tuple[Tensor, list[int]]]] = {}
        for kept in sets:
            for seeds in groups:
                if (key := _key(kept, seeds)) in found:
                    continue
                if (answers := self._finished(kept, seeds)) is not None:
                    found[key] = answers
                    tick(len(seeds))
                else:
                    size = self._padded(kept) if self.at_once else 0
                    missing.setdefault(size, []).append((kept, seeds))
                    found[key] = torch.empty(0)
        if missing:
            self._refuse_large(max(map(len, missing.values())))
        for work in missing.values():
            step = max(1, AT_ONCE // len(self.seeds)) if self.at_once else 1
            for start in range(0, len(work), step):
                part = work[start : start + step]
                for (kept, seeds), answers in zip(
                    part, self._trained(part, self.recipe), strict=True
                ):
                    self._keep(kept, seeds, answers)
                    found[_key(kept, seeds)] = answers
                tick(sum(len(seeds) for _, seeds in part))
        return [torch.cat([found[_key(kept, seeds)] for seeds in groups]) for kept in sets]

    def _refuse_large(self, sets: int) -> None:
        """Refuse trainings that do not fit into memory, before the first of them."""
        count = 1
        if self.at_once:
            count = len(self.seeds) * min(sets, max(1, AT_ONCE // len(self.seeds)))
        each = bytes_of_training(self.build(self.seeds[0]), self.train, self.loss, self.recipe)
        less = "fewer trainings, or stacked=False" if count > 1 else "a smaller network"
        networks = f"{count} networks again, at once," if count > 1 else "a network again"
        refuse_more(count * each, f"Training {networks}", f"Take {less}, or smaller batches.")

    def _kept(self, removed: Tensor) -> Tensor:
        kept = torch.ones(len(self.train), dtype=torch.bool)
        kept[removed] = False
        if not kept.any():
            raise DataError(f"Removing all {len(self.train)} rows leaves nothing to train on.")
        return kept

    def _padded(self, kept: Tensor) -> int:
        """Rows of a stacked training, padding included: whole batches."""
        batch = min(self.recipe.batch_size, len(self.train))
        return -(-int(kept.sum()) // batch) * batch

    def seconds(self) -> float:
        """About how long one set of trainings takes, from one epoch of it."""
        every = torch.ones(len(self.train), dtype=torch.bool)
        seeds = list(self.seeds) if self.at_once else list(self.seeds[:1])
        start = time.perf_counter()
        self._trained([(every, seeds)], replace(self.recipe, epochs=min(1, self.recipe.epochs)))
        passed = time.perf_counter() - start
        return passed * max(1, self.recipe.epochs) * len(self.seeds) / len(seeds)

    @cached_property
    def at_once(self) -> bool:
        """Whether all seeds are trained in one stack."""
        if self.stacked is not None:
            return self.stacked
        first = self.build(self.seeds[0])
        return len(self.seeds) > 1 and stacks_well(first) and _all_trained(first)

    def _finished(self, kept: Tensor, seeds: list[int]) -> Tensor | None:
        if self.folder is None or not (path := self._path(kept, seeds)).exists():
            return None
        return _store.load(path, self._work(kept, seeds))["answers"]

    def _keep(self, kept: Tensor, seeds: list[int], answers: Tensor) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {self.folder}: {error}") from error
        _store.save(self._path(kept, seeds), {"answers": answers}, self._work(kept, seeds))

    def _path(self, kept: Tensor, seeds: list[int]) -> Path:
        assert self.folder is not None
        return self.folder / f"training-{self._work(kept, seeds)}.safetensors"

    def _work(self, kept: Tensor, seeds: list[int]) -> str:
        return _store.fingerprint(self._common, seeds, kept)

    def _trained(
        self, work: Sequence[tuple[Tensor, list[int]]], recipe: Recipe
    ) -> tuple[Tensor, ...]:
        """Answers ``[seed, asked, classes]`` of each set of kept rows with its seeds."""
        jobs = [(torch.nonzero(kept).flatten(), seed) for kept, seeds in work for seed in seeds]
        models = [self.build(seed) for _, seed in jobs]
        if self.at_once:
            stack = Stack(models, self.loss)
            size = self._padded(work[0][0])
            stack.fit(
                self.train,
                torch.stack([_shuffled(rows, seed, size) for rows, seed in jobs]),
                recipe,
            )
            stack.unstack(models)
        else:
            for model, (rows, seed) in zip(models, jobs, strict=True):
                fit(model, self.train.select(rows), self.loss, replace(recipe, seed=seed))
        answers = torch.stack([self._answers(model) for model in models])
        return answers.split([len(seeds) for _, seeds in work])

    @torch.no_grad()
    def _answers(self, model: nn.Module) -> Tensor:
        """Log-probabilities ``[asked, classes]``, or numbers ``[asked, 1]``, on the CPU."""
        parts = []
        with evaluating(model):
            for start in range(0, len(self.asked), ROWS_PER_BLOCK):
                block = select_rows(self.asked.batch, slice(start, start + ROWS_PER_BLOCK))
                said = self.logits(model, to_device_of(model, block)).float()
                parts.append(self._as_numbers(said) if self.numbers else _classes(said))
        return torch.cat(parts)

    def _as_numbers(self, said: Tensor) -> Tensor:
        if said.numel() != said.shape[0]:
            raise DataError(
                f"by= asks for another predicted number, but the model answers {list(said.shape)}: "
                "more than one for each row. Of classes, ask for another one: wanted=."
            )
        return said.reshape(-1, 1).cpu()

    @cached_property
    def _common(self) -> str:
        """What all trainings share: data, architecture, loss, recipe, and how they are trained."""
        model = self.build(self.seeds[0])
        few = self.train.select(slice(0, PROBED_LOSSES))
        return _store.fingerprint(
            [
                describe_recipe(self.recipe),
                self.recipe.seed,
                self.at_once,
                PADDED,
                self.numbers,
                str(model),
            ],
            losses_of(model, self.loss, few),
            *(tensor.detach() for tensor in (*model.parameters(), *model.buffers())),
            *(_contents(rows) for rows in (self.train, self.asked)),
        )


def _classes(said: Tensor) -> Tensor:
    if said.dim() != 2 or said.shape[1] < 2:
        raise DataError(
            f"The model answers {list(said.shape)}, which is no logit for each of several classes. "
            "Of a regression, say by how much its prediction is to change: by=."
        )
    return torch.log_softmax(said, dim=1).cpu()


def _key(kept: Tensor, seeds: list[int]) -> tuple[bytes, int]:
    return kept.numpy().tobytes(), seeds[0]


def _shuffled(rows: Tensor, seed: int, size: int) -> Tensor:
    """The rows in an order of the seed's own, ``int64 [size]``, padded."""
    generator = torch.Generator("cpu").manual_seed(seed)
    order = rows[torch.randperm(len(rows), generator=generator)]
    return torch.cat([order, order.new_full((size - len(rows),), PADDING)])


def _all_trained(model: nn.Module) -> bool:
    """Whether nothing but trained parameters tells one network from another in a stack."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return not frozen and not list(model.buffers())


def _contents(rows: Rows) -> list[str]:
    """A fingerprint of the rows, whatever the order in which their tensors were read."""
    return sorted(_store.fingerprint(tensor) for tensor in (rows.ids, *tensors_of(rows.batch)))
