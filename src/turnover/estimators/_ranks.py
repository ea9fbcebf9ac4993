"""Work of several processes under ``torchrun``: each rank its share, and one answer for all.

A rank that fails tells the others, so that none waits for it forever.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from turnover.errors import RunError, ScoreError
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._scan import checked_ids
from turnover.estimators.masked._topk import top
from turnover.executors import Task
from turnover.scores import Ranking

__all__ = [
    "COLUMNS",
    "each_its_share",
    "first_says",
    "in_turn",
    "merged",
    "of_all",
    "share_of",
    "together",
    "top_by_ranks",
]

T = TypeVar("T")
COLUMNS = ("ids", "scores", "positions")


def top_by_ranks(
    linear: LinearScores, ids: Tensor | range, k: int, *, largest: bool = True
) -> Ranking:
    """The k best ids of every query, each rank scoring its own range of them.

    Every rank calls this with the same arguments and gets the same answer, to the bit that of
    :func:`turnover.estimators.top` in one process.

    Args:
        linear: the scores as a function of mask bits.
        ids: all ids; a range is never written out in full.
        k: how many.
        largest: False for the smallest scores.

    Raises:
        RunError: outside of ``torchrun``, and in all ranks where one fails.
        ScoreError: for k below 1 or above the number of ids.
    """
    ids = checked_ids(ids)
    if not 1 <= k <= len(ids):
        raise ScoreError(f"k is {k}, but must lie between 1 and the number of ids, {len(ids)}.")
    mine = share_of(len(ids))
    part = ids[mine.start : mine.stop]

    def own() -> list[Ranking]:
        return [top(linear, part, min(k, len(part)), largest=largest)] if len(part) else []

    return of_all(own, mine.start, k, largest=largest)


def of_all(best: Callable[[], list[Ranking]], start: int, k: int, *, largest: bool) -> Ranking:
    """The k best of what all ranks find among their own rows, in all ranks.

    Args:
        best: the best rows of this rank, some queries after the other; none where it has no rows.
        start: number of its first row.
        k: how many.
        largest: False for the smallest scores.

    Raises:
        RunError: in all ranks where one fails.
    """

    def own() -> Ranking | None:
        found = best()
        if not found:
            return None
        columns = [torch.cat([getattr(part, name).cpu() for part in found]) for name in COLUMNS]
        ids, scores, positions = columns
        return Ranking(ids, scores, positions + start)

    parts = [part for part in _gathered(together(own)) if part is not None]
    return merged(parts, k, largest=largest)


def merged(parts: Sequence[Ranking], k: int, *, largest: bool = True) -> Ranking:
    """The k best of rankings of different rows, whose positions grow from one to the next.

    Equal scores rank by position.
    """
    whole = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in COLUMNS}
    order = whole["scores"].sort(dim=1, descending=largest, stable=True).indices[:, :k]
    return Ranking(**{name: tensor.gather(1, order) for name, tensor in whole.items()})


def share_of(count: int) -> range:
    """The positions that this rank owns, of so many."""
    rank, ranks = _ranks()
    return range(count * rank // ranks, count * (rank + 1) // ranks)


def each_its_share(make: Callable[..., object], tasks: Sequence[Task]) -> None:
    """Call the function for the tasks of this rank, and wait for the others.

    Raises:
        RunError: in all ranks where one fails, with the name of its task.
    """
    rank, ranks = _ranks()

    def work() -> None:
        for task in tasks[rank::ranks]:
            try:
                make(*task.arguments)
            except Exception as error:
                raise RunError(f"{task.what}: {type(error).__name__}: {error}") from error

    together(work)


def first_says(ask: Callable[[], T]) -> T:
    """What the first rank answers, in all ranks: each may see shared storage differently.

    Raises:
        RunError: in all ranks where the first one fails.
    """
    answer: T = _gathered(together(lambda: ask() if _ranks()[0] == 0 else None))[0]  # type: ignore[assignment]
    return answer


def in_turn(work: Callable[[], T], before: Callable[[], object] = lambda: None) -> T:
    """Call the function in the first rank, and then in all others; the answer of this rank.

    Args:
        work: what each rank does.
        before: what the others do first.

    Raises:
        RunError: in all ranks where one fails.
    """
    first = _ranks()[0] == 0

    def rest() -> T:
        before()
        return work()

    found = together(lambda: work() if first else None)
    others = together(lambda: None if first else rest())
    answer = found if first else others
    assert answer is not None
    return answer


def together(work: Callable[[], T]) -> T:
    """The answer of this rank, once all have one.

    Raises:
        RunError: in all ranks where one fails.
    """
    failed: Exception | None = None
    try:
        answer = work()
    except Exception as error:
        failed = error
    said = _gathered("" if failed is None else f"{type(failed).__name__}: {failed}")
    for rank, words in enumerate(said):
        if words:
            raise RunError(f"Rank {rank} of {len(said)} failed. {words}") from failed
    return answer


def _gathered(own: T) -> list[T]:
    """What all ranks have, in their order."""
    found: list[Any] = [None] * _ranks()[1]
    dist.all_gather_object(found, own)
    return found


def _ranks() -> tuple[int, int]:
    """The number of this rank, and how many there are.

    Raises:
        RunError: where no group of processes was made.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RunError(
            "Work by ranks needs a group of processes: start the script with torchrun, and call "
            "torch.distributed.init_process_group() in it first."
        )
    return dist.get_rank(), dist.get_world_size()
