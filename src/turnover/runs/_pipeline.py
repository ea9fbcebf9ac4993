"""The work that makes a run once its rows are there: audit, trainings, measurements."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import torch
from torch import nn

from turnover._rows import Loss
from turnover.data import BadRow, Rows
from turnover.executors import opened
from turnover.leaks import LeakReport
from turnover.nn import SplitEnsemble
from turnover.runs._check import batch_rows, check_leaks, sample_rows
from turnover.runs._classifier import ClassifierRun
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.runs._job import TrainingJob, train
from turnover.runs._measure import measure_run
from turnover.training import Curve, Recipe, forecast_training, refuse_large_training

__all__ = ["STEPS_BESIDES", "TrainingPipeline", "announce"]

Progress = Callable[[str, int], None]
MEASURED = 2000
FORECAST = 500  # rows; fewer are trained on before a forecast is read
STEPS_BESIDES = 3


def announce(pairs: int, train: int, row_word: str, *, control: bool) -> str:
    """What is about to be trained, and what it costs, in one sentence."""
    beside = ", and one without, to compare" if control else ""
    if not pairs:
        return f"training one network with masks on {train:,} {row_word}s{beside}."
    beside = ", and one on all of them, to compare" if control else ""
    return (
        f"training {2 * pairs} networks, each on its half of {train:,} {row_word}s{beside}. That "
        f"costs about {pairs + control} trainings; method='masks' costs {1 + control} and scores "
        "more coarsely."
    )


@final
@dataclass(frozen=True, eq=False)
class TrainingPipeline:
    """The networks of a run, and what is measured of them.

    Attributes:
        run: the run folder.
        train: training rows.
        test: rows that are not trained on.
        build: from whether it is the turn-over network (or its control) to the untrained network.
        loss: (model, batch) → per-example losses in nats.
        recipe: how they are trained.
        row_word: what a row is called.
        progress: called with what is going on and the number of steps just finished: one for each
            epoch, and ``STEPS_BESIDES``.
        executor: trains the members of a split ensemble; see :mod:`turnover.executors`.
    """

    run: Run
    train: Rows
    test: Rows
    build: Callable[[bool], nn.Module]
    loss: Loss
    recipe: Recipe
    row_word: str
    progress: Progress
    executor: Executor | str | None = None
    _curves: list[Curve] = field(default_factory=list, init=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False)

    def complete(
        self,
        classifier_of: Callable[[nn.Module], ClassifierRun],
        *,
        control: bool,
        bad: Iterable[BadRow],
        began: float,
        about: Callable[[nn.Module], Mapping[str, object]] = lambda model: {},
    ) -> Run:
        """Audit, train, ask and measure; the complete run.

        Args:
            classifier_of: from the trained turn-over network to the classifier.
            control: also train the same network with ordinary dropout alone.
            bad: rows that were left out.
            began: when the command began, by ``time.perf_counter``.
            about: from the trained network to what else the manifest says.

        Raises:
            LossError: when a training diverges.
            RunError: for files of the run that are damaged or cannot be written.
        """
        audit = self._audit()
        names = ["model", "control"] if control else ["model"]
        with opened(self.executor) as engine:
            models = {name: self._train(name, engine) for name in names}
        self.progress("Asking what stands behind each error", 1)
        classifier = classifier_of(models["model"])
        results = measure_run(classifier, models.get("control"), self._curves)
        self.run.save(
            replace(
                results,
                leak_check=audit,
                bad_rows=tuple(bad),
                cost={f"train_{name}_s": round(s, 2) for name, s in self._seconds.items()},
                seconds=round(time.perf_counter() - began, 2),
            )
        )
        self.progress("Done", 1)
        rows: Mapping[str, Rows] = {"train": self.train, "test": self.test}
        return self.run.finish(
            masks=describe_masks(models["model"]),
            data={name: fingerprint(found) for name, found in rows.items()},
            **about(models["model"]),
        )

    def _audit(self) -> LeakReport:
        """Real training steps on a few rows: does one reach its unseen half?"""
        self.progress(f"Proving that no {self.row_word} reaches its unseen half", 0)
        few = sample_rows(self.train, batch_rows(self.train, self.recipe))
        found = check_leaks(self.build(True), few, self.loss, self.recipe)
        self.progress("Training", 1)
        return found

    def _train(self, name: str, engine: Executor | None) -> nn.Module:
        began, is_model = time.perf_counter(), name == "model"
        model, measured = self.build(is_model), None
        if is_model:
            order = torch.randperm(len(self.train), generator=torch.Generator("cpu").manual_seed(0))
            measured = self.train.select(order[:MEASURED].sort()[0])
        if not (self.run.folder / f"{name}.safetensors").exists():
            if engine is None or not isinstance(model, SplitEnsemble):
                refuse_large_training(model, self.train, self.loss, self.recipe)
            if len(self.train) >= FORECAST:
                how = (self.build(is_model), self.train, self.loss, self.recipe)
                self.progress(f"training {name} takes {forecast_training(*how, engine)}.", 0)
        rows = (self.train, self.test, measured)
        course = TrainingJob(self.loss, self.recipe, *rows, engine)
        what = "Training" if is_model else "Training the control"
        points = train(self.run, name, model, course, partial(self.progress, what, 1))
        self._curves.extend(points)
        self._seconds[name] = time.perf_counter() - began
        return model
