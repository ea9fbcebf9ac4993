"""The search for the fewest rows, and the proof beside its controls."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import DataError
from turnover.executors import opened
from turnover.proof._change import Change, refuse_classes, unit_of
from turnover.proof._controls import first_of, leaves_every_class, random_rows, same_labels
from turnover.proof._proof import Proof
from turnover.proof._question import Question, labels_of
from turnover.proof._retrain import Retrainings
from turnover.proof._search import Search
from turnover.proof._support import FittedEstimator, Support, support_of
from turnover.training import Logits, Recipe

__all__ = ["most_of", "prove", "prove_all"]

Progress = Callable[[int, int], None]
FEWEST, SHARE = 10, 0.01
Choose = Callable[[Tensor, Tensor, int], Tensor]
CONTROLS: dict[str, Choose] = {
    "random": lambda removed, labels, seed: random_rows(labels, len(removed), seed),
    "same-label": same_labels,
}
"""Which rows to remove instead, from (removed, labels, seed), by name."""


def most_of(train: int) -> int:
    """How many of so many rows are removed at most, unless more are asked for."""
    return min(train - 1, max(FEWEST, round(SHARE * train)))


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
    by: float | None = None,
    most: int | None = None,
    share: float | None = None,
    trainings: int = 8,
    seed: int = 0,
    controls: Sequence[str] | None = None,
    against: Mapping[str, Tensor] | None = None,
    label: str | int = "label",
    beside: Rows | None = None,
    folder: str | Path | None = None,
    stacked: bool | None = None,
    budget: float | None = None,
    executor: Executor | str | None = None,
    forecast: Callable[[float, float], None] | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Find the fewest training rows whose removal changes what the model says, and train again.

    The number of rows is searched for, and the flips are counted, in trainings with the same seeds.
    Where a number only just reaches the share, other seeds may fall short of it.

    Args:
        estimator: scores queries against ``train``, such as ``GradientKernel(...).fit(train)``.
            One with ``by_pair`` also tells the standard error of the predicted effect.
        query: one row, with its label where that is known.
        train: the whole training set.
        build: from a seed to an untrained network without turn-over layers.
        loss: (model, batch) → −log p(label) of every row ``[rows]``, in nats.
        logits: (model, batch) → ``[rows, classes]``; of a regression, predictions ``[rows]``.
        recipe: how to train; its seed is replaced.
        said: number of the class that the model says; by default what trainings on all rows say.
        wanted: number of the class that it is to say; by default the query's label, or the
            runner-up where that is what the model says.
        until: ask for a probability of ``said`` of at most this instead.
        by: of a regression: ask for a prediction that differs by at least this, in units of the
            label; negative to fall. The loss must be squared, c (y − f)².
        most: the largest number of rows to remove; 1 % of them by default, and at least 10.
        share: share of the trainings that must flip; a majority by default.
        trainings: trainings of each set, with seeds that follow from ``seed``.
        seed: of the trainings and the random rows.
        controls: names of the controls: ``"random"`` rows, and random rows with the same labels,
            ``"same-label"``; by default both, and of a regression the first.
        against: further controls: by name, values ``[train]`` whose highest are removed.
        label: the label of a row, as a key of the batch or a place in it.
        beside: rows with the query among them that every training answers, so that later
            questions about them find finished trainings in the folder.
        folder: keeps finished trainings; an interrupted proof goes on, and ends with the same bits.
        stacked: train all seeds at once; by default where that is sooner.
        budget: seconds; the search ends early, and leaves the time of the controls.
        executor: trains elsewhere; see :mod:`turnover.executors`.
        forecast: called before the trainings with the least and the most seconds of them.
        progress: called with the number of finished trainings, and the most there can be.

    Raises:
        DataError: for a query of several rows, classes that do not exist, rows whose removal would
            leave none of a class, or a budget below the time of the fewest trainings.
        IdError: when the query is not among the rows ``beside``.
        ScoreError: for scores that are not finite, or are about other rows.
        LossError: when a training diverges; finished ones are kept.
        RunError: for a folder that cannot be written, or holds damaged files.
    """
    if len(query) != 1:
        raise DataError(f"A proof is about one query, but {len(query)} rows were given.")
    (proof,) = prove_all(
        estimator,
        query,
        train,
        said=None if said is None else [said],
        wanted=None if wanted is None else [wanted],
        against={name: values.unsqueeze(0) for name, values in (against or {}).items()},
        build=build,
        loss=loss,
        logits=logits,
        recipe=recipe,
        until=until,
        by=by,
        most=most,
        share=share,
        trainings=trainings,
        seed=seed,
        controls=controls,
        label=label,
        beside=beside,
        folder=folder,
        stacked=stacked,
        budget=budget,
        executor=executor,
        forecast=forecast,
        progress=progress,
    )
    return proof


def prove_all(
    estimator: FittedEstimator,
    queries: Rows,
    train: Rows,
    *,
    said: Sequence[int] | None = None,
    wanted: Sequence[int] | None = None,
    against: Mapping[str, Tensor] | None = None,
    executor: Executor | str | None = None,
    **how: Any,
) -> list[Proof]:
    """:func:`prove` for several queries side by side, each proof as it would be by itself.

    Queries share the trainings on all rows and the trainings without the same random rows. Their
    networks are trained in one stack, which takes about half the time.

    Args:
        estimator: scores queries against ``train``.
        queries: rows, with their labels where those are known.
        train: the whole training set.
        said: for each query, as of :func:`prove`.
        wanted: for each query, as of :func:`prove`.
        against: further controls: by name, values ``[query, train]``.
        executor: as of :func:`prove`.
        **how: the other arguments of :func:`prove`; ``budget`` is the time for all queries
            together.

    Raises:
        DataError, IdError, ScoreError, LossError, RunError: as :func:`prove`.
    """
    with opened(executor) as engine:
        asked = (estimator, queries, train, said, wanted, against or {})
        return _together(*asked, executor=engine, **how)


def _together(
    estimator: FittedEstimator,
    queries: Rows,
    train: Rows,
    said: Sequence[int] | None,
    wanted: Sequence[int] | None,
    against: Mapping[str, Tensor],
    *,
    executor: Executor | None,
    build: Callable[[int], nn.Module],
    loss: Loss,
    logits: Logits,
    recipe: Recipe,
    until: float | None = None,
    by: float | None = None,
    most: int | None = None,
    share: float | None = None,
    trainings: int = 8,
    seed: int = 0,
    controls: Sequence[str] | None = None,
    label: str | int = "label",
    beside: Rows | None = None,
    folder: str | Path | None = None,
    stacked: bool | None = None,
    budget: float | None = None,
    forecast: Callable[[float, float], None] | None = None,
    progress: Progress | None = None,
) -> list[Proof]:
    if controls is None:
        controls = tuple(CONTROLS) if by is None else ("random",)
    _refuse_bad(trainings, most, controls)
    if by is not None:
        refuse_classes(said, wanted, until, controls)
    _refuse_counts(said, wanted, len(queries))
    asked = queries if beside is None else beside
    places = asked.rows_of(queries.ids).tolist()
    seeds = range(seed * trainings, (seed + 1) * trainings)
    where = None if folder is None else Path(folder)
    how = (build, loss, logits, recipe, train, asked, seeds, where, stacked, by is not None)
    farm = Retrainings(*how, executor=executor)
    unit, labels = 1.0, torch.zeros(len(train), dtype=torch.int64)
    if by is None:
        labels = labels_of(train, label)
    else:
        unit = unit_of(build(seeds[0]), loss, logits, queries.select(slice(0, 1)), label)
    limit = most or most_of(len(train))
    others = len(controls) + len(against)
    clock = _Clock(farm, 1 + len(queries) * (2 * limit.bit_length() + others), progress)
    clock.begin(budget, forecast, 1 + len(queries) * (1 + others))
    (every,) = clock.without([torch.empty(0, dtype=torch.int64)])
    needed = trainings // 2 + 1 if share is None else max(1, math.ceil(share * trainings))

    def proof(number: int) -> Generator[list[Tensor], list[Tensor], Proof]:
        query, before = queries.select(slice(number, number + 1)), every[:, places[number]]
        question: Question | Change
        if by is not None:
            question = Change(by, float(before.double().mean()))
        else:
            ours, other = (None if given is None else given[number] for given in (said, wanted))
            question = _question(before, ours, other, until, labels_of(query, label))
        support = support_of(estimator, question, query, train, label, unit)
        search = Search(question, support, before, needed, clock.allows)
        allowed = _allowed(support, labels, limit, given=most is not None and by is None)
        verdict, removed = yield from search.run(allowed, others)
        if removed is None:
            return search.told(verdict, query, train, limit)
        values = {name: found[number] for name, found in against.items()}
        instead = _instead(removed, labels, seed, controls, values)
        answers = (yield list(instead.values())) if instead else []
        theirs = dict(zip(instead, zip(instead.values(), answers, strict=True), strict=True))
        return search.told(verdict, query, train, limit, removed, theirs)

    return clock.run([proof(number) for number in range(len(queries))], places)


@dataclass(eq=False)
class _Clock:
    """Searches side by side, their progress and their time."""

    farm: Retrainings
    sets: int
    progress: Progress | None
    done: int = 0
    until: float = math.inf
    each: float = 0.0
    running: int = 1

    def begin(
        self, budget: float | None, forecast: Callable[[float, float], None] | None, fewest: int
    ) -> None:
        """Measure what a set of trainings takes, where anyone wants to know.

        Raises:
            DataError: for a budget that does not suffice for the fewest sets of a proof.
        """
        if budget is None and forecast is None:
            return
        self.each = self.farm.seconds()
        if forecast is not None:
            forecast(self.each * fewest, self.each * self.sets)
        if budget is None:
            return
        if (least := self.each * fewest) > budget:
            raise DataError(
                f"A budget of {budget:g} seconds does not suffice: the fewest trainings of a "
                f"proof, {fewest} sets of {len(self.farm.seeds)}, take about {least:.0f} "
                "seconds. Allow more time, or fewer trainings."
            )
        self.until = time.monotonic() + budget

    def allows(self, sets: int) -> bool:
        """Whether so many more sets of trainings of every search fit into the budget."""
        return time.monotonic() + self.running * sets * self.each <= self.until

    def without(self, removed: Sequence[Tensor]) -> list[Tensor]:
        """Log-probabilities ``[training, asked, class]`` without each of these sets."""
        return self.farm.without_each(removed, self._tick)

    def run(
        self, searches: Sequence[Generator[list[Tensor], list[Tensor], Proof]], places: list[int]
    ) -> list[Proof]:
        """Answer all searches at once, until each has come to its proof."""
        proofs: dict[int, Proof] = {}
        answers: dict[int, list[Tensor] | None] = dict.fromkeys(range(len(searches)))
        while answers:
            self.running = len(answers)
            wanted: dict[int, list[Tensor]] = {}
            for number, told in answers.items():
                try:
                    step = searches[number]
                    wanted[number] = next(step) if told is None else step.send(told)
                except StopIteration as end:
                    proofs[number] = end.value
            found = iter(self.without([rows for sets in wanted.values() for rows in sets]))
            answers = {
                number: [next(found)[:, places[number]] for _ in sets]
                for number, sets in wanted.items()
            }
        return [proofs[number] for number in range(len(searches))]

    def _tick(self, trainings: int) -> None:
        self.done += trainings
        if self.progress is not None:
            self.progress(self.done, self.sets * len(self.farm.seeds))


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


def _instead(
    removed: Tensor,
    labels: Tensor,
    seed: int,
    controls: Sequence[str],
    against: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """As many other rows, by the name of the control."""
    return {
        **{name: CONTROLS[name](removed, labels, seed) for name in controls},
        **{name: first_of(values, labels, len(removed)) for name, values in against.items()},
    }


def _refuse_counts(said: Sequence[int] | None, wanted: Sequence[int] | None, queries: int) -> None:
    for given in (said, wanted):
        if given is not None and len(given) != queries:
            raise DataError(f"{len(given)} classes were given for {queries} queries.")


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


def _refuse_bad(trainings: int, most: int | None, controls: Sequence[str]) -> None:
    if unknown := sorted(set(controls) - set(CONTROLS)):
        raise DataError(f"There is no control {unknown[0]!r}; there are {', '.join(CONTROLS)}.")
    if trainings < 1 or (most is not None and most < 1):
        raise DataError(
            f"Cannot remove up to {most} rows in {trainings} trainings: both begin at 1."
        )
