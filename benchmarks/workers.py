"""How long does independent work take on workers that fail? A model on paper, and a check of it.

    python -m benchmarks.workers --json benchmarks/results/workers.json

**The model.** Tasks wait in one queue. A worker takes the first, and its length is drawn from a
log-normal distribution. Each worker is lost at random times, so many an hour on average, and each
node loses its eight workers at once a tenth as often. A lost task begins again from nothing, at the
end of the queue; its worker is back after a while, drawn from an exponential distribution. A task
that is lost three times ends the work. All is drawn from a seed; 200 draws make a line.

**The check.** Twelve trainings in processes of this machine, by ``local:1`` and ``local:2``,
without faults, and with three processes that are killed in the middle of a task. The model is told
how long tasks took in one process without faults and how long a process takes to start, no more.
Two processes at once are slower where other work takes their cores: ``load_average`` tells.
"""

import argparse
import heapq
import json
import os
import signal
import statistics
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover.data import Rows
from turnover.executors import LocalExecutor, Task, run_tasks
from turnover.training import Recipe, fit

SEED, DRAWS, TRIES, NODE = 0, 200, 3, 8
TASKS, MINUTES, SPREAD, START, AWAY = 256, 10.0, 0.2, 30.0, 300.0
WORKERS, RATES = (1, 2, 4, 8, 16, 32, 64), (0.0, 0.02, 0.1, 0.5, 2.0)
NODE_SHARE = 0.1
READY, DONE, LOST = range(3)
CHECKED, KILLED, ROUNDS = 12, (2, 5, 9), 3
ROWS, FEATURES = 20_000, 64


@final
@dataclass(frozen=True)
class Outcome:
    """What became of the work.

    Attributes:
        seconds: until the last task was done, or one was lost three times.
        lost: how often a task was lost.
        finished: whether all tasks were done.
    """

    seconds: float
    lost: int
    finished: bool


def simulated(
    lengths: Sequence[float],
    losses: Sequence[np.ndarray],
    *,
    start: float,
    away: Sequence[float],
    killed: Mapping[int, float] | None = None,
) -> Outcome:
    """The course of tasks through workers, event by event.

    Args:
        lengths: seconds of each task.
        losses: of each worker, the seconds at which it is lost, in order.
        start: seconds until a worker takes its first task, and again after each loss.
        away: seconds for which a worker is gone after each of all losses.
        killed: task → share of its length after which its first attempt ends.
    """
    queue, idle, gone = deque(range(len(lengths))), deque[int](), iter(away)
    events = [(start, READY, worker, -1) for worker in range(len(losses))]
    tries, lost, done, now = Counter[int](), 0, 0, 0.0
    while done < len(lengths):
        now, kind, worker, task = heapq.heappop(events)
        if kind == LOST:
            lost += 1
            if tries[task] >= TRIES:
                return Outcome(now, lost, finished=False)
            queue.append(task)
            heapq.heappush(events, (now + next(gone) + start, READY, worker, -1))
        else:
            done += kind == DONE
            idle.append(worker)
        while queue and idle:
            chosen, taken = idle.popleft(), queue.popleft()
            tries[taken] += 1
            end, fatal = now + lengths[taken], _next(losses[chosen], now)
            if killed and tries[taken] == 1 and taken in killed:
                fatal = now + killed[taken] * lengths[taken]
            kind = LOST if fatal < end else DONE
            heapq.heappush(events, (min(end, fatal), kind, chosen, taken))
    return Outcome(now, lost, finished=True)


def _next(losses: np.ndarray, now: float) -> float:
    place = int(np.searchsorted(losses, now, side="right"))
    return float(losses[place]) if place < len(losses) else float("inf")


def drawn(workers: int, rate: float, seed: int) -> Outcome:
    """One course of the model, with so many losses of a worker in an hour."""
    random = np.random.default_rng([SEED, workers, int(1000 * rate), seed])
    lengths = 60 * MINUTES * random.lognormal(-(SPREAD**2) / 2, SPREAD, TASKS)
    horizon = 20 * (lengths.sum() / workers + 10 * lengths.max())
    nodes = -(-workers // NODE)
    node_losses = [_losses(random, NODE_SHARE * rate, horizon) for _ in range(nodes)]
    losses = [
        np.sort(np.concatenate([_losses(random, rate, horizon), node_losses[worker // NODE]]))
        for worker in range(workers)
    ]
    away = random.exponential(AWAY, TRIES * TASKS)
    return simulated(lengths.tolist(), losses, start=START, away=away.tolist())


def _losses(random: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
    """Seconds of the losses until the horizon, so many an hour."""
    return np.sort(random.uniform(0, horizon, random.poisson(rate * horizon / 3600)))


def line(workers: int, rate: float) -> dict[str, Any]:
    """Many courses: how long those take that end well, and how many do not."""
    each = [drawn(workers, rate, seed) for seed in range(DRAWS)]
    good = sorted(outcome.seconds for outcome in each if outcome.finished)
    found: dict[str, Any] = {"workers": workers, "losses_per_worker_hour": rate}
    if good:
        low, high = (good[int(share * (len(good) - 1))] for share in (0.05, 0.95))
        found |= {"hours": round(statistics.mean(good) / 3600, 3)}
        found |= {"hours_90": [round(low / 3600, 3), round(high / 3600, 3)]}
    lost = statistics.mean(outcome.lost for outcome in each)
    return found | {"lost": round(lost, 2), "ended_early": sum(not o.finished for o in each)}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 10))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def train(epochs: int, folder: str, seed: int) -> float:
    """Train one network; the first attempt of some is killed in the middle. Seconds it took."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, FEATURES, generator=random)
    rows, recipe = Rows((x, x[:, :10].argmax(dim=1))), Recipe(epochs, seed=seed)

    def killed(epoch: int) -> None:
        mark = Path(folder) / str(seed)
        if folder and seed in KILLED and epoch == epochs // 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    start = time.perf_counter()
    fit(network(seed), rows, loss, recipe, on_epoch=killed)
    return time.perf_counter() - start


def measured(workers: int, epochs: int, *, kill: bool) -> tuple[float, list[float]]:
    """Seconds of all tasks, the start of the processes included, and of each."""
    tasks = [Task(f"Training with seed {seed}", (seed,)) for seed in range(CHECKED)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        start = time.perf_counter()
        with LocalExecutor(workers, 1) as engine:
            work = _Work(epochs, folder if kill else "")
            each = run_tasks(work, tasks, engine)
        return time.perf_counter() - start, each


@final
@dataclass(frozen=True)
class _Work:
    epochs: int
    folder: str

    def __call__(self, seed: int) -> float:
        return train(self.epochs, self.folder, seed)


def check(epochs: int) -> list[dict[str, Any]]:
    """Measured and modelled seconds, in turn, for one and two processes."""
    seconds: dict[tuple[int, bool], list[float]] = {}
    lengths, starts = list[list[float]](), list[float]()
    for _ in range(ROUNDS):
        for workers in (1, 2):
            for kill in (False, True):
                whole, each = measured(workers, epochs, kill=kill)
                seconds.setdefault((workers, kill), []).append(whole)
                if workers == 1 and not kill:
                    lengths.append(each)
                    starts.append(whole - sum(each))
    known = [statistics.median(each) for each in zip(*lengths, strict=True)]
    start, found = statistics.median(starts), []
    for (workers, kill), each in seconds.items():
        killed = dict.fromkeys(KILLED, (epochs // 2) / epochs) if kill else None
        none, away = [np.empty(0)] * workers, [0.0] * CHECKED
        model = simulated(known, none, start=start, away=away, killed=killed)
        row = {"workers": workers, "killed": len(KILLED) * kill, "modelled": model.seconds}
        found.append({**row, "measured": statistics.median(each), "each": each})
    return [{**row, "start_seconds": start} for row in found]


def main() -> None:
    """Simulate, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=16, help="of the trainings of the check")
    chosen = parser.parse_args()
    model = {"tasks": TASKS, "minutes": MINUTES, "spread": SPREAD, "start_seconds": START}
    model |= {"away_seconds": AWAY, "node": NODE, "node_share": NODE_SHARE, "draws": DRAWS}
    lines = [line(workers, rate) for rate in RATES for workers in WORKERS]
    checked = check(chosen.epochs)
    found = {"model": model, "lines": lines, "check": checked, "machine": describe(all=SEED)}
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in [*lines, *checked]:
        print(row)


if __name__ == "__main__":
    main()
