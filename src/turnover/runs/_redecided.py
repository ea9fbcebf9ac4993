"""Is anything gained by the decisions? Train with them and without, with equal seeds."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from turnover import _store
from turnover._rows import tensors_of
from turnover.data import Rows
from turnover.errors import DataError
from turnover.executors import Task, opened, refuse_unseen, run_tasks
from turnover.runs._classifier import ClassifierRun
from turnover.runs._cleaned import Decided, decided_rows
from turnover.stats import Paired, compare_paired
from turnover.training import describe_recipe, fit, probabilities

__all__ = ["DecidedResults", "retrain_with_decisions"]

LEVEL = 0.05


@final
@dataclass(frozen=True)
class DecidedResults:
    """Accuracies on the test rows, trained on the data before and after the decisions.

    Attributes:
        train: number of training rows before.
        kept: number of training rows after.
        before: accuracy of every training on the data as they are, by seed.
        after: accuracy of every training after the decisions, by seed.
        gain: mean difference of accuracies, its 95 % interval, and p.
        row_word: what a row is called.
    """

    train: int
    kept: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    gain: Paired
    row_word: str

    @property
    def conclusion(self) -> str:
        """What follows, in one sentence."""
        gain, count = self.gain, len(self.before)
        points = f"{100 * gain.mean:+.2f}".replace("-", "−")
        told = (
            f"{points} points of accuracy over {count} seeds (95 % interval "
            f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}, p {gain.p:.2g})"
        ).replace("-", "−")
        if gain.p > LEVEL or gain.mean == 0:
            return f"No difference is shown: {told}."
        return f"The decisions {'help' if gain.mean > 0 else 'harm'}: {told}."

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "train": self.train,
            "kept": self.kept,
            "before": list(self.before),
            "after": list(self.after),
            "gain": self.gain.to_dict(),
            "conclusion": self.conclusion,
            "row_word": self.row_word,
        }


def retrain_with_decisions(
    classifier: ClassifierRun,
    decided: Decided,
    seeds: int = 5,
    progress: Callable[[int], None] = lambda done: None,
    *,
    executor: Executor | str | None = None,
) -> DecidedResults:
    """Train plain networks on the data before and after the decisions, and compare.

    The test rows stay the same. Finished trainings stay in the run folder.

    Args:
        classifier: the run.
        decided: the decision about each row, by id.
        seeds: trainings of each kind; at least two.
        progress: called with the number of finished trainings.
        executor: trains elsewhere; see :mod:`turnover.executors`.

    Raises:
        DataError: for fewer than two seeds, or decisions that change nothing or leave nothing.
        LossError: when a training diverges.
        RunError: for finished trainings that are damaged.
        MissingExtra: when SciPy is not installed.
    """
    if seeds < 2:
        raise DataError("One seed has no spread, so that nothing can be tested; use at least two.")
    if not any(made.action in ("relabel", "remove") for made in decided.values()):
        raise DataError("No decision changes the data: none relabels or removes a row.")
    after = decided_rows(classifier, decided)
    folder = classifier.run.folder.resolve() / "decided"
    folder.mkdir(exist_ok=True)
    again = _Again(classifier.to_send(), (classifier.train, after), classifier.test, folder)
    names = ("on the data as they are", "after the decisions")
    tasks = [
        Task(f"Training with seed {seed} {names[kind]}", (kind, seed))
        for kind in (0, 1)
        for seed in range(seeds)
    ]
    done: list[int] = []
    progress(0)

    def tick(number: int, answer: object) -> None:
        done.append(number)
        progress(len(done))

    with opened(executor) as engine:
        right = torch.stack(run_tasks(again.right, tasks, engine, tick))
    tables = right.split(seeds)
    shares = [tuple(table.float().mean(dim=1).tolist()) for table in tables]
    gain = compare_paired(tables[1].double(), tables[0].double())
    word = classifier.row_word
    return DecidedResults(len(classifier.train), len(after), shares[0], shares[1], gain, word)


@final
@dataclass(frozen=True, eq=False)
class _Again:
    """What the trainings have in common, without what a worker does not need."""

    classifier: ClassifierRun
    sides: tuple[Rows, Rows]
    test: Rows
    folder: Path

    def right(self, kind: int, seed: int) -> Tensor:
        """Which test rows a training on one of the two sides gets right, bool ``[test]``."""
        rows, test, classifier = self.sides[kind], self.test, self.classifier
        own = (rows.ids, *tensors_of(rows.batch), test.ids, *tensors_of(test.batch))
        recipe = describe_recipe(classifier.recipe)
        model = classifier.build(seed)
        work = _store.fingerprint(
            seed, recipe, str(model), *(p.detach() for p in model.parameters()), *own
        )
        refuse_unseen(self.folder)
        path = self.folder / f"training-{work}.safetensors"
        if path.exists():
            return _store.load(path, work)["right"]
        fit(model, rows, classifier.loss, replace(classifier.recipe, seed=seed))
        labels = test.batch["label"].cpu()
        right = probabilities(model, classifier.logits, test).argmax(dim=1) == labels
        _store.save(path, {"right": right}, work)
        return right
