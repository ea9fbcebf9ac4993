"""Trained networks of a task, kept on disk with what their training cost, and the clock.

Seconds are processor seconds of one thread (``time.process_time``), since the machine may be
shared. Memory is the largest resident set within a block less what it was before the method began;
``None`` where the system cannot tell.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks._tasks import CACHE, Task, loss
from benchmarks.peers import save_case
from turnover._store import replacing
from turnover.data import Rows
from turnover.nn import SplitEnsemble
from turnover.training import fit, fit_split_ensemble, within

__all__ = ["Clock", "Lab", "Trained"]

MB = 2**20


@dataclass(frozen=True)
class Trained:
    """A trained network, or some checkpoints of one training, and its cost."""

    model: nn.Module
    seconds: float
    checkpoints: tuple[nn.Module, ...] = ()


@dataclass
class Clock:
    """Processor seconds by part, and the memory that was needed in them."""

    seconds: dict[str, float] = field(default_factory=lambda: {"cache": 0.0, "query": 0.0})
    peak_mb: float | None = None

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        before = _status("VmRSS")
        _forget_peak()
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start
            if before is not None and (peak := _status("VmHWM")) is not None:
                self.peak_mb = max(self.peak_mb or 0.0, peak - before)


def _status(key: str) -> float | None:
    """A line of Linux' account of this process, in MB (2²⁰ bytes)."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 / MB if found else None


def _forget_peak() -> None:
    with suppress(OSError):  # the peak is then that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Lab:
    """The trained networks of one task.

    Attributes:
        task: with its own training rows, some of which may be mislabelled.
        mark: part of the names of its files.
        folder: where the networks are kept.
    """

    task: Task
    mark: str = ""
    folder: Path = CACHE

    def plain(self, seed: int) -> Trained:
        """The network of the truth, trained on all rows."""
        return self._trained(f"plain-{seed}", lambda: self.task.plain(seed), seed)

    def turnover(self, seed: int, width: int, dropout: float | None) -> Trained:
        """The turn-over network; ``dropout`` is ordinary dropout on top of the task's."""
        name = f"turnover-{width}-{'own' if dropout is None else dropout}-{seed}"
        return self._trained(name, lambda: self.task.turnover(seed, width, dropout), seed)

    def checkpoints(self, seed: int, count: int) -> Trained:
        """The plain network after ``count`` epochs that are spread over its training."""
        epochs = self.task.recipe.epochs
        wanted = {round((i + 1) * epochs / count) for i in range(count)}
        model, kept = self.task.plain(seed), []

        def keep(done: int) -> None:
            if done in wanted:
                copy = self.task.plain(seed)
                copy.load_state_dict(model.state_dict())
                kept.append(copy)

        start = time.process_time()
        fit(model, self.task.train, loss, replace(self.task.recipe, seed=seed), on_epoch=keep)
        return Trained(model, time.process_time() - start, tuple(kept))

    def split_ensemble(self, pairs: int, seed: int = 0) -> Trained:
        """One run of turn-over dropout over 2 · ``pairs`` whole networks."""
        recipe = replace(self.task.recipe, seed=seed)

        def build() -> nn.Module:
            return SplitEnsemble([self.task.plain(k) for k in range(2 * pairs)], seed=seed)

        def train() -> nn.Module:
            return fit_split_ensemble(self.task.plain, self.task.train, loss, recipe, pairs=pairs)

        return self._kept(f"split-ensemble-{pairs}-{seed}", build, train)

    def budgeted(self, budget: int, seed: int = 0) -> Trained:
        """A split ensemble that costs as much as so many trainings."""
        recipe = replace(self.task.recipe, seed=seed)
        shorter, pairs = within(budget, recipe)
        length = shorter.epochs / recipe.epochs

        def build() -> nn.Module:
            members = [self.task.plain(k) for k in range(2 * pairs)]
            return SplitEnsemble(members, seed=seed, length=length)

        def train() -> nn.Module:
            return fit_split_ensemble(self.task.plain, self.task.train, loss, recipe, budget=budget)

        return self._kept(f"budget-{budget}-{seed}", build, train)

    def case(self, runs: int, queries: Rows) -> tuple[Path, float]:
        """The case of the peers: a folder, and the seconds that its networks took to train."""
        trained = [self.plain(seed) for seed in range(runs)]
        folder = self.folder / f"case-{self.task.name}{self.mark}-{runs}"
        models = [t.model for t in trained]
        save_case(folder, models, self.task.train.batch, queries.batch, self.task.classes)
        return folder, sum(t.seconds for t in trained)

    def _trained(self, name: str, build: Callable[[], nn.Module], seed: int) -> Trained:
        def train() -> nn.Module:
            model = build()
            fit(model, self.task.train, loss, replace(self.task.recipe, seed=seed))
            return model

        return self._kept(name, build, train)

    def _kept(
        self, name: str, build: Callable[[], nn.Module], train: Callable[[], nn.Module]
    ) -> Trained:
        path = self.folder / f"{self.task.name}{self.mark}-models" / f"{name}.safetensors"
        cost = path.with_suffix(".json")
        if cost.exists():
            model = build()
            model.load_state_dict(load_file(path))
            return Trained(model.eval(), json.loads(cost.read_text())["seconds"])
        start = time.process_time()
        model = train().eval()
        seconds = time.process_time() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:  # other methods may be reading
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, fresh)
        with replacing(cost) as fresh:
            fresh.write_text(json.dumps({"seconds": seconds}))
        return Trained(model, seconds)


def accuracy(model: nn.Module, rows: Rows) -> float:
    """Share of right answers."""
    x, y = rows.batch
    with torch.no_grad():
        right: Tensor = model.eval()(x).argmax(dim=1) == y
    return float(right.float().mean())
