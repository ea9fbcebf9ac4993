"""Rows that are copies or nearly copies of each other, in the training set and across to the test.

Equal contents have one number. Pairs of contents that are nearly equal come from
:func:`near_texts` or :func:`near_pictures`. A set of near-copies is what hangs together by pairs;
labels conflict only between rows whose contents are a pair or equal, never along a chain.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["NearCopies", "Overlap", "near_sets", "numbered", "overlap"]

APART = 0.5  # of labels that are numbers, in standard deviations of the training labels


@final
@dataclass(frozen=True, eq=False)
class NearCopies:
    """Which rows have equal contents, and which contents are nearly equal.

    Attributes:
        content: ``int64 [rows]``, the number of each row's contents; equal contents, equal numbers.
        pairs: ``int64 [pairs, 2]``, numbers of contents that are nearly equal, the lower first.
        alike: ``float64 [pairs]``, how much of them is equal, up to 1.
        meaning: what "nearly equal" means, as the end of a sentence.
        complete: whether all candidates were compared. Where very many rows are alike, a row is
            compared with some of them only.
    """

    content: Tensor
    pairs: Tensor
    alike: Tensor
    meaning: str
    complete: bool = True


@final
@dataclass(frozen=True, eq=False)
class Overlap:
    """Test rows that also stand in the training set; all fields are ``[test]``.

    Attributes:
        equal: whether a training row has equal contents.
        near: whether none has, but one is nearly equal.
        conflict: whether such a training row carries another label.
        partner: number of the training row that is most alike, of those in conflict if there are
            any; −1 for none.
        alike: how much it has in common, up to 1; 0 for none.
    """

    equal: Tensor
    near: Tensor
    conflict: Tensor
    partner: Tensor
    alike: Tensor


def numbered(contents: Iterable[Hashable]) -> Tensor:
    """Numbers of contents ``int64 [rows]`` in the order in which they first stand there."""
    known: dict[Hashable, int] = {}
    return torch.tensor([known.setdefault(c, len(known)) for c in contents], dtype=torch.int64)


def near_sets(found: NearCopies, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sets of near-copies ``int64 [rows]`` (−1: of none), and whether a near-copy's label differs.

    Args:
        found: near-copies of these rows, or of these and others after them.
        labels: ``[rows]``, classes as int64, or numbers in standard deviations.
    """
    content = found.content[: len(labels)]
    rows_of = _rows_of(content)
    label_of = _Labels(rows_of, labels)
    root: dict[int, int] = {}
    conflict: set[int] = set()
    for a, b in found.pairs.tolist():
        if a in rows_of and b in rows_of:
            root[_end(root, a)] = _end(root, b)
            if label_of.differ(a, b):
                conflict |= {a, b}
    near = {content for pair in found.pairs.tolist() for content in pair}
    names: dict[int, int] = {}
    group = torch.full((len(labels),), -1)
    for row, number in enumerate(content.tolist()):
        if number in near and number in root:
            group[row] = names.setdefault(_end(root, number), len(names))
    return group, torch.tensor([c in conflict for c in content.tolist()], dtype=torch.bool)


def overlap(found: NearCopies, labels: Tensor, test_labels: Tensor) -> Overlap:
    """Which test rows are copies or near-copies of training rows.

    Args:
        found: near-copies of the training rows, followed by the test rows.
        labels: of the training rows ``[train]``.
        test_labels: of the test rows ``[test]``.
    """
    train = len(labels)
    rows_of = _rows_of(found.content[:train])
    beside: dict[int, list[tuple[float, int]]] = {}
    for (a, b), alike in zip(found.pairs.tolist(), found.alike.tolist(), strict=True):
        beside.setdefault(a, []).append((alike, b))
        beside.setdefault(b, []).append((alike, a))
    count = len(test_labels)
    equal, near, conflict = (torch.zeros(count, dtype=torch.bool) for _ in range(3))
    partner, likeness = torch.full((count,), -1), torch.zeros(count, dtype=torch.float64)
    for row, content in enumerate(found.content[train:].tolist()):
        others = [(1.0, r) for r in rows_of.get(content, ())]
        equal[row] = bool(others)
        others += [(a, r) for a, c in beside.get(content, ()) for r in rows_of.get(c, ())]
        if not others:
            continue
        near[row] = not equal[row]
        best = max((_apart(labels[r], test_labels[row]), a, -r) for a, r in others)
        conflict[row], likeness[row], partner[row] = best[0], best[1], -best[2]
    return Overlap(equal, near, conflict, partner, likeness)


def _rows_of(content: Tensor) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(content.tolist()):
        rows.setdefault(number, []).append(row)
    return rows


def _end(root: dict[int, int], content: int) -> int:
    """The content that stands for a set; the way to it is shortened (union-find)."""
    way = []
    while (up := root.setdefault(content, content)) != content:
        way.append(content)
        content = up
    root.update(dict.fromkeys(way, content))
    return content


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether two labels contradict each other."""
    if one.is_floating_point():
        return bool((one - other).abs() > APART)
    return bool(one != other)


class _Labels:
    """The least and the greatest label of each content; two contents agree where all four do."""

    def __init__(self, rows_of: dict[int, list[int]], labels: Tensor) -> None:
        values: Sequence[float] = labels.tolist()
        self.ends = {
            content: (min(values[r] for r in rows), max(values[r] for r in rows))
            for content, rows in rows_of.items()
        }
        self.most = APART if labels.is_floating_point() else 0

    def differ(self, a: int, b: int) -> bool:
        low, high = zip(self.ends[a], self.ends[b], strict=True)
        return max(high) - min(low) > self.most
