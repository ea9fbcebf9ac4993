"""Training again without some rows, with several seeds; what was trained stays in a folder.

Seed s builds its own weights and sees the rows in an order of its own, the same in every set of
trainings. This pairs trainings without one set of rows with trainings without another. Networks
that can be stacked are trained at once, those of several sets too: one set is then one file, else
every training. Sets are padded to whole batches, so that the bits of one do not depend on the sizes
of those beside it.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._memory import refuse_more
from turnover._random import manual_seed
from turnover._rows import Batch, Loss, contents_of, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.executors import (
    Task,
    refuse_crowded,
    refuse_unseen,
    run_tasks,
    threads_of,
    with_threads,
    workers_of,
)
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
PROBED_LOSSES, PROBED_BLOCKS, STEP = 16, 16, 0.01
WARMING = 2  # batches of a training that is only timed
AT_ONCE = 64  # more networks in a stack gain nothing on two cores
PADDED = 2  # version of how stacked trainings are made of sets
Tick = Callable[[int], None]
Wanted = tuple[Tensor, list[int]]
"""Which rows are trained on, bool ``[train]``, and with which seeds."""


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
        executor: trains elsewhere; None in this process. Equal numbers of threads give equal bits.
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
    executor: Executor | None = None

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
        found: dict[tuple[bytes, int], Tensor] = {}
        missing: dict[int, list[Wanted]] = {}
        for kept in sets:
            seeds = [seed for seed in self.seeds if (kept.numpy().tobytes(), seed) not in found]
            left = []
            for seed, answers in self._finished(kept, seeds).items():
                found[kept.numpy().tobytes(), seed] = torch.empty(0) if answers is None else answers
                left += [seed] if answers is None else []
            if len(seeds) > len(left):
                tick(len(seeds) - len(left))
            if left:
                size = self._padded(kept) if self.at_once else 0
                missing.setdefault(size, []).append((kept, left))
        if missing:
            self._train(missing, found, tick)
        each = [[found[kept.numpy().tobytes(), seed] for seed in self.seeds] for kept in sets]
        return [torch.stack(answers) for answers in each]

    def _train(
        self,
        missing: dict[int, list[Wanted]],
        found: dict[tuple[bytes, int], Tensor],
        tick: Tick,
    ) -> None:
        """Fill in what was not found, in stacks that an engine trains side by side."""
        parts = [part for work in missing.values() for part in self._stacks(work)]
        self._refuse_large(max(sum(len(seeds) for _, seeds in part) for part in parts))
        self._make_folder()

        def keep(number: int, answers: list[Tensor]) -> None:
            for (kept, seeds), said in zip(parts[number], answers, strict=True):
                for seed, own in zip(seeds, said, strict=True):
                    found[kept.numpy().tobytes(), seed] = own
            tick(sum(len(seeds) for _, seeds in parts[number]))

        folder = None if self.folder is None else self.folder.resolve()
        alone = replace(self, executor=None, folder=folder)
        tasks = [Task(_named(part), (part,)) for part in parts]
        run_tasks(alone._trained_and_kept, tasks, self.executor, keep)

    def _stacks(self, work: list[Wanted]) -> list[list[Wanted]]:
        """Trainings that are stacked: many, or as many as leave none of the workers idle."""
        trainings = sum(len(seeds) for _, seeds in work)
        most = AT_ONCE if self.at_once and not self._draws else 1
        if self.at_once and self._draws:  # what a network draws depends on those beside it
            return [[part] for part in work]
        if self.executor is not None:
            most = min(most, -(-trainings // workers_of(self.executor)))
        pieces = [
            (kept, seeds[i : i + most]) for kept, seeds in work for i in range(0, len(seeds), most)
        ]
        stacks: list[list[Wanted]] = []
        for kept, seeds in pieces:
            if stacks and sum(len(s) for _, s in stacks[-1]) + len(seeds) <= most:
                stacks[-1].append((kept, seeds))
            else:
                stacks.append([(kept, seeds)])
        return stacks

    def _trained_and_kept(self, part: list[Wanted]) -> list[Tensor]:
        """Train a stack and leave its files, unless another driver was here meanwhile."""
        refuse_unseen(self.folder)
        ready = [self._finished(kept, seeds) for kept, seeds in part]
        if all(said is not None for each in ready for said in each.values()):
            return [torch.stack(list(each.values())) for each in ready]  # type: ignore[arg-type]
        answers = list(self._trained(part, self.recipe))
        for (kept, seeds), said in zip(part, answers, strict=True):
            self._keep(kept, seeds, said)
        return answers

    def _refuse_large(self, count: int) -> None:
        """Refuse trainings that do not fit into memory, before the first of them."""
        each = bytes_of_training(self.build(self.seeds[0]), self.train, self.loss, self.recipe)
        if self.executor is not None:
            refuse_crowded(self.executor, count * each)
            return
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
        """About how long one set of trainings takes, from an epoch on all rows and one on a few.

        What every training takes once (its network, its answers) is told apart from its epochs.
        """
        every = torch.ones(len(self.train), dtype=torch.bool)
        seeds = self._stacks([(every, list(self.seeds))])[0][0][1]
        few = torch.arange(len(every)) < WARMING * self.recipe.batch_size
        with nullcontext() if self.executor is None else with_threads(threads_of(self.executor)):
            self._epoch(few, seeds)  # the first time, much is made ready
            short, whole = self._epoch(few, seeds), self._epoch(every, seeds)
        more = int((~few).sum())
        epoch = max(0.0, whole - short) * len(every) / more if more else whole
        passed = max(0.0, whole - epoch) + self.recipe.epochs * epoch
        stacks = -(-len(self.seeds) // len(seeds))
        return passed * -(-stacks // workers_of(self.executor))

    def _epoch(self, kept: Tensor, seeds: list[int]) -> float:
        """Seconds of one epoch of a stack on these rows, and of what its networks answer."""
        start = time.perf_counter()
        self._trained([(kept, seeds)], replace(self.recipe, epochs=min(1, self.recipe.epochs)))
        return time.perf_counter() - start

    @cached_property
    def _draws(self) -> bool:
        """Whether training draws numbers, as ordinary dropout does: two passes then differ."""
        model = self.build(self.seeds[0]).train()
        few = select_rows(self.train.batch, slice(0, PROBED_LOSSES))
        with torch.random.fork_rng(), torch.no_grad():
            first, second = (_seeded_losses(model, self.loss, few, seed) for seed in (1, 2))
        return not torch.equal(first, second)

    @cached_property
    def at_once(self) -> bool:
        """Whether all seeds are trained in one stack."""
        if self.stacked is not None:
            return self.stacked
        first = self.build(self.seeds[0])
        return len(self.seeds) > 1 and stacks_well(first) and _all_trained(first)

    def _finished(self, kept: Tensor, seeds: Sequence[int]) -> dict[int, Tensor | None]:
        """What is known of each seed: one file holds all of a set, or a few of them."""
        found: dict[int, Tensor | None] = dict.fromkeys(seeds)
        if self.folder is None or not self.folder.is_dir() or not found:
            return found
        groups = [list(self.seeds)] if self.at_once else []
        groups += [[seed] for seed in seeds]
        for group in groups:
            if any(found.get(seed, self) is None for seed in group):
                path, work = self._path(kept, group), self._work(kept, group)
                if path.exists():
                    answers = _store.load(path, work)["answers"]
                    of_group = zip(group, answers, strict=True)
                    found.update({seed: own for seed, own in of_group if seed in found})
        return found

    def _make_folder(self) -> None:
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {self.folder}: {error}") from error

    def _keep(self, kept: Tensor, seeds: list[int], answers: Tensor) -> None:
        """One file for a whole set that was stacked; else one for each training."""
        if self.folder is None:
            return
        whole = self.at_once and seeds == list(self.seeds)
        for group, said in (
            [(seeds, answers)]
            if whole
            else zip(([seed] for seed in seeds), answers.split(1), strict=True)
        ):
            _store.save(self._path(kept, group), {"answers": said}, self._work(kept, group))

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
        """What all trainings share: data, architecture, loss, recipe, and how they are trained.

        Losses are known by what they say of rows all over the data, before training and after a
        step, since many agree on an output of zeros.
        """
        model, recipe = self.build(self.seeds[0]), [describe_recipe(self.recipe), self.recipe.seed]
        parts = [
            _store.fingerprint([*recipe, self.at_once, PADDED, self.numbers, str(model)]),
            *(_store.fingerprint(t.detach()) for t in (*model.parameters(), *model.buffers())),
            *(_contents(rows) for rows in (self.train, self.asked)),
            _store.fingerprint(*self._losses_of_some(model)),
        ]
        with torch.no_grad():
            for own in (p for p in model.parameters() if p.requires_grad):  # others may be shared
                step = torch.linspace(-STEP, STEP, own.numel(), device=own.device)
                own.add_(step.view_as(own).to(own.dtype))
        return _store.fingerprint(parts, *self._losses_of_some(model), self._answers(model))

    def _losses_of_some(self, model: nn.Module) -> list[Tensor]:
        """Losses of rows all over the data, in blocks that no memory changes."""
        count = min(len(self.train), PROBED_LOSSES * PROBED_BLOCKS)
        rows = torch.linspace(0, len(self.train) - 1, count).long().split(PROBED_LOSSES)
        return [losses_of(model, self.loss, self.train.select(block)) for block in rows]


def _classes(said: Tensor) -> Tensor:
    if said.dim() != 2 or said.shape[1] < 2:
        raise DataError(
            f"The model answers {list(said.shape)}, which is no logit for each of several classes. "
            "Of a regression, say by how much its prediction is to change: by=."
        )
    return torch.log_softmax(said, dim=1).cpu()


def _seeded_losses(model: nn.Module, loss: Loss, batch: Batch, seed: int) -> Tensor:
    manual_seed(seed)
    return loss(model, to_device_of(model, batch)).cpu()


def _named(part: Sequence[Wanted]) -> str:
    """Which trainings, as the classifier of a sentence."""
    each = [
        f"seed {', '.join(map(str, seeds))} without {int((~kept).sum()):,} rows"
        for kept, seeds in part[:3]
    ]
    more = "" if len(part) <= 3 else f" and {len(part) - 3} other sets"
    return f"Training with {'; '.join(each)}{more}"


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
    return sorted(_store.fingerprint(tensor) for tensor in (rows.ids, *contents_of(rows.batch)))
