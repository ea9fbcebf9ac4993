"""The k best of any number of ids, in the memory of one block.

Blocks of ids are scored in order and merged into a list of k per query. A score that is not above
the k-th so far is dropped at once. Equal scores rank by position, so the result depends on nothing
but the arguments: not on block size, threads or interruptions.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from turnover import _store
from turnover.errors import ScoreError
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._scan import Kernel, checked_ids, device_of, scanner
from turnover.scores import Ranking

__all__ = ["Keep", "SameGroup", "extremes", "top"]

Keep = Tensor | Callable[[Tensor], Tensor]
BLOCK = 1 << 18
SCORES_PER_BLOCK = 1 << 21
CHECKPOINT_SECONDS = 30.0


def top(
    linear: LinearScores,
    ids: Tensor | range,
    k: int,
    *,
    largest: bool = True,
    keep: Keep | None = None,
    kernel: Kernel = "auto",
    checkpoint: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Ranking:
    """The k ids with the largest scores for each query (the most helpful), or the smallest.

    Args:
        linear: the scores as a function of mask bits.
        ids: ``int64`` tensor ``[train]``, or a range, which is never written out in full.
        k: how many.
        largest: False for the smallest scores (the most harmful), most negative first.
        keep: which ids may be ranked: a bool tensor ``[train]`` or ``[query, train]``, or a
            function of positions ``int64 [block]`` that gives one for the block.
        kernel: as in :func:`turnover.estimators.scan`.
        checkpoint: a file that is renewed every 30 seconds and on interruption, and removed at the
            end. If it exists, the scan continues where it stands. Of functions given as ``keep``
            it can tell only a :class:`SameGroup` from another.
        progress: called after each block with the number of ids done and in all.

    Raises:
        IdError: for ids that are no integers, not one-dimensional, or none at all.
        ScoreError: for k below 1 or above the number of ids that ``keep`` leaves, a ``keep`` of
            another shape or type, or a checkpoint together with a function that it cannot tell.
        RunError: for a checkpoint that is damaged, of another scan, or cannot be written.
    """
    scan = _Scan(linear, checked_ids(ids), k, k, (largest,), keep, kernel)
    return scan.run(checkpoint, progress)[0]


def extremes(
    linear: LinearScores,
    ids: Tensor | range,
    k: int,
    *,
    least: int | None = None,
    keep: Keep | None = None,
    kernel: Kernel = "auto",
    checkpoint: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Ranking, Ranking]:
    """The k largest and the k smallest scores in one scan; arguments as in :func:`top`.

    With ``least``, lists shorter than k, but not than that, do where ``keep`` leaves no more.
    """
    wanted = k if least is None else least
    scan = _Scan(linear, checked_ids(ids), k, wanted, (True, False), keep, kernel)
    largest, smallest = scan.run(checkpoint, progress)
    return largest, smallest


@final
@dataclass(frozen=True, eq=False)
class SameGroup:
    """A filter for :func:`top`: only training instances of the query's own group (label, say).

    Attributes:
        queries: group of every query, ``int64 [query]``.
        train: group of every scanned id, ``int64 [train]``.
    """

    queries: Tensor
    train: Tensor

    def __call__(self, positions: Tensor) -> Tensor:
        """Bool ``[query, block]``: which of the ids at ``positions`` each query may rank."""
        return self.train[positions] == self.queries.unsqueeze(-1)


@final
@dataclass(frozen=True)
class _State:
    """Everything known after the first ``done`` ids; smallest scores are held with minus signs."""

    done: int
    kept: Tensor
    best: tuple[tuple[Tensor, Tensor], ...]

    def tensors(self) -> dict[str, Tensor]:
        found = {"done": torch.tensor(self.done), "kept": self.kept}
        for side, (scores, positions) in enumerate(self.best):
            found |= {f"scores{side}": scores, f"positions{side}": positions}
        return found

    def loaded(self, found: dict[str, Tensor]) -> "_State":
        like = {name: found[name].to(old.device) for name, old in self.tensors().items()}
        sides = range(len(self.best))
        best = tuple((like[f"scores{side}"], like[f"positions{side}"]) for side in sides)
        return _State(int(like["done"]), like["kept"], best)


@final
@dataclass(frozen=True)
class _Scan:
    linear: LinearScores
    ids: Tensor | range
    k: int
    least: int
    sides: tuple[bool, ...]
    keep: Keep | None
    kernel: Kernel

    def run(
        self, checkpoint: Path | None, progress: Callable[[int, int], object] | None
    ) -> list[Ranking]:
        self._check()
        begin, work = self._start(), self._work() if checkpoint else ""
        if checkpoint and checkpoint.exists():
            begin = begin.loaded(_store.load(checkpoint, work))
        state, saved = begin, time.monotonic()
        try:
            for state in self._states(begin):
                if progress:
                    progress(state.done, len(self.ids))
                if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    _store.save(checkpoint, state.tensors(), work)
                    saved = time.monotonic()
        except BaseException:
            if checkpoint:
                _store.save(checkpoint, state.tensors(), work)
            raise
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
        return self._rankings(state)

    def _start(self) -> _State:
        queries, device = self.linear.queries, device_of(self.linear, self.ids)
        scores = torch.full((queries, self.k), -torch.inf, device=device)
        positions = torch.full((queries, self.k), -1, dtype=torch.int64, device=device)
        kept = torch.zeros(queries, dtype=torch.int64, device=device)
        return _State(0, kept, ((scores, positions),) * len(self.sides))

    def _states(self, begin: _State) -> Iterator[_State]:
        device = device_of(self.linear, self.ids)
        score = scanner(self.linear, device, self.kernel, len(self.ids))
        block = max(1, min(BLOCK, SCORES_PER_BLOCK // self.linear.queries))
        state = begin
        room = torch.empty(self.linear.queries, block, device=device)
        for start in range(begin.done, len(self.ids), block):
            stop = min(start + block, len(self.ids))
            scores = room[:, : stop - start]
            allowed = self._allowed(start, stop, device)
            score(self.ids, start, scores)
            state = self._merged(state, scores, allowed, stop)
            yield state

    def _allowed(self, start: int, stop: int, device: torch.device) -> Tensor | None:
        if self.keep is None:
            return None
        if isinstance(self.keep, Tensor):
            return self.keep[..., start:stop].to(device)
        allowed = self.keep(torch.arange(start, stop, device=device))
        _check_keep(allowed, self.linear.queries, stop - start)
        return allowed.to(device)

    def _merged(self, state: _State, scores: Tensor, allowed: Tensor | None, done: int) -> _State:
        kept = state.kept + (done - state.done if allowed is None else allowed.sum(-1))
        best = []
        for largest, old in zip(self.sides, state.best, strict=True):
            signed = scores if largest else -scores
            if allowed is not None:
                signed = signed.masked_fill(~allowed, -torch.inf)
            rows = [_merge(*row, state.done) for row in zip(*old, signed, strict=True)]
            values, positions = zip(*rows, strict=True)
            best.append((torch.stack(values), torch.stack(positions)))
        return _State(done, kept, tuple(best))

    def _rankings(self, state: _State) -> list[Ranking]:
        if (short := state.kept < self.least).any():
            query = int(torch.nonzero(short)[0])
            raise ScoreError(
                f"k is {self.least}, but the filter leaves only {int(state.kept[query])} of "
                f"{len(self.ids)} ids for query {query}. Ask for at most that many, or widen keep."
            )
        rankings = []
        width = min(self.k, int(state.kept.min()))
        for largest, (scores, positions) in zip(self.sides, state.best, strict=True):
            scores, positions = scores[:, :width], positions[:, :width]
            if isinstance(self.ids, range):
                ids = positions * self.ids.step + self.ids.start
            else:
                ids = self.ids[positions]
            rankings.append(Ranking(ids, scores if largest else -scores, positions))
        return rankings

    def _check(self) -> None:
        if not 1 <= self.k <= len(self.ids):
            raise ScoreError(
                f"k is {self.k}, but must lie between 1 and the number of ids, {len(self.ids)}."
            )
        if isinstance(self.keep, Tensor):
            _check_keep(self.keep, self.linear.queries, len(self.ids))

    def _work(self) -> str:
        """What a checkpoint must agree on; the kernel may change, since all give the same bits."""
        ids, keep = self.ids, self.keep
        if not isinstance(keep, Tensor | SameGroup | None):
            raise ScoreError(
                "A checkpoint cannot tell one function given as keep from another, so that a scan "
                "might go on with another filter. Give keep as a bool tensor or as a SameGroup."
            )
        groups = [keep.queries, keep.train] if isinstance(keep, SameGroup) else [keep]
        specs = [[s.units, s.layer, s.seed, s.keep] for s in self.linear.specs]
        return _store.fingerprint(
            specs,
            *self.linear.slopes,
            self.linear.offsets,
            [ids.start, ids.stop, ids.step] if isinstance(ids, range) else ids,
            [self.k, *self.sides],
            *groups,
        )


def _merge(best: Tensor, positions: Tensor, row: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The best k of those so far and of a new row, whose positions begin at ``first``.

    Later positions lose ties: only strictly better scores enter, and the sort is stable.
    """
    k = len(best)
    near = torch.nonzero(row > best[-1]).flatten()
    if not len(near):
        return best, positions
    if len(near) > k:
        near = near[row[near] >= row[near].topk(k).values[-1]]
    values, order = torch.cat([best, row[near]]).sort(descending=True, stable=True)
    return values[:k], torch.cat([positions, near + first])[order[:k]]


def _check_keep(keep: Tensor, queries: int, count: int) -> None:
    if keep.dtype != torch.bool or tuple(keep.shape) not in ((count,), (queries, count)):
        raise ScoreError(
            f"keep is a {keep.dtype} tensor of shape {list(keep.shape)}, but must be torch.bool of "
            f"shape [{count}] or [{queries}, {count}]: one decision per id, or per query and id."
        )
