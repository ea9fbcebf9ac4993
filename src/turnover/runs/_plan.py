"""What a command would train and store, told before it runs, from a probe that is measured."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch
from torch import nn

from turnover._memory import sized
from turnover._rows import Loss, tensors_of
from turnover.data import Rows
from turnover.estimators import SHARD_ROWS, GradientKernel
from turnover.executors import opened, threads_of, with_threads, workers_of
from turnover.nn import SplitEnsemble
from turnover.proof import Retrainings, most_of
from turnover.runs._ask import kernel_forecast
from turnover.runs._classifier import ClassifierRun
from turnover.runs._cleanse import CleansingConfig, sweep_of
from turnover.runs._prove import CONTROLS
from turnover.training import Recipe, forecast_training, losses_of

__all__ = [
    "HEADER",
    "NUMBER",
    "Plan",
    "plan_answer",
    "plan_cleansing",
    "plan_index",
    "plan_proof",
    "plan_training",
    "replace_epochs",
]

HEADER = 300  # bytes of a small file beside its numbers
PROBED = 128  # rows whose losses are told to know how long that takes
NUMBER = 4
LOOKS = 2  # passes over the rows of an index to say how good the model is


@final
@dataclass(frozen=True)
class Plan:
    """What work will take; nothing of it was done.

    Attributes:
        what: the work, as a sentence.
        trainings: networks that are trained, at most.
        workers: how many of them at once.
        fewest: seconds of the work where it ends as early as it can.
        seconds: seconds of all of it.
        bytes: memory at most, of this machine, beside what is taken already.
        stored: bytes of the files that it leaves.
    """

    what: str
    trainings: int
    workers: int
    fewest: float
    seconds: float
    bytes: int
    stored: int

    def __str__(self) -> str:
        workers = f" on {self.workers} workers" if self.workers > 1 else ""
        least, most = (f"{max(1, seconds):,.0f}" for seconds in (self.fewest, self.seconds))
        time = f"about {most} s" if least == most else f"from about {least} to {most} s"
        return (
            f"{self.what} That takes {time}{workers}, {sized(self.bytes)} of memory, and "
            f"{sized(self.stored)} on the disk. Nothing was begun."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {"plan": str(self), **asdict(self)}


def plan_training(
    networks: Sequence[nn.Module],
    few: Rows,
    rows: tuple[int, int],
    loss: Loss,
    recipe: Recipe,
    executor: Executor | str | None = None,
    *,
    row_word: str = "row",
    before: float = 0.0,
) -> Plan:
    """Of the trainings of a run.

    Args:
        networks: the untrained networks; the first may be a split ensemble.
        few: some of the training rows, four batches of them or more where there are as many.
        rows: how many rows there are to train on, and of test.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: how they will be trained.
        executor: trains members of a split ensemble.
        row_word: what a row is called.
        before: seconds of what comes before, such as encoding.
    """
    with opened(executor) as engine:
        each = [forecast_training(network, few, loss, recipe, engine) for network in networks]
        workers = workers_of(engine)
    share = rows[0] / max(1, len(few))
    members = [len(n.members) if isinstance(n, SplitEnsemble) else 1 for n in networks]
    weights = sum(t.nbytes for network in networks for t in network.state_dict().values())
    row = sum(tensor.nbytes for tensor in tensors_of(few.batch)) / max(1, len(few))
    seconds = before + share * sum(forecast.seconds for forecast in each)
    at_once = min(workers, max(members)) if max(members) > 1 else 1
    return Plan(
        f"Training {sum(members)} networks on {rows[0]:,} {row_word}s, {recipe.epochs} epoch"
        f"{'' if recipe.epochs == 1 else 's'}.",
        sum(members),
        at_once,
        seconds,
        seconds,
        max(forecast.bytes for forecast in each),
        int(weights + row * sum(rows)),
    )


def plan_cleansing(
    classifier: ClassifierRun,
    aim: CleansingConfig,
    arms: int,
    executor: Executor | str | None = None,
) -> Plan:
    """Of the trainings of :func:`cleanse_run`, with so many kinds of totals.

    Raises:
        ConfigError: as :func:`opened`.
    """
    sweep = sweep_of(classifier, aim)
    trainings = sweep.trainings(arms)
    with opened(executor) as engine:
        workers = min(trainings, workers_of(engine))
        with nullcontext() if engine is None else with_threads(threads_of(engine)):
            network = classifier.build(0)
            each = forecast_training(network, classifier.train, classifier.loss, classifier.recipe)
    kept = 1 - (1 + arms) * sum(aim.fractions) / (1 + len(aim.fractions) * (1 + arms))
    seconds = kept * each.seconds * -(-trainings // workers)
    return Plan(
        f"Training {trainings} networks on {len(classifier.train):,} {classifier.row_word}s or "
        "fewer.",
        trainings,
        workers,
        seconds,
        seconds,
        workers * each.bytes,
        trainings * (HEADER + (NUMBER + 1) * len(aim.test)),
    )


def plan_proof(
    classifier: ClassifierRun,
    *,
    most: int | None = None,
    trainings: int = 8,
    controls: int | None = None,
    executor: Executor | str | None = None,
) -> Plan:
    """Of the kernel and the trainings of :func:`prove_run`.

    Args:
        classifier: whom to ask.
        most: the largest number of rows to remove.
        trainings: trainings of each set.
        controls: how many sets are compared with; None for the usual ones.
        executor: trains elsewhere.
    """
    train, test = classifier.train, classifier.test
    limit = most or most_of(len(train))
    if controls is None:
        controls = len(CONTROLS) - (classifier.scale is not None)
    sets = 1 + 2 * limit.bit_length() + controls
    with opened(executor) as engine:
        how = (classifier.build, classifier.loss, classifier.logits, classifier.recipe, train, test)
        farm = Retrainings(*how, range(trainings), executor=engine)
        each, workers = farm.seconds(), workers_of(engine)
    kernel = classifier.kernel().forecast(train)
    network = forecast_training(
        classifier.build(0), train, classifier.loss, replace_epochs(classifier.recipe)
    )
    answers = max(1, len(classifier.classes))
    return Plan(
        f"A kernel of {len(train):,} {classifier.row_word}s, and from {2 + controls} to {sets} "
        "sets "
        f"of {trainings} trainings without some of them.",
        sets * trainings,
        min(trainings, workers),
        kernel.seconds + (2 + controls) * each,
        kernel.seconds + sets * each,
        max(kernel.bytes, (trainings if farm.at_once else workers) * network.bytes),
        sets * (HEADER + NUMBER * trainings * len(test) * answers),
    )


def replace_epochs(recipe: Recipe) -> Recipe:
    """The recipe with one epoch at most, of which memory is told."""
    return replace(recipe, epochs=min(1, recipe.epochs))


def plan_index(
    kernel: GradientKernel,
    rows: Rows,
    tests: int,
    executor: Executor | str | None = None,
    *,
    row_word: str = "row",
    before: float = 0.0,
) -> Plan:
    """Of the index of a model that was there already.

    Args:
        kernel: of the model.
        rows: the training rows.
        tests: how many test rows there are.
        executor: makes parts of the index.
        row_word: what a row is called.
        before: seconds of what comes before, such as encoding.

    Raises:
        ConversionError, LossError, ScoreError: as :meth:`GradientKernel.fit`.
    """
    parts = -(-len(rows) // SHARD_ROWS)
    with opened(executor) as engine:
        workers = min(parts, workers_of(engine))
        with nullcontext() if engine is None else with_threads(threads_of(engine)):
            kernel.forecast(rows, stored=True)  # the first time, much is made ready
            expected, said = kernel.forecast(rows, stored=True), _losses_seconds(kernel, rows)
    shared = (expected.seconds - expected.alone + said) * -(-parts // workers) / parts
    seconds = before + shared + expected.alone + expected.leverage + LOOKS * said
    row = sum(tensor.nbytes for tensor in tensors_of(rows.batch)) / max(1, len(rows))
    return Plan(
        f"An index of {len(rows):,} {row_word}s. Nothing is trained.",
        0,
        workers,
        seconds,
        seconds,
        expected.bytes,
        int(expected.per_row * len(rows) + row * (len(rows) + tests)),
    )


def _losses_seconds(kernel: GradientKernel, rows: Rows) -> float:
    """About how long it takes to tell the loss of every row, from a few of them."""
    few = rows.select(slice(0, PROBED))
    start = time.perf_counter()
    losses_of(kernel.model, kernel.loss, few)
    return (time.perf_counter() - start) * len(rows) / len(few)


def plan_answer(classifier: ClassifierRun, estimator: str | None = None) -> Plan:
    """Of :func:`answer`, which trains nothing.

    Raises:
        ScoreError: as :func:`answer`.
    """
    expected = kernel_forecast(classifier, estimator)
    seconds, held = (0.0, 0) if expected is None else (expected.seconds, expected.bytes)
    threads = torch.get_num_threads()
    what = f"Scoring {len(classifier.train):,} {classifier.row_word}s with {threads} threads."
    return Plan(what, 0, 1, seconds, seconds, held, 0)
