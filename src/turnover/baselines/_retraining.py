"""Re-training: train again without some instances, and see what the model says then.

    truth[s, e, q] = L(θ(S_s, seed e), q),        leave-one-out(q, z) = L(θ(D − z), q) − L(θ(D), q)

Many small models are trained at once. Every finished part is a file, so that an interrupted farm
goes on, and one with more seeds begins where the last ended. Under ``torchrun`` the parts are dealt
out over the ranks: trainings need no communication, only a folder that all ranks see.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import Batch, Loss, contents_of
from turnover.baselines._truth import Truth
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.executors import Task, opened, refuse_crowded, refuse_unseen, run_tasks
from turnover.scores import Scores
from turnover.training import (
    Recipe,
    Stack,
    bytes_of_training,
    describe_recipe,
    fit,
    losses_of,
)

__all__ = ["LeaveOneOut", "Retraining", "half_subsets"]

Build = Callable[[int], nn.Module]
Progress = Callable[[int, int], None]
WAIT_SECONDS = 1.0


def half_subsets(
    train: int,
    subsets: int,
    fraction: float = 0.5,
    seed: int = 0,
    *,
    complements: bool = False,
) -> Tensor:
    """Random subsets ``bool [subset, train]``, each of ``round(fraction · train)`` instances.

    Args:
        train: number of instances.
        subsets: number of subsets.
        fraction: of the instances in each.
        seed: of the draw.
        complements: let the complements of all follow, so that twice as many are returned
            (:func:`turnover.evaluation.additivity`).

    Raises:
        DataError: for a fraction that leaves a subset empty or whole.

    >>> half_subsets(10, subsets=3).sum(dim=1)
    tensor([5, 5, 5])
    """
    size = round(fraction * train)
    if not 0 < size < train:
        raise DataError(
            f"Subsets of {size} of {train} instances tell nothing about single ones: choose a "
            "fraction between 0 and 1."
        )
    generator = torch.Generator("cpu").manual_seed(seed)
    keys = torch.rand(subsets, train, generator=generator, device="cpu")
    members = torch.zeros(subsets, train, dtype=torch.bool)
    members.scatter_(1, keys.argsort(dim=1)[:, :size], value=True)
    return torch.cat([members, ~members]) if complements else members


@final
@dataclass(frozen=True)
class Retraining:
    """A farm of trainings on subsets of one training set.

    Attributes:
        build: from a seed to an untrained model without turn-over layers.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: training with seed e takes ``build(e)`` and the order of ``recipe.seed = e``.
        at_once: models in one stack; 1 trains each by itself, as models with BatchNorm need.
        folder: keeps every finished part; required under ``torchrun``.
        executor: trains elsewhere, a stack in each task; see :mod:`turnover.executors`.
    """

    build: Build
    loss: Loss
    recipe: Recipe
    at_once: int = 25
    folder: Path | None = None
    executor: Executor | str | None = None

    def truth(
        self,
        rows: Rows,
        queries: Rows,
        members: Tensor,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> Truth:
        """Losses of the queries after training on each subset with each seed.

        Args:
            rows: the whole training set.
            queries: what is asked after each training.
            members: ``bool [subset, train]``, such as :func:`half_subsets`.
            seeds: several, so that the truth can tell how reliable it is.
            progress: called with the number of finished and of all trainings.

        Raises:
            DataError: for members of another number of instances, or an empty subset.
            LossError: when a training diverges; finished parts are kept.
            RunError: for a folder of other work.
        """
        losses = self._all_losses(rows, queries, members, list(seeds), progress)
        about = {"seeds": list(seeds), **describe_recipe(self.recipe)}
        return Truth(members, losses, rows.ids, queries.ids, about)

    def _all_losses(
        self,
        rows: Rows,
        queries: Rows,
        members: Tensor,
        seeds: list[int],
        progress: Progress | None = None,
    ) -> Tensor:
        _refuse_bad(members, len(rows))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        losses = torch.empty(len(members), len(seeds), len(queries))
        work = self._work(rows, queries, members)
        done = 0
        mine = self._mine(members, seeds)

        def keep(number: int, part: Tensor) -> None:
            nonlocal done
            seed, subsets = mine[number]
            losses[subsets, seeds.index(seed)] = part
            done += len(subsets)
            if progress is not None:
                progress(done, len(members) * len(seeds))

        folder = None if self.folder is None else self.folder.resolve()
        farm = partial(replace(self, executor=None, folder=folder)._part, rows, queries, members)
        tasks = [Task(_named(seed, subsets), (seed, subsets, work)) for seed, subsets in mine]
        with opened(self.executor) as engine:
            if engine is not None:
                each = bytes_of_training(self.build(0), rows, self.loss, self.recipe)
                refuse_crowded(engine, min(self.at_once, len(members)) * each)
            run_tasks(farm, tasks, engine, keep)
        for seed, subsets in self._theirs(members, seeds):
            losses[subsets, seeds.index(seed)] = self._awaited(seed, subsets, work)
        return losses

    def _jobs(self, members: Tensor, seeds: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """(seed, subsets) of each stack: subsets of one size, so that their batches are alike."""
        for seed in seeds:
            sizes = members.sum(dim=1)
            for size in sizes.unique():
                alike = torch.nonzero(sizes == size).flatten()
                for subsets in alike.split(self.at_once):
                    yield seed, subsets

    def _mine(self, members: Tensor, seeds: Sequence[int]) -> list[tuple[int, Tensor]]:
        rank, world = _rank()
        return list(self._jobs(members, seeds))[rank::world]

    def _theirs(self, members: Tensor, seeds: Sequence[int]) -> list[tuple[int, Tensor]]:
        rank, world = _rank()
        if world > 1 and self.folder is None:
            raise RunError("Several ranks share their trainings through a folder: set folder.")
        jobs = list(self._jobs(members, seeds))
        return [job for number, job in enumerate(jobs) if number % world != rank]

    def _part(
        self, rows: Rows, queries: Rows, members: Tensor, seed: int, subsets: Tensor, work: str
    ) -> Tensor:
        refuse_unseen(self.folder)
        path = self._path(seed, subsets)
        if path is not None and path.exists():
            return _store.load(path, work)["losses"]
        losses = self._train(rows, queries, members[subsets], seed)
        if path is not None:
            _store.save(path, {"losses": losses}, work)
        return losses

    def _train(self, rows: Rows, queries: Rows, members: Tensor, seed: int) -> Tensor:
        recipe = replace(self.recipe, seed=seed)
        if self.at_once == 1:
            model = self.build(seed)
            fit(model, rows.select(torch.nonzero(members[0]).flatten()), self.loss, recipe)
            return losses_of(model, self.loss, queries).unsqueeze(0)
        stack = Stack([self.build(seed) for _ in members], self.loss)
        positions = torch.stack([torch.nonzero(row).flatten() for row in members])
        stack.fit(rows, positions, recipe)
        return stack.losses(queries)

    def _path(self, seed: int, subsets: Tensor) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"seed-{seed}-subset-{int(subsets[0])}-{len(subsets)}.safetensors"

    def _awaited(self, seed: int, subsets: Tensor, work: str) -> Tensor:
        """The losses of a part that another rank trains."""
        path = self._path(seed, subsets)
        assert path is not None
        while not path.exists():
            time.sleep(WAIT_SECONDS)
        return _store.load(path, work)["losses"]

    def _work(self, rows: Rows, queries: Rows, members: Tensor) -> str:
        """What a part must agree on."""
        contents = [*contents_of(rows.batch), *contents_of(queries.batch)]
        weights = [p.detach() for p in self.build(0).parameters()]
        return _store.fingerprint(
            describe_recipe(self.recipe), rows.ids, queries.ids, members, *contents, *weights
        )


@final
@dataclass(frozen=True)
class LeaveOneOut(PairwiseEstimator):
    """The definition itself: train once without each instance, and once with all.

        I(q, z) = mean over seeds of L(θ(D − z), q) − L(θ(D), q)

    The only estimator whose cost is as many trainings as instances; one seed of a deep network is
    mostly the noise of its training.

    Attributes:
        farm: how to train.
        seeds: trainings that differ in nothing but the instance share their seed.
    """

    farm: Retraining
    seeds: Sequence[int] = (0,)

    def scores(self, queries: Batch | Rows, rows: Rows, progress: Progress | None = None) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped, with ``stderr`` over seeds.

        Raises:
            LossError, RunError: as :meth:`Retraining.truth`.
        """
        queries, rows = as_rows(queries), as_rows(rows)
        whole = torch.ones(1, len(rows), dtype=torch.bool)
        members = torch.cat([~torch.eye(len(rows), dtype=torch.bool), whole])
        losses = self.farm._all_losses(rows, queries, members, list(self.seeds), progress)
        each = (losses[:-1] - losses[-1:]).permute(1, 2, 0)
        stderr = each.std(dim=0) / len(each) ** 0.5 if len(each) > 1 else None
        about = {"estimator": "leave-one-out", "seeds": list(self.seeds)}
        return Scores(each.mean(dim=0), rows.ids, queries.ids, about=about, stderr=stderr)


def _named(seed: int, subsets: Tensor) -> str:
    """Which trainings, as the classifier of a sentence."""
    first, last = int(subsets[0]), int(subsets[-1])
    which = f"subset {first}" if first == last else f"subsets {first} to {last}"
    return f"Training with seed {seed} on {which}"


def _rank() -> tuple[int, int]:
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _refuse_bad(members: Tensor, train: int) -> None:
    if members.dtype != torch.bool or members.dim() != 2 or members.shape[1] != train:
        raise DataError(
            f"members is a {members.dtype} tensor of shape {list(members.shape)}, but must be "
            f"torch.bool [subset, {train}]: who of the {train} training rows is in which subset."
        )
    if (empty := members.sum(dim=1) == 0).any():
        raise DataError(f"Subset {int(torch.nonzero(empty)[0])} is empty: nothing to train on.")
