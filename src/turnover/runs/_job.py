"""Train a network of a run, or go on where an interruption left it; with its learning curve."""

import math
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import final

from torch import nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import RunError
from turnover.executors import threads_of, with_threads
from turnover.nn import SplitEnsemble
from turnover.runs._folder import Run
from turnover.training import Curve, Recipe, fit, measure, stacks_well, train_split_ensemble

__all__ = ["TrainingJob", "cosine", "train"]


def cosine(progress: float) -> float:
    """Learning-rate factor that falls from 1 to 0 (Loshchilov, Hutter 2017)."""
    return (1 + math.cos(math.pi * progress)) / 2


@final
@dataclass(frozen=True, eq=False)
class TrainingJob:
    """What a network of a run learns, and by what its progress is measured.

    Attributes:
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: epochs, batch size, seed, optimizer.
        train: training rows.
        test: rows that are not trained on.
        measured: training rows that the learning curve looks at; None for no curve.
        executor: trains the members of a split ensemble; one network is trained here, with the
            threads of a task.
    """

    loss: Loss
    recipe: Recipe
    train: Rows
    test: Rows
    measured: Rows | None = None
    executor: Executor | None = None


def train(
    run: Run, name: str, model: nn.Module, course: TrainingJob, tick: Callable[[], None]
) -> list[Curve]:
    """Train ``model`` in place, or load what an earlier call of the same run finished.

    Split ensembles that are trained one after the other have a learning curve of one point, the
    end.

    Args:
        run: keeps a checkpoint after every epoch, and in the end ``<name>.safetensors``.
        name: of the network.
        model: untrained; of :class:`turnover.nn.SplitEnsemble` each is trained on its own half.
        course: what it learns.
        tick: called after every epoch.

    Returns:
        The learning curve; empty when ``course`` measures none.

    Raises:
        RunError: for files of the run that are damaged.
    """
    epochs = course.recipe.epochs
    curves = _Curves(run, name)
    checkpoint = run.folder / f"{name}.checkpoint.safetensors"
    if (run.folder / f"{name}.safetensors").exists():
        run.load_model(model, name)
        _forget(checkpoint)
        for _ in range(epochs):
            tick()
        return curves.points
    passes, calls = _passes(model, course.executor), count(1)

    def on_epoch(epoch: int) -> None:
        if passes == 1:
            look(epoch)
        if next(calls) % passes == 0:
            tick()

    def look(epoch: int) -> None:
        if course.measured is not None and (epoch <= 5 or epoch % 5 == 0 or epoch == epochs):
            curves.add(measure(model, course.loss, course.measured, course.test, epoch))

    how = (course.train, course.loss, course.recipe)
    if isinstance(model, SplitEnsemble):
        train_split_ensemble(
            model, *how, on_epoch=on_epoch, checkpoint=checkpoint, executor=course.executor
        )
    else:
        engine = course.executor
        with nullcontext() if engine is None else with_threads(threads_of(engine)):
            fit(model, *how, on_epoch=on_epoch, checkpoint=checkpoint)
    if passes > 1:
        look(epochs)
    run.save_model(model, name)
    _forget(checkpoint)
    return curves.points


def _forget(checkpoint: Path) -> None:
    """Remove the checkpoints of a training whose weights are there."""
    for left in checkpoint.parent.glob(f"{checkpoint.name}*"):
        left.unlink(missing_ok=True)


def _passes(model: nn.Module, executor: Executor | None) -> int:
    """How many trainings come one after the other: one, or one for each member."""
    if not isinstance(model, SplitEnsemble):
        return 1
    if executor is None and stacks_well(model.members[0]):
        return 1
    return len(model.members)


class _Curves:
    """The points so far, kept in the run folder from epoch to epoch."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, f"{name}.curves.json"
        self.points = self._read() if (run.folder / self.name).exists() else []

    def _read(self) -> list[Curve]:
        found = self.run.read_json(self.name)
        if isinstance(found, dict):  # a list before the files had checksums
            found = found.get("points")
        try:
            return [Curve(**point) for point in found]  # type: ignore[attr-defined]
        except TypeError as error:
            raise RunError(f"{self.run.folder / self.name} is damaged: {error}.") from error

    def add(self, point: Curve) -> None:
        self.points = [p for p in self.points if p.epoch < point.epoch] + [point]
        self.run.write_json(self.name, {"points": [asdict(p) for p in self.points]})
