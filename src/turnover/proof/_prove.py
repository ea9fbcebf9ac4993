"""The search for the fewest rows, and the proof beside its controls."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import DataError
from turnover.proof._controls import first_of, leaves_every_class, random_rows, same_labels
from turnover.proof._proof import Proof, Verdict, answers_of, control_of
from turnover.proof._question import Question, labels_of
from turnover.proof._retrain import Retrainings
from turnover.proof._support import FittedEstimator, Support, support_of
from turnover.stats import mcnemar
from turnover.training import Logits, Recipe

__all__ = ["prove"]

Progress = Callable[[int, int], None]
FEWEST, SHARE = 10, 0.01
Choose = Callable[[Tensor, Tensor, int], Tensor]
CONTROLS: dict[str, Choose] = {
    "random": lambda removed, labels, seed: random_rows(labels, len(removed), seed),
    "same-label": same_labels,
}
"""Which rows to remove instead, from (removed, labels, seed), by name."""


def prove(
    estimator: FittedEstimator,
    query: Rows,
    train: Rows,
    *,
    build: Callable[[int], nn.Module],
    loss: Loss,
    logits: Logits,
    recipe: Recipe,
    said: int | None = None,
    wanted: int | None = None,
    until: float | None = None,
    most: int | None = None,
    share: float | None = None,
    trainings: int = 8,
    seed: int = 0,
    controls: Sequence[str] = tuple(CONTROLS),
    against: Mapping[str, Tensor] | None = None,
    label: str | int = "label",
    beside: Rows | None = None,
    folder: str | Path | None = None,
    stacked: bool | None = None,
    budget: float | None = None,
    forecast: Callable[[float], None] | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Find the fewest training rows whose removal changes what the model says, and train again.

    The number of rows is searched for, and the flips are counted, in trainings with the same
    seeds; where a number only just reaches the share, other seeds may fall short of it.

    Args:
        estimator: scores queries against ``train``, such as ``GradientKernel(...).fit(train)``.
            One with ``by_pair`` also tells the standard error of the predicted effect.
        query: one row, with its label where that is known.
        train: the whole training set.
        build: from a seed to an untrained network without turn-over layers.
        loss: (model, batch) → −log p(label) of every row ``[rows]``, in nats.
        logits: (model, batch) → ``[rows, classes]``.
        recipe: how to train; its seed is replaced.
        said: number of the class that the model says; by default what trainings on all rows say.
        wanted: number of the class that it is to say; by default the query's label, or the
            runner-up where that is what the model says.
        until: ask for a probability of ``said`` of at most this instead.
        most: the largest number of rows to remove; 1 % of them by default, and at least 10.
        share: share of the trainings that must flip; a majority by default.
        trainings: trainings of each set, with seeds that follow from ``seed``.
        seed: of the trainings and the random rows.
        controls: names of the controls: ``"random"`` rows, and random rows with the same labels,
            ``"same-label"``.
        against: further controls: by name, values ``[train]`` whose highest are removed.
        label: the label of a row, as a key of the batch or a place in it.
        beside: rows with the query among them that every training answers, so that later
            questions about them find finished trainings in the folder.
        folder: keeps finished trainings; an interrupted proof goes on, and ends with the same bits.
        stacked: train all seeds at once; by default where that is sooner.
        budget: seconds; the search ends early, and leaves the time of the controls.
        forecast: called before the trainings with the seconds that they may take.
        progress: called with the number of finished trainings, and the most there can be.

    Raises:
        DataError: for a query of several rows, classes that do not exist, rows whose removal would
            leave none of a class, or a budget below the time of the fewest trainings.
        IdError: when the query is not among the rows ``beside``.
        ScoreError: for scores that are not finite, or are about other rows.
        LossError: when a training diverges; finished ones are kept.
        RunError: for a folder that cannot be written, or holds damaged files.
    """
    _refuse_bad(query, trainings, most, controls)
    asked, place = (query, 0) if beside is None else (beside, int(beside.rows_of(query.ids)[0]))
    seeds = range(seed * trainings, (seed + 1) * trainings)
    where = None if folder is None else Path(folder)
    farm = Retrainings(build, loss, logits, recipe, train, asked, seeds, where, stacked)
    labels = labels_of(train, label)
    limit = most or min(len(train) - 1, max(FEWEST, round(SHARE * len(train))))
    others = len(controls) + len(against or {})
    clock = _Clock(farm, place, 1 + 2 * limit.bit_length() + others, progress)
    clock.begin(budget, forecast, others)
    before = clock.without(torch.empty(0, dtype=torch.int64))
    question = _question(before, said, wanted, until, labels_of(query, label))
    support = support_of(estimator, question, query, train, label)
    needed = trainings // 2 + 1 if share is None else max(1, math.ceil(share * trainings))
    search = _Search(question, support, clock, before, needed)
    allowed = _allowed(support, labels, limit, given=most is not None)
    verdict, removed = search.run(allowed, others)
    if removed is None:
        return search.told(verdict, query, train, limit)
    instead = {
        **{name: CONTROLS[name](removed, labels, seed) for name in controls},
        **{name: first_of(v, labels, len(removed)) for name, v in (against or {}).items()},
    }
    return search.told(verdict, query, train, limit, removed, instead)


@dataclass(eq=False)
class _Clock:
    """Sets of trainings about one query, their progress and their time."""

    farm: Retrainings
    place: int
    sets: int
    progress: Progress | None
    done: int = 0
    until: float = math.inf
    each: float = 0.0

    def begin(
        self, budget: float | None, forecast: Callable[[float], None] | None, controls: int
    ) -> None:
        if budget is None and forecast is None:
            return
        self.each = self.farm.seconds()
        if forecast is not None:
            forecast(self.each * self.sets)
        if budget is None:
            return
        if (least := self.each * (2 + controls)) > budget:
            raise DataError(
                f"A budget of {budget:g} seconds does not suffice: the fewest trainings of a "
                f"proof, {2 + controls} sets of {len(self.farm.seeds)}, take about {least:.0f} "
                "seconds. Allow more time, or fewer trainings."
            )
        self.until = time.monotonic() + budget

    def allows(self, sets: int) -> bool:
        """Whether so many more sets of trainings fit into the budget."""
        return time.monotonic() + sets * self.each <= self.until

    def without(self, removed: Tensor) -> Tensor:
        """Log-probabilities of the query ``[training, class]``."""
        return self.farm.without(removed, self._tick)[:, self.place]

    def _tick(self, trainings: int) -> None:
        self.done += trainings
        if self.progress is not None:
            self.progress(self.done, self.sets * len(self.farm.seeds))


@final
@dataclass(eq=False)
class _Search:
    question: Question
    support: Support
    clock: _Clock
    before: Tensor
    needed: int
    answers: dict[int, Tensor] = field(default_factory=dict)
    first: int = 0
    complete: bool = True

    def run(self, most: int, controls: int) -> tuple[Verdict, Tensor | None]:
        """The verdict, and the rows to remove: the fewest that flip, or as many as were tried."""
        if sum(self.question.flipped(self.before)) >= self.needed:
            return "already", None
        if not most:
            return "no support", None
        self.first = min(most, self.support.first_guess(self.question.distance(self.before)))
        fewest = self._fewest(most, controls)
        verdict: Verdict = "not flipped" if fewest is None else "flipped"
        return verdict, self.support.order[: fewest or max(self.answers)]

    def _fewest(self, most: int, controls: int) -> int | None:
        """The smallest number of rows that flips: from the first guess by doubling and halving."""
        low, high = 0, self.first
        while not self._flips(high):
            if high == most or not self._affordable(controls):
                return None
            low, high = high, min(most, 2 * high)
        while high - low > 1 and self._affordable(controls):
            middle = (low + high) // 2
            low, high = (low, middle) if self._flips(middle) else (middle, high)
        return high

    def _flips(self, count: int) -> bool:
        self.answers[count] = self.clock.without(self.support.order[:count])
        return sum(self.question.flipped(self.answers[count])) >= self.needed

    def _affordable(self, controls: int) -> bool:
        self.complete = self.clock.allows(1 + controls)
        return self.complete

    def told(
        self,
        verdict: Verdict,
        query: Rows,
        train: Rows,
        most: int,
        removed: Tensor | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> Proof:
        """The proof; as many other rows are removed by then."""
        common = (verdict, int(query.ids[0]), self.question)
        before = answers_of(self.question, self.before)
        if removed is None:
            return Proof(*common, (), len(train), most, self.needed, before)
        ours, last = self.answers[len(removed)], len(removed) - 1
        error = self.support.stderr
        return Proof(
            *common,
            tuple(train.ids[removed].tolist()),
            len(train),
            most,
            self.needed,
            before,
            after=answers_of(self.question, ours),
            p=mcnemar(self.question.flipped(ours), self.question.flipped(self.before)),
            controls={
                name: control_of(
                    self.question, train.ids[rows].tolist(), self.clock.without(rows), ours
                )
                for name, rows in (others or {}).items()
            },
            tried=tuple(
                (count, sum(self.question.flipped(answers)))
                for count, answers in self.answers.items()
            ),
            first_guess=self.first,
            predicted=float(self.support.effect[last]),
            stderr=None if error is None else float(error[last]),
            complete=self.complete,
        )


def _question(
    before: Tensor, said: int | None, wanted: int | None, until: float | None, label: Tensor
) -> Question:
    """Fill in what was not given, from trainings on all rows ``[training, class]``."""
    mean = before.double().exp().mean(dim=0)
    likely = torch.argsort(mean, descending=True, stable=True).tolist()
    said = likely[0] if said is None else said
    if wanted is None:
        own = int(label[0])
        runner_up = next(number for number in likely if number != said)
        wanted = own if own != said and 0 <= own < len(mean) else runner_up
    if not (0 <= said < len(mean) and 0 <= wanted < len(mean)):
        raise DataError(
            f"There are {len(mean)} classes, from 0 to {len(mean) - 1}; class "
            f"{said if not 0 <= said < len(mean) else wanted} is none of them."
        )
    return Question(said, wanted, until)


def _allowed(support: Support, labels: Tensor, limit: int, *, given: bool) -> int:
    """How many rows may be removed.

    Raises:
        DataError: when that would leave no row of a class.
    """
    most = min(limit, len(support.order))
    spared = leaves_every_class(support.order[:most], labels)
    if spared == most or (spared and not given):
        return spared
    row = int(support.order[spared])
    raise DataError(
        f"The first {spared + 1} rows that support this are all rows of class {int(labels[row])}. "
        "Without any, the model could not say that class of anything, which explains nothing. "
        + (f"Remove at most {spared}." if spared else "It has a single row: add others.")
    )


def _refuse_bad(query: Rows, trainings: int, most: int | None, controls: Sequence[str]) -> None:
    if unknown := sorted(set(controls) - set(CONTROLS)):
        raise DataError(f"There is no control {unknown[0]!r}; there are {', '.join(CONTROLS)}.")
    if len(query) != 1:
        raise DataError(f"A proof is about one query, but {len(query)} rows were given.")
    if trainings < 1 or (most is not None and most < 1):
        raise DataError(
            f"Cannot remove up to {most} rows in {trainings} trainings: both begin at 1."
        )
