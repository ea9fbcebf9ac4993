"""The best rows of a kernel; of an index by ranks of ``torchrun``, each with its own files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._ranks import COLUMNS, of_all, share_of
from turnover.estimators.kernel._keep import Stored
from turnover.estimators.kernel._landmarks import LandmarkRidge
from turnover.scores import Kind, Ranking

if TYPE_CHECKING:
    from turnover.estimators.kernel._fitted import FittedKernel

__all__ = ["top_of_parts", "top_of_ranks"]


def top_of_parts(fitted: "FittedKernel", queries: Sequence[Rows], k: int, kind: Kind) -> Ranking:
    """The k best rows of every query in this process, some queries after the other."""
    found = [fitted.scores(part).top(k, kind) for part in queries]
    return Ranking(*(torch.cat([getattr(part, name) for part in found]) for name in COLUMNS))


def top_of_ranks(fitted: "FittedKernel", queries: Sequence[Rows], k: int, kind: Kind) -> Ranking:
    """The k best rows of every query: each rank scores the rows of its own files.

    Args:
        fitted: the kernel, the same in all ranks.
        queries: rows that are scored at once, the same in all ranks.
        k: how many.
        kind: ``"helpful"`` or ``"harmful"``.

    Raises:
        ScoreError: for a kernel that is solved exactly, or k out of range.
        RunError: outside of ``torchrun``, and in all ranks where one fails.
    """
    if not 1 <= k <= (count := len(fitted.train_ids)):
        raise ScoreError(f"k is {k}, but must lie between 1 and the number of instances, {count}.")
    own, start = _own(fitted)

    def best() -> list[Ranking]:
        if own is None:
            return []
        return [own.scores(part).top(min(k, len(own.train_ids)), kind) for part in queries]

    return of_all(best, start, k, largest=kind == "helpful")


def _own(fitted: "FittedKernel") -> "tuple[FittedKernel | None, int]":
    """The kernel of the rows that this rank owns, and the number of the first of them.

    Whole parts, so that products are of the same blocks as in one process, to the bit.

    Raises:
        ScoreError: for a kernel that is solved exactly, whose rows need each other.
    """
    solves = [solve for solve in fitted.solves if isinstance(solve, LandmarkRidge)]
    if len(solves) != len(fitted.solves):
        raise ScoreError(
            "This kernel is solved exactly, without landmarks: its rows are few and need each "
            "other. Leave out by_ranks, or fit it with landmarks=N."
        )
    mine = share_of(len(solves[0].parts))
    sizes = [len(part) for part in solves[0].parts]
    start, size = sum(sizes[: mine.start]), sum(sizes[mine.start : mine.stop])
    if not size:
        return None, start
    rows = slice(start, start + size)
    return replace(
        fitted,
        train_ids=fitted.train_ids[rows],
        residuals=fitted.residuals[:, rows],
        solves=tuple(replace(solve, parts=_some(solve.parts, mine, size)) for solve in solves),
    ), start


def _some(parts: Sequence[Tensor], mine: range, size: int) -> Sequence[Tensor]:
    if isinstance(parts, Stored):
        return Stored(parts.paths[mine.start : mine.stop], parts.name, size)
    return parts[mine.start : mine.stop]
