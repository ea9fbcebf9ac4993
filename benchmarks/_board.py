"""Measures one method on one task, by the rules that are the same for all.

Knobs are chosen on the queries for tuning; every number is about the others. Each method runs in a
process of its own, so that one that fails or needs much memory leaves the others alone.
"""

import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._lab import Lab
from benchmarks._methods import Method, Unsuited
from benchmarks._tasks import Task, loss
from turnover.baselines import Truth
from turnover.estimators import FirstOrder
from turnover.evaluation import lds, mislabel
from turnover.scores import Scores

__all__ = ["Board", "judged", "row_of"]

COSTS = ("train_seconds", "cache_seconds", "query_seconds")
Row = dict[str, Any]


class Board:
    """The rows of one task.

    Args:
        task: what is measured on.
        truth: about all queries of the task; its own if not given.
        folder: keeps the trained networks.
    """

    def __init__(self, task: Task, truth: Truth, folder: Path) -> None:
        self.task, self.truth = task, truth
        self.lab = Lab(task, folder=folder)

    @cache  # noqa: B019 - a board lives as long as the program
    def noisy(self) -> tuple[Lab, Tensor]:
        """The same with planted label errors, and where they are."""
        task, planted = self.task.noisy()
        return Lab(task, "-noisy", self.lab.folder), planted

    def row(self, method: Method) -> Row:
        """The row of a method, measured in a process of its own."""
        if self.task.name in method.skipped:
            return self._failed(method, method.skipped[self.task.name])
        found = in_own_process(lambda: self._measured(method))
        return self._failed(method, found) if isinstance(found, str) else found

    def retraining_row(self) -> Row:
        """Differences of means over one half of the truth's subsets, judged by the other half.

        It is what the truth's own trainings say about single instances. Seconds are those of one
        plain training, times half of the trainings, times half of the instances.
        """
        truth, count = self.truth, len(self.truth.members) // 2
        inside, outputs = truth.members[:count].double(), truth.outputs[:count].double()
        times = inside.sum(dim=0).clamp(1, count - 1)
        total = outputs.sum(dim=0)
        part = inside.T @ outputs
        values = (part / times[:, None] - (total - part) / (count - times)[:, None]).T.float()
        rest = replace(truth, members=truth.members[count:], losses=truth.losses[count:])
        asked = len(self.task.reported)
        facts = judged(values[:asked], self.task.reported.ids, rest)
        seeds = truth.losses.shape[1]
        seconds = self.lab.plain(0).seconds * count * seeds / 2
        return row_of(
            self.task.name,
            f"re-training, {count} half-subsets",
            count * seeds,
            **facts,
            train_seconds=round(seconds, 4),
            cache_seconds=0.0,
            query_seconds=0.0,
            bytes_per_instance=asked * 4,
            family="classic",
            knobs={"subsets": count, "seeds": seeds},
        )

    def _failed(self, method: Method, reason: str) -> Row:
        return row_of(self.task.name, method.name, method.runs, family=method.family, reason=reason)

    def _measured(self, method: Method) -> Row:
        best, quality = None, -2.0
        for outcome in method.outcomes(self.lab):
            found = 0.0
            if outcome.tuning is not None:
                asked = self.task.tuning.ids[: len(outcome.tuning)]
                found = judged(outcome.tuning, asked, self.truth, bootstrap=0)["lds"]
            if found > quality:
                best, quality = outcome, found
        if best is None:
            raise Unsuited("No set of knobs gave scores that are finite numbers.")
        values, cost = best.reported()
        facts = judged(values, self.task.reported.ids[: len(values)], self.truth)
        if self.task.name in method.mislabel:
            noisy, planted = self.noisy()
            if (suspicion := method.suspicion(noisy, best.knobs)) is not None:
                facts["mislabel_auc"] = round(mislabel(suspicion, planted).auc.value, 4)
        cost = {k: v if v is None else round(v, 4) for k, v in cost.items()}
        about = {"family": method.family, "knobs": best.knobs}
        return row_of(self.task.name, method.name, method.runs, **facts, **cost, **about)


def row_of(task: str, method: str, runs: int, **facts: Any) -> Row:
    """A row with every field of the schema; what is not known is None."""
    names = ("lds", "lds_low", "lds_high", "ceiling", "mislabel_auc", *COSTS)
    empty = dict.fromkeys((*names, "bytes_per_instance", "peak_mb", "accuracy"))
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"task": task, "method": method, "runs": runs, **empty, **facts, "date": date}


def judged(values: Tensor, ids: Tensor, truth: Truth, bootstrap: int = 1000) -> Row:
    """LDS, interval and ceiling of scores ``[query, train]`` of the queries with these ids."""
    where = {query: row for row, query in enumerate(truth.query_ids.tolist())}
    part = truth.select(torch.tensor([where[query] for query in ids.tolist()]))
    found = lds(Scores(values, truth.train_ids, ids), part, bootstrap=bootstrap)
    facts = {"lds": found.value, "lds_low": found.low, "lds_high": found.high}
    facts["ceiling"] = found.ceiling
    return {k: v if v is None else round(v, 4) for k, v in facts.items()} | {"queries": len(ids)}


def in_own_process(work: Callable[[], Row]) -> Row | str:
    """What the work returns, or in a word why it failed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        try:
            torch.set_num_threads(1)
            _warm_up()
            sender.send(work())
        except BaseException as error:
            if not isinstance(error, Unsuited):
                traceback.print_exc()
            sender.send(f"{type(error).__name__}: {error}".splitlines()[0])

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "Its process ended without a word; perhaps it needed too much memory."
    finally:
        process.join()


def _warm_up() -> None:
    """Has torch and the scan load what they load late, so that no method pays for it."""
    from benchmarks._tasks import digits

    task = digits()
    few = task.tuning.select(slice(0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FirstOrder(task.turnover(0), loss).scores(few, task.train.ids[:300])
    square = torch.func.grad(lambda x: (x * x).sum())
    torch.func.vmap(square)(torch.ones(2, 2, requires_grad=True)).sum().backward()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    optimizer.step()
