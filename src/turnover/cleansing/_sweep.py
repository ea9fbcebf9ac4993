"""Remove the most harmful instances, train again, and compare with removing any or none.

For every seed s the same initial weights are trained on

    none      the whole training set
    random    the training set without k instances drawn at random
    (a name)  the training set without the k instances of the lowest total of that name

without turn-over dropout, and every training is asked about the same test rows. Finished trainings
are files, so that an interrupted sweep goes on.

Reference: Kobayashi et al. 2020, section 4.3 and Table 2 (there one fraction, 1 %, and 4 seeds).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import Loss, blocks_of, contents_of
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.executors import Task, opened, refuse_crowded, refuse_unseen, run_tasks
from turnover.training import Recipe, bytes_of_training, fit

__all__ = ["NONE", "RANDOM", "Outcome", "Sweep", "most_harmful"]

NONE, RANDOM = "none", "random"
Progress = Callable[[int, int], None]


def most_harmful(totals: Tensor, fraction: float) -> Tensor:
    """Rows of the lowest totals, ``int64 [removed]``, the most harmful first; at least one.

    Raises:
        DataError: for a fraction outside (0, 1), or one that leaves no rows.
    """
    count = max(1, round(fraction * len(totals)))
    if not 0 < fraction < 1 or count >= len(totals):
        raise DataError(
            f"Cannot remove a fraction {fraction:g} of {len(totals)} training rows; it lies "
            "between 0 and 1 and leaves something to train on."
        )
    return torch.argsort(totals, stable=True)[:count]


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """What the test rows say after the trainings.

    Attributes:
        losses: by (arm, fraction) the losses ``[seed, test row]`` in nats.
        right: the same for whether the label was the most probable, bool ``[seed, test row]``.
        removed: by fraction the number of instances that were removed.
    """

    losses: Mapping[tuple[str, float], Tensor]
    right: Mapping[tuple[str, float], Tensor]
    removed: Mapping[float, int]


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """A plan of re-trainings.

    Attributes:
        build: from a seed to an untrained model without turn-over layers.
        loss: (model, batch) → per-example losses in nats.
        recipe: how to train; its seed is replaced.
        train: the whole training set.
        test: what is asked; other rows than those that the totals were summed over.
        probabilities: (model, rows) → class probabilities ``[rows, classes]``.
        fractions: shares of the training set to remove.
        seeds: of weights, order and random removal.
        folder: keeps finished trainings.
        executor: trains elsewhere; see :mod:`turnover.executors`.
    """

    build: Callable[[int], nn.Module]
    loss: Loss
    recipe: Recipe
    train: Rows
    test: Rows
    probabilities: Callable[[nn.Module, Rows], Tensor]
    fractions: Sequence[float]
    seeds: Sequence[int]
    folder: Path | None = None
    executor: Executor | str | None = None

    def trainings(self, arms: int) -> int:
        """How many trainings a sweep with so many kinds of totals takes."""
        return len(self.seeds) * (1 + len(self.fractions) * (1 + arms))

    def run(self, totals: Mapping[str, Tensor], progress: Progress | None = None) -> Outcome:
        """Train everything.

        Args:
            totals: by the name of an arm ``[train]``, positive = helped; such as
                :func:`first_order_totals`.
            progress: called with the number of finished and of all trainings.

        Raises:
            DataError: for a fraction that cannot be removed, or an arm called none or random.
            LossError: when a training diverges; finished ones are kept.
            RunError: for a folder that cannot be written, or holds damaged files.
        """
        if taken := {NONE, RANDOM} & set(totals):
            raise DataError(f"An arm of the sweep cannot be called {min(taken)!r}: one is already.")
        done, all_of_them = count(1), self.trainings(len(totals))

        def tick(number: int, answer: object) -> None:
            if progress is not None:
                progress(next(done), all_of_them)

        cells = [
            (arm, fraction, gone, seed)
            for seed in self.seeds
            for arm, fraction, gone in self._removals(totals, seed)
        ]
        answers = self._all(cells, tick)
        found: dict[tuple[str, float], list[tuple[Tensor, Tensor]]] = {}
        for (arm, fraction, _, _), answer in zip(cells, answers, strict=True):
            found.setdefault((arm, fraction), []).append(answer)
        return Outcome(
            {cell: torch.stack([losses for losses, _ in each]) for cell, each in found.items()},
            {cell: torch.stack([right for _, right in each]) for cell, each in found.items()},
            {f: max(1, round(f * len(self.train))) for f in self.fractions},
        )

    def _all(
        self, cells: list[tuple[str, float, Tensor, int]], tick: Callable[[int, object], None]
    ) -> list[tuple[Tensor, Tensor]]:
        """What the test rows say after each training, on the engine or here."""
        if self.folder is not None:
            _make(self.folder)
        folder = None if self.folder is None else self.folder.resolve()
        alone = replace(self, executor=None, folder=folder)
        tasks = [
            Task(f"Training with seed {seed} without {len(gone):,} rows ({arm})", (gone, seed))
            for arm, _, gone, seed in cells
        ]
        with opened(self.executor) as engine:
            if engine is not None:
                model = self.build(self.seeds[0])
                refuse_crowded(engine, bytes_of_training(model, self.train, self.loss, self.recipe))
            return run_tasks(alone._trained, tasks, engine, tick)

    def _removals(
        self, totals: Mapping[str, Tensor], seed: int
    ) -> Iterator[tuple[str, float, Tensor]]:
        generator = torch.Generator("cpu").manual_seed(seed)
        chance = torch.rand(len(self.train), generator=generator)
        yield NONE, 0.0, torch.empty(0, dtype=torch.int64)
        for fraction in self.fractions:
            for arm, total in {RANDOM: chance, **totals}.items():
                yield arm, fraction, most_harmful(total, fraction)

    def _trained(self, gone: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Losses and right answers of the test rows after one training."""
        kept = torch.ones(len(self.train), dtype=torch.bool)
        kept[gone] = False
        path, work = None, ""
        if self.folder is not None:
            work = _store.fingerprint(self._common, seed, kept)
            path = self.folder / f"training-{work}.safetensors"
            refuse_unseen(self.folder)
            if path.exists():
                parts = _store.load(path, work)
                return parts["losses"], parts["right"]
        labels = torch.cat([block["label"].cpu() for block in blocks_of(self.test.batch)])
        model = self.build(seed)
        fit(model, self.train.select(kept), self.loss, replace(self.recipe, seed=seed))
        says = self.probabilities(model, self.test)
        own = says.gather(1, labels.unsqueeze(1)).squeeze(1)
        losses = -own.clamp(min=torch.finfo(own.dtype).tiny).log()
        right = says.argmax(dim=1) == labels
        if path is not None:
            _store.save(path, {"losses": losses, "right": right}, work)
        return losses, right

    @cached_property
    def _common(self) -> str:
        """What all trainings share: data, architecture, recipe."""
        model = self.build(0)
        optimizer = self.recipe.optimizer(list(model.parameters()))
        settings = {k: v for k, v in optimizer.defaults.items() if isinstance(v, int | float)}
        schedule = self.recipe.schedule
        return _store.fingerprint(
            [self.recipe.epochs, self.recipe.batch_size, type(optimizer).__name__, settings],
            [schedule(tenth / 10) for tenth in range(10)] if schedule else [],
            str(model),
            *(parameter.detach() for parameter in model.parameters()),
            *(_contents(rows) for rows in (self.train, self.test)),
        )


def _contents(rows: Rows) -> list[str]:
    """A fingerprint of the rows, whatever the order in which their tensors were read."""
    return sorted(_store.fingerprint(tensor) for tensor in (rows.ids, *contents_of(rows.batch)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the folder {folder}: {error}") from error
