"""Would a run's training set do better on a target without its most harmful rows?"""

import csv
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from turnover._plain import cell
from turnover._rows import Loss
from turnover._store import replacing
from turnover.cleansing import (
    Sweep,
    cells_of,
    conclude,
    first_order_totals,
    kernel_totals,
    loss_totals,
    most_harmful,
    two_pass_totals,
)
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.runs._classifier import ClassifierRun
from turnover.runs._verify import refuse_numbers
from turnover.runs.results import CleansingResults, HarmfulRow
from turnover.training import Logits, probabilities

__all__ = ["ARMS", "CleansingConfig", "cleanse_run", "cleansing_csv", "split", "sweep_of"]

Totals = Callable[[nn.Module, Loss, Rows, Rows], Tensor]
Progress = Callable[[str, int], None]
LISTED = 20
FOLDER = "cleanse"

ARMS: dict[str, Totals] = {
    "first-order": first_order_totals,
    "exact": two_pass_totals,
    "kernel": kernel_totals,
    "unseen-loss": loss_totals,
}
"""Estimators of totals (model, loss, target, train) by name."""


@final
@dataclass(frozen=True, eq=False)
class CleansingConfig:
    """What cleansing is for, and how much work goes into it.

    Attributes:
        target: rows that the totals are summed over.
        test: other rows of the same kind, on which every training is tested.
        fractions: shares of the training set to remove.
        seeds: how many trainings of each cell.
    """

    target: Rows
    test: Rows
    fractions: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1)
    seeds: int = 10


def split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Two random halves of a target set: one to sum scores over, one to test on.

    Raises:
        DataError: for fewer than four rows.
    """
    if len(rows) < 4:
        raise DataError(f"A target of {len(rows)} rows cannot be split; give at least four.")
    order = torch.randperm(len(rows), generator=torch.Generator("cpu").manual_seed(seed))
    half = len(rows) // 2
    return rows.select(order[:half].sort()[0]), rows.select(order[half:].sort()[0])


def cleanse_run(
    classifier: ClassifierRun,
    aim: CleansingConfig,
    totals: Mapping[str, Tensor],
    progress: Progress = lambda what, steps: None,
    *,
    executor: Executor | str | None = None,
) -> CleansingResults:
    """Remove, train again and compare.

    Args:
        classifier: the run whose training set is cleansed.
        aim: for what.
        totals: by name ``[train]``, positive = helped the target; such as those of ``ARMS``.
        progress: called with what is going on and the number of trainings just finished.
        executor: trains elsewhere; see :mod:`turnover.executors`.

    Raises:
        DataError: for a fraction that cannot be removed, or fewer than two seeds or test rows.
        LossError: when a training diverges; finished ones are kept.
        MissingExtra: when SciPy is not installed.
    """
    refuse_numbers(classifier.run)
    for fraction in aim.fractions:
        most_harmful(torch.zeros(len(classifier.train)), fraction)
    if aim.seeds < 2:
        raise DataError("One seed has no spread, so that nothing can be tested; use at least two.")
    sweep = sweep_of(classifier, aim, executor)
    cells = cells_of(sweep.run(totals, lambda done, whole: progress("Training again", 1)))
    first = next(iter(totals))
    return CleansingResults(
        row_word=classifier.row_word,
        train=len(classifier.train),
        target=len(aim.target),
        test=len(aim.test),
        seeds=aim.seeds,
        trainings=sweep.trainings(len(totals)),
        arms=tuple(totals),
        conclusion=conclude(cells),
        cells=tuple(cells),
        harmful=tuple(
            HarmfulRow(**_row(classifier, row, {"total": totals[first]}))
            for row in torch.argsort(totals[first], stable=True)[:LISTED].tolist()
        ),
    )


def sweep_of(
    classifier: ClassifierRun, aim: CleansingConfig, executor: Executor | str | None = None
) -> Sweep:
    """The re-trainings of a run for an aim."""
    sent = classifier.to_send()
    return Sweep(
        sent.build,
        sent.loss,
        classifier.recipe,
        classifier.train,
        aim.test,
        partial(_probabilities, sent.logits),
        aim.fractions,
        range(aim.seeds),
        classifier.run.folder / FOLDER,
        executor,
    )


def _probabilities(logits: Logits, model: nn.Module, rows: Rows) -> Tensor:
    return probabilities(model, logits, rows)


def cleansing_csv(
    classifier: ClassifierRun, totals: Mapping[str, Tensor], path: str | Path
) -> None:
    """Write every training row with its totals, those most harmful to the target first.

    Raises:
        RunError: when the file cannot be written.
    """
    first = next(iter(totals.values()))
    try:
        with replacing(path) as fresh, open(fresh, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(_row(classifier, 0, totals)))
            writer.writeheader()
            for row in torch.argsort(first, stable=True).tolist():
                found = _row(classifier, row, totals)
                writer.writerow({name: cell(value) for name, value in found.items()})
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}") from error


def _row(classifier: ClassifierRun, row: int, totals: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "id": int(classifier.train.ids[row]),
        **classifier.show("train", row),
        "label": classifier.classes[int(classifier.train.batch["label"][row])],
        **{name: float(total[row]) for name, total in totals.items()},
    }
