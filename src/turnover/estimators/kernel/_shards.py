"""Files of an index, made by others: tasks of an engine, or ranks of ``torchrun``.

A part of the rows in one network is a file, and needs no other but the landmarks of its network,
which need the losses of all rows. So there are three rounds: losses of every part, landmarks of
every network, features of every part in every network. Whoever fits then finds the files.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from turnover._memory import Forecast
from turnover._precise import precise
from turnover.data import Rows
from turnover.errors import RunError
from turnover.estimators._ranks import each_its_share, first_says, in_turn
from turnover.estimators.kernel._fitted import FittedKernel, KernelConfig, networks_of, planned
from turnover.estimators.kernel._forecast import BLOCK_BYTES
from turnover.estimators.kernel._keep import SHARD_ROWS, Folder, Part, PartRows
from turnover.estimators.kernel._known import Plan, make_rows
from turnover.estimators.kernel._manifest import is_index
from turnover.estimators.kernel._plan import said_of
from turnover.executors import Task, opened, refuse_crowded, refuse_unseen, run_tasks

__all__ = ["fit_by_ranks", "shard"]

LANDMARKS = -1  # in place of the number of a part
SEEN_WITHIN = 60.0  # seconds that shared storage may take to show a file


def shard(
    config: KernelConfig, rows: Rows, folder: Path, executor: Executor | str, expected: Forecast
) -> None:
    """Make the files of an index in tasks of an engine.

    Args:
        config: what the kernel is made of.
        rows: the training set.
        folder: of the index; all workers must see it.
        executor: an engine or its name.
        expected: what the kernel takes in all.

    Raises:
        RunError: for a task that failed for good, with the name of its part.
        ConfigError: for processes of this machine that do not fit into its memory.
    """
    shards = shards_of(config, rows, folder)
    part = min(len(rows), SHARD_ROWS) * expected.per_row // config.count
    with opened(executor) as engine:
        refuse_crowded(engine, 2 * part + BLOCK_BYTES)  # in memory until it is written: a copy
        for make, tasks in shards.rounds():
            run_tasks(make, tasks, engine)


def fit_by_ranks(
    config: Callable[[], KernelConfig],
    fit: Callable[[], FittedKernel],
    rows: Rows,
    folder: Path,
) -> FittedKernel:
    """Make the files of an index by all ranks, fit in the first, and open it in the others.

    Args:
        config: makes what the kernel is made of.
        fit: finds the files.
        rows: the training set, the same in all ranks.
        folder: of the index; all ranks must see it.

    Raises:
        RunError: where a rank fails, in all of them; and outside of ``torchrun``.
    """
    if not first_says(lambda: is_index(folder)):
        for make, tasks in shards_of(config(), rows, folder).rounds():
            each_its_share(make, tasks)
    return in_turn(fit, lambda: _refuse_hidden(folder))


def _refuse_hidden(folder: Path) -> None:
    """Wait until this rank sees the index that the first one wrote; alone it would make another.

    Raises:
        RunError: when it does not come.
    """
    last = time.monotonic() + SEEN_WITHIN
    while not is_index(folder):
        if time.monotonic() > last:
            raise RunError(
                f"This rank does not see the index that the first one made in {folder}. Put it on "
                "storage that all ranks share."
            )
        time.sleep(0.1)


def shards_of(config: KernelConfig, rows: Rows, folder: Path) -> "Shards":
    """The files that an index of these rows will have."""
    folder.mkdir(parents=True, exist_ok=True)
    known = tuple((part.name, part.size, part.print) for part in Folder(folder).parts(rows))
    return Shards(config, rows, known, folder.resolve())


@dataclass(frozen=True)
class Shards:
    """The files of an index, and who makes them.

    Attributes:
        config: what the kernel is made of.
        data: the training set, which is sent to a worker once.
        known: name, number of rows and fingerprint of each part.
        folder: of the index.
    """

    config: KernelConfig
    data: Rows
    known: tuple[tuple[str, int, str], ...]
    folder: Path

    @property
    def parts(self) -> PartRows:
        """Parts of the rows: cut where they are needed, since each would be sent as all rows."""
        ends = accumulate(size for _, size, _ in self.known)
        return [
            Part(name, size, self.data.select(slice(end - size, end)), print)
            for (name, size, print), end in zip(self.known, ends, strict=True)
        ]

    def rounds(self) -> list[tuple[Callable[..., None], Sequence[Task]]]:
        """Functions and their tasks; each round needs the files of the one before."""
        numbers, networks = range(len(self.known)), range(self.config.count)
        names = [f"part {number + 1} of {len(self.known)}" for number in numbers]
        return [
            (self.said, [Task(f"Losses of {names[n]}", (n,)) for n in numbers]),
            (
                self.rows,
                [Task(f"Landmarks of network {k}", (k, LANDMARKS)) for k in networks],
            ),
            (
                self.rows,
                [Task(f"{names[n]} in network {k}", (k, n)) for k in networks for n in numbers],
            ),
        ]

    @precise()
    def said(self, number: int) -> None:
        """Losses of one part."""
        refuse_unseen(self.folder)
        said_of(self.config, [self.parts[number]], Folder(self.folder))

    @precise()
    def rows(self, network: int, number: int) -> None:
        """Landmarks of a network, or features of one part in it."""
        refuse_unseen(self.folder)
        config, plan = self._planned
        own, mine = networks_of(config.model)[network], [] if number == LANDMARKS else [number]
        how = (config, own, f"network-{network}", self.parts, plan, Folder(self.folder))
        make_rows(*how, mine=mine)

    @cached_property
    def _planned(self) -> tuple[KernelConfig, Plan]:
        """Worked out once in each process, of the losses that all rows have by then."""
        config, _, _, plan = planned(self.config, self.parts, Folder(self.folder))
        return config, plan
