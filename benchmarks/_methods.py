"""The methods of the leaderboard, each a small entry: which networks, and what to ask of them.

An entry has a name, the networks that it needs, a grid of knobs, and a function

    ask(trained, task, **knobs) -> Asked

that makes whatever can be kept between queries (its time is that of caching) and returns how to
score queries, how suspicious each training instance is, and the bytes kept of each instance. Scores
of several runs are averaged. Peers are processes of their own (`benchmarks.peers`).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks._lab import Clock, Lab, Trained, accuracy
from benchmarks._tasks import Task
from benchmarks.peers._run import outcomes as peer_outcomes
from turnover.data import Rows

__all__ = ["Asked", "Method", "Outcome", "OwnMethod", "Peer", "Unsuited"]

Own = Callable[[], Tensor]


class Unsuited(Exception):
    """A method that was not run on a task, with the reason."""


@dataclass(frozen=True)
class Asked:
    """A method with its caches made.

    Attributes:
        scores: queries → [query, train], positive = helped.
        own: suspicion of every training instance [train]; None where a method has none.
        bytes_per_instance: what is kept of every training instance between queries.
        knobs: what the method chose by itself.
    """

    scores: Callable[[Rows], Tensor]
    own: Own | None = None
    bytes_per_instance: float = 0.0
    knobs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a method gave with one set of knobs.

    Attributes:
        knobs: those of the grid, and what the method chose by itself.
        tuning: scores of the queries for tuning; None where there is nothing to choose.
        reported: makes scores of the reported queries and their cost.
        own: suspicion of the training instances, or None.
    """

    knobs: dict[str, Any]
    tuning: Tensor | None
    reported: Callable[[], tuple[Tensor, dict[str, Any]]]
    own: Own | None


@dataclass(frozen=True)
class Method:
    """What all methods have.

    Attributes:
        name: as in tables, without the number of runs.
        family: ``"turn-over"``, ``"classic"``, ``"control"`` or the library that it comes from.
        runs: independent trainings that are averaged.
        tasks: tasks on which it is run.
        mislabel: tasks on which its suspicion of planted label errors is measured.
        quick: whether it belongs to the quick leaderboard.
        skipped: task → why it is not run there.
    """

    name: str
    family: str
    runs: int = 1
    tasks: tuple[str, ...] = ("digits", "mnist", "sst2", "fashion")
    mislabel: tuple[str, ...] = ("digits", "sst2")
    quick: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)

    def outcomes(self, lab: Lab) -> Iterator[Outcome]:
        """One outcome for every set of knobs."""
        raise NotImplementedError

    def suspicion(self, lab: Lab, knobs: dict[str, Any]) -> Tensor | None:
        """How suspicious every instance is, with the knobs chosen."""
        raise NotImplementedError


@dataclass(frozen=True)
class OwnMethod(Method):
    """A method of this library.

    Attributes:
        networks: (lab, run) → a trained network.
        ask: (trained, task, **knobs) → `Asked`.
        grid: knob → values to choose from.
        few: how many of the queries for tuning are asked, where asking is dear.
        only: how many of the reported queries are; its seconds are scaled to all of them.
    """

    networks: Callable[[Lab, int], Trained] = lambda lab, run: lab.plain(run)
    ask: Callable[..., Asked] = field(default=lambda *_: Asked(lambda queries: torch.empty(0)))
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    few: int | None = None
    only: int | None = None

    def outcomes(self, lab: Lab) -> Iterator[Outcome]:
        trained = [self.networks(lab, run) for run in range(self.runs)]
        settings = [
            dict(zip(self.grid, v, strict=True)) for v in itertools.product(*self.grid.values())
        ]
        for knobs in settings:
            clock = Clock()
            with clock("cache"):
                asked = [self.ask(each, lab.task, **knobs) for each in trained]
            tuning = None
            if len(settings) > 1:
                tuning = _mean(asked, lab.task.tuning.select(slice(0, self.few)))
            yield Outcome(
                knobs | dict(asked[0].knobs),
                tuning,
                lambda asked=asked, clock=clock: self._reported(lab.task, trained, asked, clock),
                self._own(asked),
            )

    def _reported(
        self, task: Task, trained: list[Trained], asked: list[Asked], clock: Clock
    ) -> tuple[Tensor, dict[str, Any]]:
        queries = task.reported.select(slice(0, self.only))
        with clock("query"):
            values = _mean(asked, queries)
        right = [accuracy(each.model, task.reported) for each in trained]
        return values, {
            "train_seconds": sum(each.seconds for each in trained),
            "cache_seconds": clock.seconds["cache"],
            "query_seconds": clock.seconds["query"] * len(task.reported) / len(queries),
            "bytes_per_instance": sum(each.bytes_per_instance for each in asked),
            "peak_mb": clock.peak_mb,
            "accuracy": sum(right) / len(right),
        }

    def _own(self, asked: list[Asked]) -> Own | None:
        if any(each.own is None for each in asked):
            return None
        return lambda: torch.stack([each.own() for each in asked if each.own]).mean(dim=0)

    def suspicion(self, lab: Lab, knobs: dict[str, Any]) -> Tensor | None:
        mine = {name: value for name, value in knobs.items() if name in self.grid}
        trained = [self.networks(lab, run) for run in range(self.runs)]
        own = self._own([self.ask(each, lab.task, **mine) for each in trained])
        return None if own is None else own()


def _mean(asked: list[Asked], queries: Rows) -> Tensor:
    total = asked[0].scores(queries)
    for each in asked[1:]:
        total = total + each.scores(queries)
    return total / len(asked)


@dataclass(frozen=True)
class Peer(Method):
    """A method of another library, in a process of its own.

    Attributes:
        key: its name in ``peers.METHODS``.
    """

    key: str = ""

    def outcomes(self, lab: Lab) -> Iterator[Outcome]:
        task = lab.task
        folder, seconds = lab.case(self.runs, task.queries)
        asked = len(task.reported)
        right = [accuracy(lab.plain(seed).model, task.reported) for seed in range(self.runs)]
        peak = None
        for found in peers.sweep(self.key, folder, runs=self.runs):
            if found.scores is None:
                continue
            # The first of a sweep has needed no memory yet but its own.
            peak = found.cost["peak_mb"] if peak is None else peak
            values = torch.from_numpy(found.scores)
            cost = {
                "train_seconds": seconds,
                "cache_seconds": found.cost["cache_seconds"],
                "query_seconds": found.cost["query_seconds"] * asked / len(values),
                "bytes_per_instance": found.cost["bytes_per_instance"],
                "peak_mb": peak,
                "accuracy": sum(right) / len(right),
            }
            reported = (values[:asked], cost)
            yield Outcome(found.knobs, values[asked:], lambda reported=reported: reported, None)

    def suspicion(self, lab: Lab, knobs: dict[str, Any]) -> Tensor | None:
        method = peers.METHODS[self.key]
        if not method.own:
            return None
        few = lab.task.tuning.select(slice(0, 2))
        folder, _ = lab.case(self.runs, few)
        (found,) = peer_outcomes(
            method.peer, method.method, folder, knobs, runs=self.runs, own=True
        )
        return None if found.own is None else torch.from_numpy(found.own)
